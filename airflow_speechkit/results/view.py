"""Rows as Python objects, and as pandas DataFrames: a view over the tables, not a second reader."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa

    from airflow_speechkit.results.schema import Tables


@dataclass(frozen=True)
class _Row:
    @classmethod
    def _rows(cls, table: pa.Table) -> Iterator[Self]:
        columns = {field.name: table[field.name].to_pylist() for field in fields(cls)}
        for name in columns.keys() & {"labels", "settings", "parts"}:
            columns[name] = [None if text is None else json.loads(text) for text in columns[name]]
        for row in zip(*columns.values(), strict=True):
            yield cls(*row)


@dataclass(frozen=True)
class Word(_Row):
    """A row of ``words``."""

    recognition_id: str
    operation_id: str | None
    channel: str
    channel_index: int | None
    utterance: int
    alternative: int
    word_index: int
    word: str
    start_ms: int | None
    end_ms: int | None


@dataclass(frozen=True)
class Utterance(_Row):
    """A row of ``utterances``; `words` is how many there are."""

    recognition_id: str
    operation_id: str | None
    channel: str
    channel_index: int | None
    utterance: int
    alternative: int
    start_ms: int | None
    end_ms: int | None
    text: str
    text_raw: str | None
    words: int
    language: str | None
    speaker: str | None


@dataclass(frozen=True)
class Recognition(_Row):
    """A row of ``recognitions``."""

    recognition_id: str
    operation_id: str | None
    audio_uri: str | None
    labels: Mapping[str, Any]
    api_version: str
    model: str | None
    language: str | None
    channels: int | None
    duration_ms: int | None
    utterances: int
    words: int
    billed_seconds: int | None
    created_at: datetime | None
    finished_at: datetime | None
    status: str
    error_code: int | None
    error_message: str | None
    settings: Mapping[str, Any] | None
    dag_id: str | None
    run_id: str | None
    submitted_uri: str | None
    paired_uri: str | None
    parts: Sequence[Mapping[str, Any]] | None
    filter_reason: str | None


def recognitions(tables: Tables) -> list[Recognition]:
    """Return the recordings."""
    return list(Recognition._rows(tables.recognitions))


def utterances(tables: Tables) -> list[Utterance]:
    """Return the utterances, in order."""
    return list(Utterance._rows(tables.utterances))


def words(tables: Tables) -> list[Word]:
    """Return the words, in order."""
    return list(Word._rows(tables.words))


def frames(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return each table as a DataFrame. Columns that can lack a value have pandas' nullable types, so a count or a
    time stays a whole number.
    """
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    made: dict[str, pd.DataFrame] = {}
    for schema, table in tables.items():
        frame = table.to_pandas(split_blocks=True)
        for column in schema.columns:
            if column.nullable and column.type in nullable:
                frame[column.name] = table[column.name].to_pandas(types_mapper=nullable.get)
        made[schema.name] = frame
    return made
