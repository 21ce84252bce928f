"""``docs/tables.md``, made from the schema: ``python .ci/tables.py > docs/tables.md``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pyarrow as pa

from airflow_speechkit.results.schema import SCHEMA_VERSION, TABLES, VERSION_KEY, Analysis, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

_ORDER = """\
Each recognition has a file of its own for each table in which it has rows, `TABLE/day=2026-11-22/ID.parquet`; see
[the files by themselves](warehouses.md#the-files-by-themselves). Its rows are ordered by start, then channel, then
place in the answer; a row without a start stays after the row before it. An utterance starts with the first word of its
first alternative that has any, and its alternatives stay together. `words` is ordered by the words' own starts, so
overlapping channels interleave there.

Times are whole milliseconds from the recording's beginning, rounded half to even from the exact decimal. A silent
recording has its row in `recognitions` and none in the other tables. The service's `confidence` is
left out: it is documented as not supported.

With [`identity="content"`](archive.md#the-same-audio-under-another-name), recordings with the same bytes share an
operation. Each of them has rows in every table. Those that were not submitted have a `recognition_id` of their own (the
operation id, `-` and 16 hexadecimal digits), their own `audio_uri`, `labels`, `dag_id` and `run_id`, and
`billed_seconds = 0`: the sum over `recognitions` is what was billed. Their `operation_id` is the shared one.

A recording that was submitted [in parts](recordings.md#longer-than-the-service-takes) has one row in `recognitions`.
Its `recognition_id` is `parts-` and a hash, and its `operation_id` is empty. The rows of the other tables have this
`recognition_id`, and the `operation_id` of their part. All times are those of the whole recording. `billed_seconds` is
the sum over the parts. If a part has no result, `status`, `error_code` and `error_message` (`Part 2 of 3: …`) are those
of the first such part, and the rows of the others are there. `parts` is a JSON list with an object for each: `part`,
`operation_id`, `start_ms`, `duration_ms`, `submitted_uri`, `status`."""

_STATUSES = {
    Status.FINISHED: "There is a result. `utterances = 0` means that the recording has no speech.",
    Status.FAILED: "The service accepted the recording, and the operation ended in an error.",
    Status.REFUSED: "The recording could not be submitted: no operation, `recognition_id` is `refused-…`.",
    Status.FILTERED: "The recording was left out, for its `filter_reason`: no operation, `recognition_id` is "
    "`filtered-…`, nothing was billed.",
    Status.LOST: "The recording may have been paid for, but its result is no longer available.",
}

_KINDS = {
    Analysis.CLASSIFIER: "`classifierUpdate`: `windowType`, and the `classifierResult` with the `classifier`'s name, "
    "its `highlights` in the text and its `labels` with their confidence. The times are the window's.",
    Analysis.SPEAKER: "`speakerAnalysis`: `speakerTag`, `windowType`, and statistics of one speaker's speech, silence, "
    "rate and utterances. The times are those of `speechBoundaries`.",
    Analysis.CONVERSATION: "`conversationAnalysis`: statistics of the whole conversation: speech and silence together, "
    "interrupts by speaker. The times are those of `conversationBoundaries`.",
    Analysis.SUMMARIZATION: "`summarization`: `results`, a `response` for each instruction in their order, and "
    "`contentUsage`, the tokens used. Without times.",
}


def tables_markdown() -> str:
    """Return the document."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "<!-- Made from the schema: python .ci/tables.py > docs/tables.md -->"
    yield "# The tables"
    yield ""
    yield f"Schema version {SCHEMA_VERSION}; Parquet files have it in their metadata, as `{VERSION_KEY.decode()}`."
    yield ""
    yield _ORDER
    for table in TABLES:
        yield ""
        yield f"## `{table.name}`"
        yield ""
        yield f"One row for each: {table.row}."
        yield f"Its key is {', '.join(f'`{name}`' for name in table.key)}."
        yield ""
        yield "| column | type | may be empty | what it says |"
        yield "|---|---|---|---|"
        for column in table.columns:
            yield f"| `{column.name}` | {_type(column.type)} | {'yes' if column.nullable else 'no'} | {column.about} |"
    yield ""
    yield "## `recognitions.status`"
    yield ""
    yield "| status | what it means |"
    yield "|---|---|"
    for status in Status:
        yield f"| `{status.value}` | {_STATUSES[status]} |"
    yield ""
    yield "## `analyses.kind`"
    yield ""
    yield "| kind | the service's message in `payload` |"
    yield "|---|---|"
    for kind in Analysis:
        yield f"| `{kind.value}` | {_KINDS[kind]} |"


def _type(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "timestamp, UTC, microseconds"
    return {pa.string(): "text", pa.int32(): "integer, 32 bits", pa.int64(): "integer, 64 bits"}[kind]


if __name__ == "__main__":
    sys.stdout.write(tables_markdown())
