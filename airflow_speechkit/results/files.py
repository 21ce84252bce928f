"""The tables' files: Parquet, CSV and JSON Lines, written one at a time and read many at a time."""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq
from more_itertools import constrained_batches

from airflow_speechkit.errors import StorageError
from airflow_speechkit.parsing import SURPRISES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from airflow_speechkit.storage import Folder

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: Rows in a row group of Parquet: some megabytes of words, which suits query engines.
ROW_GROUP_ROWS = 250_000

#: Below, dictionaries and page indexes make a file larger, and slower to write and to read.
_FEW_ROWS = 10_000

#: Rows in a batch: large enough to be quick, small enough that memory doesn't depend on the files' size.
BATCH_ROWS = 32_768
_BLOCK_BYTES = 4 << 20

#: Files that are read or written at the same time; twice as many wait to be used.
AT_ONCE = 16

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
    # By the statistics, which are written anyway, a reader skips row groups; by the page index it skips pages.
    is_large = not few_rows
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=is_large, write_page_index=is_large)


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
        # The one type that isn't JSON's own is a moment.
        encoder = json.JSONEncoder(
            ensure_ascii=False, separators=(",", ":"), default=lambda moment: moment.isoformat().replace("+00:00", "Z")
        )
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for batch in rows.to_batches(max_chunksize=_FEW_ROWS):
                file.writelines(f"{encoder.encode(row)}\n" for row in batch.to_pylist())


def ahead(
    pool: ThreadPoolExecutor, do: Callable[[_Item], _Result], items: Iterable[_Item], most: Callable[[], int]
) -> Iterator[_Result]:
    """Do something with each of some items in threads, and give the results in the order of the items.

    :param most: how many items may be begun and their results not yet used, asked again and again
    """
    begun: deque[Future[_Result]] = deque()
    for item in items:
        begun.append(pool.submit(do, item))
        while len(begun) >= most():
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def rows_of(folder: Folder, names: Iterable[str], file_format: str, schema: pa.Schema) -> Generator[pa.RecordBatch]:
    """Read the rows of many files, small files together in one batch. Files are fetched and read ahead.

    Close the generator if you don't read it to its end: it holds copies of files.

    :param folder: where the files are
    :param names: the files, in the order of their rows
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param schema: the table's schema; columns that a file lacks are null
    :return: batches with the types of `schema`
    :raises StorageError: a file is missing or damaged, or can't be read
    """
    # A file of another version may lack a column that must not be null: the database decides.
    nullable = pa.schema([pa.field(field.name, field.type) for field in schema])
    with (
        tempfile.TemporaryDirectory(prefix="airflow-speechkit-") as copies,
        ThreadPoolExecutor(AT_ONCE, thread_name_prefix="files") as pool,
    ):

        def read(numbered: tuple[int, str]) -> Iterable[pa.RecordBatch]:
            number, name = numbered
            copy = os.path.join(copies, str(number))
            try:
                path = folder.fetch(name, copy)
            except FileNotFoundError:
                raise unusable(f"The file {folder.url_of(name)} does not exist") from None
            batches = _batches(folder.url_of(name), path, copy, file_format, nullable)
            return batches if os.path.getsize(path) > _READ_AHEAD_BYTES else list(batches)

        try:
            every = ahead(pool, read, enumerate(names), lambda: 2 * AT_ONCE)
            batches = (batch for some in every for batch in some)
            # Each batch has a fixed cost in a database.
            for some in constrained_batches(batches, BATCH_ROWS, get_len=lambda one: one.num_rows, strict=False):
                yield from some if len(some) == 1 else pa.Table.from_batches(some).combine_chunks().to_batches()
        finally:
            pool.shutdown(cancel_futures=True)


def unusable(what: str) -> StorageError:
    """Return the error for a file that the transform has to write again."""
    return StorageError(
        what,
        hint="Run the transform again: it writes the same files from the archive",
        retry="fails in the same way",
        retry_can_help=False,
    )


def _batches(url: str, path: str, copy: str, file_format: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    failure = None
    try:
        yield from _READERS[file_format](path, schema)
    except (*SURPRISES, pa.ArrowException, OSError) as error:
        # The error's text, or that of its cause, can quote a row.
        failure = f"The file {url} can't be read ({type(error).__name__})"
    finally:
        if path == copy:
            os.unlink(path)
    if failure:
        raise unusable(failure)


def _parquet(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        there = set(file.schema_arrow.names)
        names = [name for name in schema.names if name in there]
        if file.metadata.num_rows <= BATCH_ROWS:
            batches = file.read(columns=names, use_threads=False).to_batches()
        else:
            batches = file.iter_batches(batch_size=BATCH_ROWS, columns=names)
        for batch in batches:
            columns = [
                batch[field.name].cast(field.type) if field.name in there else pa.nulls(batch.num_rows, field.type)
                for field in schema
            ]
            yield pa.record_batch(columns, schema=schema)


def _csv(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    convert = pa_csv.ConvertOptions(
        column_types=schema,
        include_columns=schema.names,
        include_missing_columns=True,
        null_values=[""],
        strings_can_be_null=True,
        # An unquoted empty field is null, a quoted one is an empty text.
        quoted_strings_can_be_null=False,
    )
    read = pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    with pa_csv.open_csv(path, read, pa_csv.ParseOptions(newlines_in_values=True), convert) as reader:
        yield from reader


def _json_lines(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    if os.path.getsize(path) == 0:
        return
    read = pa_json.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    parse = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    with pa_json.open_json(path, read, parse) as reader:
        yield from reader


_READERS = {"parquet": _parquet, "csv": _csv, "jsonl": _json_lines}
