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
left out: it is documented as not supported."""


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
        yield f"| `{status.value}` | {status.about} |"
    yield ""
    yield "## `analyses.kind`"
    yield ""
    yield "| kind | the service's message in `payload` |"
    yield "|---|---|"
    for kind in Analysis:
        yield f"| `{kind.value}` | {kind.about} |"


def _type(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "timestamp, UTC, microseconds"
    return {pa.string(): "text", pa.int32(): "integer, 32 bits", pa.int64(): "integer, 64 bits"}[kind]


if __name__ == "__main__":
    sys.stdout.write(tables_markdown())
