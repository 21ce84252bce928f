from __future__ import annotations

from pathlib import Path

from airflow_speechkit.results.documentation import tables_markdown
from airflow_speechkit.results.schema import TABLES

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


def test_the_document_is_the_one_that_the_schema_makes():
    document = Path(__file__).parents[3] / "docs" / "tables.md"
    assert document.read_text(encoding="utf-8") == tables_markdown(), (
        "run: python -m airflow_speechkit.results.documentation > docs/tables.md"
    )


def test_the_columns_are_those_that_were_promised_in_their_order():
    assert {table.name: ", ".join(column.name for column in table.columns) for table in TABLES} == DESIGN
