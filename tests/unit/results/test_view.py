from __future__ import annotations

import pandas as pd

from airflow_speechkit.results import view
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.results.schema import TABLES
from tests.unit.results.saying import chunk, submission, v2, word

SAID = v2(chunk("1", word("да", "1s", "1.500s")), {"alternatives": [{"text": "нет"}], "channelTag": "2"})


def test_rows_as_objects_are_the_rows():
    tables = flatten(SAID, submission())
    (recognition,) = view.recognitions(tables)
    assert (recognition.labels, recognition.billed_seconds) == ({"call_id": "17", "агент": "Анна"}, 62)
    first, second = view.utterances(tables)
    assert (first.text, first.start_ms, first.words, second.start_ms) == ("да", 1000, 1, None)
    assert [one.word for one in view.words(tables)] == ["да"]


def test_the_objects_have_every_column():
    for row, schema in zip((view.Recognition, view.Utterance, view.Word), TABLES, strict=False):
        assert list(row.__dataclass_fields__) == schema.arrow.names


def test_frames_keep_whole_numbers_whole():
    frames = view.frames(flatten(SAID, submission()))
    assert frames["utterances"]["start_ms"].tolist() == [1000, pd.NA]
    assert frames["utterances"]["start_ms"].dtype == pd.Int64Dtype()
    assert frames["words"]["channel_index"].tolist() == [0]
    assert {name: len(frame) for name, frame in frames.items()} == {
        "recognitions": 1,
        "utterances": 2,
        "words": 1,
        "analyses": 0,
    }
