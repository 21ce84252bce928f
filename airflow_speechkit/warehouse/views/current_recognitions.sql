-- The newest recognition of each recording: the newest that has a result, or where none has, the newest of all.
-- An answer without its submission has no audio_uri and counts as a recording of its own.
CREATE OR REPLACE VIEW "current_recognitions" AS
SELECT
    operation_id, audio_uri, labels, api_version, model, language, channels, duration_ms, utterances, words,
    billed_seconds, created_at, finished_at, status, error_code, error_message, recognition_id, settings, dag_id, run_id,
    submitted_uri, paired_uri, parts, filter_reason, loaded_at
FROM (
    SELECT
        r.*,
        row_number() OVER (
            PARTITION BY coalesce(r.audio_uri, r.recognition_id)
            ORDER BY
                CASE WHEN r.status = 'finished' THEN 0 ELSE 1 END,
                r.created_at DESC NULLS LAST,
                r.recognition_id DESC
        ) AS place
    FROM "recognitions" AS r
) AS ranked
WHERE place = 1
