"""The tables' files: Parquet, CSV and JSON Lines, written one at a time and read many at a time."""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from airflow_speechkit.errors import StorageError
from airflow_speechkit.parsing import SURPRISES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

#: Rows in a row group of Parquet: some megabytes of words, which suits query engines.
ROW_GROUP_ROWS = 250_000

#: Below, dictionaries and page indexes make a file larger, and slower to write and to read.
_FEW_ROWS = 10_000

_JSON_ROWS = 8192

#: Rows in a batch: large enough to be quick, small enough that memory doesn't depend on the files' size.
BATCH_ROWS = 32_768
_BLOCK_BYTES = 4 << 20

#: Files that are fetched at the same time; twice as many wait to be used.
_AT_ONCE = 16

#: A larger file is fetched ahead, and read when its turn comes.
_READ_AHEAD_BYTES = 1 << 20


class FileFormat(StrEnum):
    """The format of a table's files; the value is also their ending."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


def parquet_writer(path: Path, schema: pa.Schema, *, few_rows: bool = False) -> pq.ParquetWriter:
    """Open a Parquet file for writing.

    :param path: the file
    :param schema: its columns
    :param few_rows: whether it gets fewer than 10,000 rows
    """
    # Statistics let a reader skip row groups; without the page index it can't skip pages.
    return pq.ParquetWriter(
        path, schema, compression="zstd", write_statistics=True, use_dictionary=not few_rows,
        write_page_index=not few_rows, store_schema=True,
    )  # fmt: skip


def write_file(path: Path, rows: pa.Table, file_format: FileFormat) -> None:
    """Write a table as a file.

    :param path: the file, which is replaced
    :param rows: the table
    :param file_format: the file's format
    """
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


def rows_of(
    names: Iterable[str],
    fetch: Callable[[str, str], str],
    file_format: str,
    schema: pa.Schema,
) -> Generator[pa.RecordBatch]:
    """Read the rows of many files, small files together in one batch. Files are fetched and read ahead.

    Close the generator if you don't read it to its end: it holds copies of files.

    :param names: the files, in the order of their rows
    :param fetch: takes a name and a path, and returns the path of a local file: that of the file itself, or the given
        path for a copy, which is removed once it is read. It is called in several threads
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param schema: the table's schema; columns that a file lacks are null
    :return: batches with the types of `schema`
    :raises StorageError: a file is damaged
    """
    # A file of another version may lack a column that must not be null: the database decides.
    nullable = pa.schema([pa.field(field.name, field.type) for field in schema])
    with (
        tempfile.TemporaryDirectory(prefix="airflow-speechkit-") as folder,
        ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="files") as pool,
    ):

        def read(number: int, name: str) -> Iterator[pa.RecordBatch]:
            copy = os.path.join(folder, str(number))
            path = fetch(name, copy)
            batches = _batches(name, path, copy, file_format, nullable)
            return batches if os.path.getsize(path) > _READ_AHEAD_BYTES else iter(list(batches))

        reading: deque[Future[Iterator[pa.RecordBatch]]] = deque()

        def in_order() -> Iterator[pa.RecordBatch]:
            for number, name in enumerate(names):
                reading.append(pool.submit(read, number, name))
                if len(reading) > 2 * _AT_ONCE:
                    yield from reading.popleft().result()
            while reading:
                yield from reading.popleft().result()

        try:
            yield from _gathered(in_order())
        finally:
            pool.shutdown(cancel_futures=True)


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Put small batches together: each batch has a fixed cost in a database."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if waiting and rows + batch.num_rows > BATCH_ROWS:
            yield from _as_one(waiting)
            waiting, rows = [], 0
        waiting.append(batch)
        rows += batch.num_rows
    if rows:
        yield from _as_one(waiting)


def _as_one(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return batches if len(batches) == 1 else pa.Table.from_batches(batches).combine_chunks().to_batches()


def _batches(name: str, path: str, copy: str, file_format: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    failure = None
    try:
        for batch in _READERS[file_format](path, schema):
            if (batch.schema.names, batch.schema.types) == (schema.names, schema.types):
                columns = batch.columns
            else:
                there = set(batch.schema.names)
                columns = [
                    batch[field.name].cast(field.type) if field.name in there else pa.nulls(batch.num_rows, field.type)
                    for field in schema
                ]
            yield pa.record_batch(columns, schema=schema)
    except (*SURPRISES, pa.ArrowException, OSError) as error:
        # The error's text, or that of its cause, can quote a row.
        failure = f"The file {name} can't be read ({type(error).__name__})"
    finally:
        if path == copy:
            os.unlink(path)
    if failure:
        raise StorageError(failure, hint="Run the transform again: it writes the same file", retry_can_help=False)


def _parquet(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        in_file = set(file.schema_arrow.names)
        there = [name for name in schema.names if name in in_file]
        if file.metadata.num_rows <= BATCH_ROWS:
            yield from file.read(columns=there, use_threads=False).to_batches()
        else:
            yield from file.iter_batches(batch_size=BATCH_ROWS, columns=there)


def _csv(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    reader = pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=schema,
            include_columns=schema.names,
            include_missing_columns=True,
            null_values=[""],
            strings_can_be_null=True,
            # An unquoted empty field is null, a quoted one is an empty text.
            quoted_strings_can_be_null=False,
        ),
    )
    with reader:
        yield from reader


def _json_lines(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    if os.path.getsize(path) == 0:
        return
    reader = pa_json.open_json(
        path,
        read_options=pa_json.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    with reader:
        yield from reader


_READERS = {"parquet": _parquet, "csv": _csv, "jsonl": _json_lines}
