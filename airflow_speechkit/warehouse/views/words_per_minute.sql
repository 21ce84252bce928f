-- How fast each channel spoke: words in a minute of its own talk time.
CREATE OR REPLACE VIEW "words_per_minute" AS
WITH counted AS (
    SELECT
        u.recognition_id,
        u.channel,
        CAST(sum(u.words) AS BIGINT) AS words,
        sum(u.words) FILTER (WHERE u.start_ms IS NOT NULL AND u.end_ms IS NOT NULL) AS words_with_times
    FROM "utterances" AS u
    WHERE u.alternative = 0
    GROUP BY u.recognition_id, u.channel
)
SELECT
    t.audio_uri,
    t.labels,
    t.operation_id,
    t.channel,
    t.channel_index,
    t.role,
    coalesce(n.words, 0) AS words,
    t.talk_ms,
    CAST(n.words_with_times * 60000.0 / nullif(t.talk_ms, 0) AS DOUBLE PRECISION) AS words_per_minute,
    t.recognition_id
FROM "talk_time" AS t
LEFT JOIN counted AS n ON n.recognition_id = t.recognition_id AND n.channel = t.channel
