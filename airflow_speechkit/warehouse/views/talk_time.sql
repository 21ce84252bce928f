-- How long each channel spoke and was silent. Time in which utterances of a channel overlap counts once.
-- A silent channel has a row too; silence_ms needs the recording's length. If no utterance of a channel has times, how
-- long it spoke isn't known: that is not silence.
CREATE OR REPLACE VIEW "talk_time" AS
WITH spoken AS (
    SELECT
        u.recognition_id,
        u.channel,
        u.channel_index,
        u.start_ms,
        u.end_ms,
        max(u.end_ms) OVER (
            PARTITION BY u.recognition_id, u.channel
            ORDER BY u.start_ms, u.end_ms
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS covered_until_ms
    FROM "utterances" AS u
    WHERE u.alternative = 0
),
talked AS (
    SELECT
        recognition_id,
        channel,
        channel_index,
        count(*) AS utterances,
        CAST(sum(
            CASE WHEN start_ms IS NOT NULL AND end_ms IS NOT NULL
                THEN greatest(end_ms - greatest(start_ms, coalesce(covered_until_ms, start_ms)), 0)
            END
        ) AS BIGINT) AS talk_ms
    FROM spoken
    GROUP BY recognition_id, channel, channel_index
),
channels AS (
    SELECT t.recognition_id, t.channel_index, t.channel, t.utterances, t.talk_ms FROM talked AS t
    UNION ALL
    SELECT r.recognition_id, CAST(n.i AS INTEGER),
        CAST(CASE WHEN r.api_version = 'v2' THEN n.i + 1 ELSE n.i END AS TEXT), 0, 0
    FROM "recognitions" AS r
    CROSS JOIN LATERAL (SELECT i FROM generate_series(0, coalesce(r.channels, 0) - 1) AS series(i)) AS n
    WHERE r.status = 'finished' AND NOT EXISTS (
        SELECT 1 FROM talked AS t WHERE t.recognition_id = r.recognition_id AND t.channel_index = n.i
    )
)
SELECT
    r.audio_uri,
    r.labels,
    r.operation_id,
    c.channel,
    c.channel_index,
    r.labels ->> ('channel_' || c.channel_index) AS role,
    c.utterances,
    c.talk_ms,
    r.duration_ms - c.talk_ms AS silence_ms,
    r.duration_ms,
    r.recognition_id
FROM "current_recognitions" AS r
JOIN channels AS c ON c.recognition_id = r.recognition_id
