"""The files of a manifest: brought to this machine one at a time, and read as Arrow batches."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

#: Rows in a batch: large enough to be quick, small enough that a load's memory doesn't depend on the files' size.
BATCH_ROWS = 32_768
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class LocalFile:
    """One file of a table, on this machine.

    :param path: its path
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    """

    path: str
    file_format: str

    def columns(self, schema: pa.Schema) -> list[str]:
        """Return which of the table's columns the file has, in the table's order."""
        if self.file_format != "parquet":
            return list(schema.names)
        import pyarrow.parquet as pq

        there = set(pq.read_schema(self.path).names)
        return [name for name in schema.names if name in there]

    def batches(self, schema: pa.Schema, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read the file as batches of the table's own types.

        :param schema: the table's schema
        :param columns: only these; those that the file lacks are left out
        """
        wanted = [name for name in self.columns(schema) if columns is None or name in columns]
        target = _nullable(schema, wanted)
        for batch in self._read(schema, wanted):
            yield batch.select(wanted).cast(target)

    def _read(self, schema: pa.Schema, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        if self.file_format == "parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(batch_size=BATCH_ROWS, columns=wanted)
        elif self.file_format == "csv":
            yield from _read_csv(self.path, schema)
        else:
            yield from _read_json_lines(self.path, schema)


def _nullable(schema: pa.Schema, names: list[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(name, schema.field(name).type) for name in names])


def _read_csv(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow.csv

    reader = pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=_nullable(schema, schema.names),
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


def _read_json_lines(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow.json

    if os.path.getsize(path) == 0:
        return
    reader = pyarrow.json.open_json(
        path,
        read_options=pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=_nullable(schema, schema.names), unexpected_field_behavior="ignore"
        ),
    )
    with reader:
        yield from reader


@contextmanager
def fetched(url: str, file_format: str) -> Iterator[LocalFile]:
    """Bring a file to this machine, for as long as the context lasts; a local one is taken where it lies.

    :param url: any path that Airflow's ``ObjectStoragePath`` reaches
    :param file_format: what it is
    :raises StorageError: it can't be read
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    path: Any = ObjectStoragePath(url)
    if path.protocol in ("", "file"):
        if not os.path.isfile(path.path):
            raise _missing(url)
        yield LocalFile(path.path, file_format)
        return
    with tempfile.TemporaryDirectory(prefix="speechkit-load-") as folder:
        local = os.path.join(folder, f"table.{file_format}")
        _download(path, url, local)
        yield LocalFile(local, file_format)


def _download(path: Any, url: str, local: str) -> None:
    try:
        path.fs.get_file(path.path, local)
    except FileNotFoundError:
        missing = True
    except Exception as error:
        raise StorageError(
            f"The file {url} can't be fetched: {type(error).__name__}",
            todo="Check the connection in its path, and that it may read the bucket",
            retry="fetches it again",
        ) from error
    else:
        missing = False
    if missing:
        raise _missing(url)


def _missing(url: str) -> StorageError:
    return StorageError(
        f"The file {url} is not there any more",
        todo="Run the transform again: it writes the same files from the archive",
        retry="ends in the same way",
        retry_can_help=False,
    )
