"""The rows of many files, one after the other: the files are fetched and read ahead, a few dozen at a time."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from airflow_speechkit.errors import StorageError
from airflow_speechkit.parsing import SURPRISES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

#: Rows in a batch: large enough to be quick, small enough that memory doesn't depend on the files' size.
BATCH_ROWS = 32_768
_BLOCK_BYTES = 4 << 20

#: Files that are fetched at the same time; twice as many wait to be used.
_AT_ONCE = 16

#: A larger file is fetched ahead, and read when its turn comes.
_READ_AHEAD_BYTES = 1 << 20


def rows_of(
    names: Iterable[str],
    fetch: Callable[[str, str], str],
    file_format: str,
    schema: pa.Schema,
) -> Generator[pa.RecordBatch]:
    """Read files as batches of a table's own types, small files together in one batch.

    Close what you don't read to its end: it has copies of files.

    :param names: the files, in the order in which their rows are to come
    :param fetch: takes a name and a path, and returns where the file lies on this machine: there, where it has made a
        copy, which is removed once it is read. It is called in several threads at once, and what it raises comes out
        here
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param schema: the table's schema; a file that lacks a column has no values there
    :raises StorageError: a file isn't what it should be
    """
    # What is written by another version may lack what must not be empty: the database decides.
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
    """Put small batches together: each one costs a database something."""
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
        # Its text may quote a row, and so may those that it came from.
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
            # Written unquoted an empty field is no value, quoted it is an empty text.
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
