"""The tables that a recognition becomes: their columns, types and meanings. ``docs/tables.md`` is made from here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

#: Incremented when a column changes its meaning or is removed, not for a new column. In the metadata of each file.
SCHEMA_VERSION = 2

#: The key of the version in a schema's metadata.
VERSION_KEY = b"airflow_speechkit.schema_version"


class Status(StrEnum):
    """How a recording's recognition ended: ``recognitions.status``."""

    FINISHED = "finished"
    FAILED = "failed"
    REFUSED = "refused"
    FILTERED = "filtered"
    LOST = "lost"


class Analysis(StrEnum):
    """What a row of ``analyses`` is about: ``analyses.kind``."""

    CLASSIFIER = "classifier"
    SPEAKER = "speaker_analysis"
    CONVERSATION = "conversation_analysis"
    SUMMARIZATION = "summarization"


@dataclass(frozen=True)
class Column:
    """One column.

    :param name: its name
    :param type: its Arrow type
    :param about: what it says
    :param nullable: whether a row may lack it
    :param in_files: whether the files have it; otherwise the database sets it
    """

    name: str
    type: pa.DataType
    about: str
    nullable: bool = False
    in_files: bool = True


@dataclass(frozen=True)
class TableSchema:
    """One table.

    :param name: its name
    :param row: what one row is
    :param columns: its columns, in order
    :param key: the columns that identify a row
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def arrow(self) -> pa.Schema:
        """The files' Arrow schema, with the schema version in its metadata."""
        return pa.schema(
            [pa.field(one.name, one.type, nullable=one.nullable) for one in self.columns if one.in_files],
            metadata={VERSION_KEY: str(SCHEMA_VERSION)},
        )


_TEXT = pa.string()
_COUNT = pa.int32()
_LONG = pa.int64()
_MOMENT = pa.timestamp("us", tz="UTC")

_RECOGNITION = Column(
    "recognition_id",
    _TEXT,
    "The operation id, with a suffix if it is shared; `refused-…`, `filtered-…` without one; `parts-…` with several.",
)
_OPERATION = Column(
    "operation_id", _TEXT, "The operation id; empty in `recognitions` if there is none, or one for each part.", True
)
#: What says which alternative of which utterance a row belongs to.
_PLACE = (
    _RECOGNITION,
    _OPERATION,
    Column("channel", _TEXT, "Its name at the service: v2 counts from `1`, v3 from `0`. Missing is the first."),
    Column("channel_index", _COUNT, "The channel, from 0 in both APIs; empty if its name isn't a number.", True),
    Column("utterance", _COUNT, "Number of the utterance within the recognition, from 0, in the tables' order."),
    Column("alternative", _COUNT, "Number of the hypothesis, from 0; the service gives one."),
)

RECOGNITIONS = TableSchema(
    "recognitions",
    "one recording submitted",
    (
        _RECOGNITION,
        _OPERATION,
        Column("audio_uri", _TEXT, "The recording, `s3://bucket/key`; empty without its submission.", True),
        Column("labels", _TEXT, "The recording's newest labels, a JSON object as text; `{}` for none."),
        Column("api_version", _TEXT, "`v2` or `v3`."),
        Column("model", _TEXT, "The requested model.", True),
        Column("language", _TEXT, "The requested language, or several with commas. Empty for a blacklist.", True),
        Column("channels", _COUNT, "Number of channels of the recording, or else of the answer, if it is known.", True),
        Column("duration_ms", _LONG, "The recording's duration, if it is known.", True),
        Column("utterances", _COUNT, "Number of utterances; 0 means silence."),
        Column("words", _COUNT, "Number of words of the first alternatives."),
        Column("billed_seconds", _LONG, "Seconds that the service charges for, if the duration is known.", True),
        Column("created_at", _MOMENT, "When the operation was created, UTC.", True),
        Column("finished_at", _MOMENT, "When the operation was done, UTC.", True),
        Column("status", _TEXT, "How the recognition ended, see below."),
        Column("error_code", _COUNT, "The gRPC code of the error.", True),
        Column("error_message", _TEXT, "The error's text.", True),
        Column("settings", _TEXT, "The requested settings, a JSON object as text; empty without a submission.", True),
        Column("dag_id", _TEXT, "The DAG that submitted the recording; empty outside of Airflow.", True),
        Column("run_id", _TEXT, "The DAG run that submitted the recording.", True),
        Column("submitted_uri", _TEXT, "The converted copy that was submitted, if there is one.", True),
        Column("paired_uri", _TEXT, "The recording that became the second channel, if two were joined.", True),
        Column("parts", _TEXT, "If it was submitted in parts: each one's operation and place, JSON as text.", True),
        Column("filter_reason", _TEXT, "Why it was left out: `too_short`, `too_long` or `silent`.", True),
        Column("loaded_at", _MOMENT, "When the row was loaded, UTC. Only in databases, which set it.", in_files=False),
    ),
    ("recognition_id",),
)

UTTERANCES = TableSchema(
    "utterances",
    "one alternative of a chunk (v2), of a final with its refinement (v3)",
    (
        *_PLACE,
        Column("start_ms", _LONG, "Start of its first word; empty without words.", True),
        Column("end_ms", _LONG, "End of its last word; empty without words.", True),
        Column("text", _TEXT, "The text; in v3 the normalised text if there is one."),
        Column("text_raw", _TEXT, "v3: the text before normalisation. Always empty in v2.", True),
        Column("words", _COUNT, "Number of words."),
        Column("language", _TEXT, "v3: the most probable language, if the answer has one.", True),
        Column("speaker", _TEXT, "v3: the speaker, if speaker labelling was requested.", True),
    ),
    ("recognition_id", "utterance", "alternative"),
)

WORDS = TableSchema(
    "words",
    "one word",
    (
        *_PLACE,
        Column("word_index", _COUNT, "Number of the word within the alternative, from 0, as in the answer."),
        Column("word", _TEXT, "The word: lower case, numbers spelled out."),
        Column("start_ms", _LONG, "Start of the word. The service documents an error of 1 to 2 s.", True),
        Column("end_ms", _LONG, "End of the word.", True),
    ),
    ("recognition_id", "utterance", "alternative", "word_index"),
)

ANALYSES = TableSchema(
    "analyses",
    "one result of an analysis (v3)",
    (
        _RECOGNITION,
        _OPERATION,
        Column("analysis_index", _COUNT, "Number of the row within the recognition, from 0, as in the answer."),
        Column("channel", _TEXT, "The service's name of the channel; empty for the whole recording.", True),
        Column("kind", _TEXT, "The kind of analysis, see below."),
        Column("start_ms", _LONG, "Start of the analysed part, if the answer has it.", True),
        Column("end_ms", _LONG, "End of the analysed part, if the answer has it.", True),
        Column("payload", _TEXT, "The service's message, a JSON object as text."),
    ),
    ("recognition_id", "analysis_index"),
)

TABLES = (RECOGNITIONS, UTTERANCES, WORDS, ANALYSES)


@dataclass(frozen=True)
class Tables:
    """The rows of one recognition or of many, each table with exactly its schema."""

    recognitions: pa.Table
    utterances: pa.Table
    words: pa.Table
    analyses: pa.Table

    def items(self) -> Iterator[tuple[TableSchema, pa.Table]]:
        """Give each table with its schema, in the order of `TABLES`."""
        for schema in TABLES:
            yield schema, getattr(self, schema.name)

    @classmethod
    def empty(cls) -> Tables:
        """Return tables without any row."""
        return cls(**{schema.name: schema.arrow.empty_table() for schema in TABLES})

    @classmethod
    def concat(cls, many: list[Tables]) -> Tables:
        """Put the rows of several after each other, without copying them."""
        if not many:
            return cls.empty()
        return cls(**{schema.name: pa.concat_tables([getattr(one, schema.name) for one in many]) for schema in TABLES})

    @property
    def nbytes(self) -> int:
        """How many bytes the columns take."""
        return sum(table.nbytes for _, table in self.items())

    def to_pandas(self) -> dict[str, pd.DataFrame]:
        """Return each table as a DataFrame, by its name.

        Whole numbers have pandas' nullable types, so a missing one doesn't make them floats.
        """
        import pandas as pd

        types = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
        return {schema.name: table.to_pandas(types_mapper=types.get) for schema, table in self.items()}
