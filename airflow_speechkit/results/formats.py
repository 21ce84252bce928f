"""The file formats, each written on the local disk."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

#: Rows in a row group of Parquet: some megabytes of words, as query engines like it.
ROW_GROUP_ROWS = 250_000

#: Below, dictionaries and page indexes make a file larger, and slower to write and to read.
_FEW_ROWS = 10_000

_JSON_ROWS = 8192


class FileFormat(StrEnum):
    """What tables can be written as; the value is the files' ending too."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


def parquet_writer(path: Path, schema: pa.Schema, *, few_rows: bool = False) -> pq.ParquetWriter:
    """Open a Parquet file for writing, with the options that all of ours have.

    :param path: the file
    :param schema: its columns
    :param few_rows: whether it is a small one
    """
    # Statistics let a reader skip row groups; without the page index it can't skip pages.
    return pq.ParquetWriter(
        path, schema, compression="zstd", write_statistics=True, use_dictionary=not few_rows,
        write_page_index=not few_rows, store_schema=True,
    )  # fmt: skip


def write_file(path: Path, rows: pa.Table, file_format: FileFormat) -> None:
    """Write a table as a file."""
    if file_format is FileFormat.PARQUET:
        with parquet_writer(path, rows.schema, few_rows=rows.num_rows < _FEW_ROWS) as writer:
            writer.write_table(rows, ROW_GROUP_ROWS)
    elif file_format is FileFormat.CSV:
        pa_csv.write_csv(rows, path)
    else:
        _write_json_lines(path, rows)


def _write_json_lines(path: Path, rows: pa.Table) -> None:
    """Write JSON Lines: one object for each row."""
    names = rows.column_names
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for batch in rows.to_batches(max_chunksize=_JSON_ROWS):
            columns = [_json_values(column) for column in batch.columns]
            file.writelines(
                json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, separators=(",", ":")) + "\n"
                for row in zip(*columns, strict=True)
            )


def _json_values(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if pa.types.is_timestamp(column.type):
        return [value and value.isoformat().replace("+00:00", "Z") for value in values]
    return values
