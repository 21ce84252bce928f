"""The file formats, each written batch by batch on the local disk, and where rows wait there for their file."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


#: Rows that wait on the disk are read again so many at a time.
_SPOOLED_ROWS = 65_536


class FileFormat(StrEnum):
    """What tables can be written as; the value is the files' ending too."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


class _Sink(Protocol):
    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class TableFile:
    """A file that rows are added to; they wait until they fill a row group.

    :param path: the file
    :param schema: its columns
    :param file_format: its format
    :param row_group_rows: rows in a row group
    """

    def __init__(self, path: Path, schema: pa.Schema, file_format: FileFormat, row_group_rows: int) -> None:
        self.path = path
        self.rows = 0
        self.buffered_bytes = 0
        self._schema = schema
        self._row_group_rows = row_group_rows
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._sink: _Sink | None = _open(path, schema, file_format)

    def add(self, rows: pa.Table) -> None:
        """Add rows; those that fill a row group are written."""
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self.buffered_bytes += rows.nbytes
        self.rows += rows.num_rows
        if self._waiting_rows >= self._row_group_rows:
            waiting = pa.concat_tables(self._waiting)
            full = waiting.num_rows - waiting.num_rows % self._row_group_rows
            self._write(waiting.slice(0, full))
            self._waiting = [waiting.slice(full)]
            self._waiting_rows = waiting.num_rows - full
            self.buffered_bytes = self._waiting[0].nbytes

    def flush(self) -> None:
        """Write what waits, as a smaller row group."""
        if self._waiting_rows:
            self._write(pa.concat_tables(self._waiting))
        self._waiting, self._waiting_rows, self.buffered_bytes = [], 0, 0

    def close(self) -> None:
        """Write what waits, and finish the file."""
        self.flush()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file, finished or not."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()

    def _write(self, rows: pa.Table) -> None:
        assert self._sink is not None, "rows for a file that is closed"  # noqa: S101
        for begin in range(0, rows.num_rows, self._row_group_rows):
            self._sink.write_table(rows.slice(begin, self._row_group_rows))


class Spool:
    """Rows on the local disk that are to be read again part by part, in one file whatever the number of parts.

    :param path: the file
    :param schema: its columns
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._batches: dict[str, list[int]] = {}
        self._written = 0
        # What is written here is read once, soon: quick matters more than small.
        self._writer: Any = pa.ipc.new_file(path, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        self._reader: Any = None

    def add(self, part: str, rows: pa.Table) -> None:
        """Add rows to a part; it is known from then on, even without any."""
        numbers = self._batches.setdefault(part, [])
        for batch in rows.to_batches(max_chunksize=_SPOOLED_ROWS):
            self._writer.write_batch(batch)
            numbers.append(self._written)
            self._written += 1

    def rows(self, part: str) -> Iterator[pa.Table]:
        """Give a part's rows as they were added; no more can be added then."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            self._reader = pa.ipc.open_file(pa.OSFile(str(self._path)))
        for number in self._batches.get(part, ()):
            yield pa.Table.from_batches([self._reader.get_batch(number)])

    def discard(self) -> None:
        """Let go of the file and remove it."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reader = None
        self._path.unlink(missing_ok=True)


def _open(path: Path, schema: pa.Schema, file_format: FileFormat) -> _Sink:
    if file_format is FileFormat.PARQUET:
        # Statistics let a reader skip row groups; without the page index it can't skip pages.
        sink: _Sink = pq.ParquetWriter(
            path, schema, compression="zstd", write_statistics=True, write_page_index=True, store_schema=True
        )
        return sink
    if file_format is FileFormat.CSV:
        sink = pa_csv.CSVWriter(path, schema)
        return sink
    return _JsonLines(path)


class _JsonLines:
    """JSON Lines: one object for each row."""

    _ROWS = 8192

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write_table(self, table: pa.Table) -> None:
        names = table.column_names
        for batch in table.to_batches(max_chunksize=self._ROWS):
            columns = [_json_values(column) for column in batch.columns]
            self._file.writelines(
                json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, separators=(",", ":")) + "\n"
                for row in zip(*columns, strict=True)
            )

    def close(self) -> None:
        self._file.close()


def _json_values(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if pa.types.is_timestamp(column.type):
        return [value and value.isoformat().replace("+00:00", "Z") for value in values]
    return values
