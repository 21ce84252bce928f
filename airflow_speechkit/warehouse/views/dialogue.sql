-- What was said, turn by turn. The role is the label channel_0, channel_1, … that was given at the submit.
-- gap_ms: the pause since everybody had stopped speaking; below zero the turn began while somebody still spoke.
CREATE OR REPLACE VIEW "dialogue" AS
SELECT
    r.audio_uri,
    r.labels,
    u.operation_id,
    row_number() OVER turns AS turn,
    u.channel,
    u.channel_index,
    r.labels ->> ('channel_' || u.channel_index) AS role,
    u.speaker,
    u.start_ms,
    u.end_ms,
    u.start_ms - max(u.end_ms) OVER (turns ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS gap_ms,
    u.text,
    u.utterance,
    u.recognition_id
FROM "utterances" AS u
JOIN "current_recognitions" AS r ON r.recognition_id = u.recognition_id
WHERE u.alternative = 0
WINDOW turns AS (PARTITION BY u.recognition_id ORDER BY u.utterance)
