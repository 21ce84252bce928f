-- Every utterance that begins while another channel is speaking: who broke in on whom, when, and for how long
-- both spoke. Two that begin in the same millisecond interrupt nobody.
CREATE OR REPLACE VIEW "interruptions" AS
SELECT
    r.audio_uri,
    r.labels,
    r.operation_id,
    b.start_ms AS at_ms,
    least(a.end_ms, b.end_ms) - b.start_ms AS overlap_ms,
    b.channel AS channel,
    b.channel_index AS channel_index,
    r.labels ->> ('channel_' || b.channel_index) AS role,
    b.utterance AS utterance,
    a.channel AS interrupted_channel,
    a.channel_index AS interrupted_channel_index,
    r.labels ->> ('channel_' || a.channel_index) AS interrupted_role,
    a.utterance AS interrupted_utterance,
    r.recognition_id
FROM "current_recognitions" AS r
JOIN "utterances" AS b ON b.recognition_id = r.recognition_id AND b.alternative = 0
JOIN "utterances" AS a
    ON a.recognition_id = r.recognition_id
    AND a.alternative = 0
    AND a.channel <> b.channel
    AND a.start_ms < b.start_ms
    AND a.end_ms > b.start_ms
