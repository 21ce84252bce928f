-- Every word with where it was said. word_key is what to search by: lower case, ё as е, in any locale.
CREATE OR REPLACE VIEW "word_search" AS
SELECT
    translate(lower(w.word), 'АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯё', 'абвгдеежзийклмнопрстуфхцчшщъыьэюяе') AS word_key,
    w.word,
    r.audio_uri,
    r.labels,
    w.operation_id,
    w.channel,
    w.channel_index,
    r.labels ->> ('channel_' || w.channel_index) AS role,
    w.start_ms,
    w.end_ms,
    u.text,
    w.utterance,
    w.word_index,
    w.recognition_id
FROM "words" AS w
JOIN "current_recognitions" AS r ON r.recognition_id = w.recognition_id
JOIN "utterances" AS u
    ON u.recognition_id = w.recognition_id AND u.utterance = w.utterance AND u.alternative = w.alternative
WHERE w.alternative = 0
