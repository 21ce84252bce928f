from __future__ import annotations

import runpy
from pathlib import Path

import pandas as pd

from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.results.schema import TABLES
from tests.unit.results.answers import chunk, submission, v2, word

DESIGN = {
    "recognitions": "recognition_id, operation_id, audio_uri, labels, api_version, model, language, channels, "
    "duration_ms, utterances, words, billed_seconds, created_at, finished_at, status, error_code, error_message, "
    "settings, dag_id, run_id, submitted_uri, paired_uri, parts, filter_reason, loaded_at",
    "utterances": "recognition_id, operation_id, channel, channel_index, utterance, alternative, start_ms, end_ms, "
    "text, text_raw, words, language, speaker",
    "words": "recognition_id, operation_id, channel, channel_index, utterance, alternative, word_index, word, "
    "start_ms, end_ms",
    "analyses": "recognition_id, operation_id, analysis_index, channel, kind, start_ms, end_ms, payload",
}


ROOT = Path(__file__).parents[3]


def test_the_document_is_the_one_that_the_schema_makes() -> None:
    made = runpy.run_path(str(ROOT / ".ci" / "tables.py"))["tables_markdown"]()
    assert (ROOT / "docs" / "tables.md").read_text(encoding="utf-8") == made, "run: .ci/tables.py > docs/tables.md"


def test_the_columns_are_those_that_were_promised_in_their_order() -> None:
    assert {table.name: ", ".join(column.name for column in table.columns) for table in TABLES} == DESIGN


def test_dataframes_keep_whole_numbers_whole() -> None:
    said = v2(chunk("1", word("да", "1s", "1.500s")), {"alternatives": [{"text": "нет"}], "channelTag": "2"})
    frames = flatten(said, submission()).to_pandas()
    assert frames["utterances"]["start_ms"].tolist() == [1000, pd.NA]
    assert frames["utterances"]["start_ms"].dtype == pd.Int64Dtype()
    assert frames["words"]["channel_index"].tolist() == [0]
    assert [len(frames[table.name]) for table in TABLES] == [1, 2, 1, 0]
