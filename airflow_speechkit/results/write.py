"""Tables to files: Parquet, CSV or JSON Lines, each file whole or not at all.

Everything is written on the local disk first and put in place when all of it is there: an exception inside an open
file of an object store would still commit the half that was written. ``recognitions`` goes last, so whoever finds an
operation there finds the rest of it too.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.results.channels import identical_channels
from airflow_speechkit.results.formats import FileFormat, TableFile
from airflow_speechkit.results.schema import TABLES, Tables, TableSchema

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from airflow_speechkit.folder import Folder

#: Rows in a row group of Parquet: some megabytes of words, as query engines like it.
ROW_GROUP_ROWS = 250_000

#: How many bytes of rows wait for their row group to fill, all files together.
BUFFER_BYTES = 64 << 20

#: The Hive partition column: the UTC date of ``created_at``.
DATE_COLUMN = "created_date"

#: What Hive calls the partition of rows that have no date.
NO_DATE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Unread:
    """An operation whose answer could not be read.

    :param operation_id: the operation
    :param reason: why not
    """

    operation_id: str
    reason: str


@dataclass(frozen=True)
class WrittenTable:
    """The files of one table.

    :param paths: where they are
    :param rows: how many rows they have together
    """

    paths: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What was written: paths and counts, small enough for an XCom.

    :param file_format: the files' format
    :param name: the batch, or the operation, that the files are named after
    :param tables: the files of each table
    :param operations: how many operations are in them
    :param identical_channels: how many of them say the same in all channels: mono that was stored as stereo
    :param unread: the operations whose answers could not be read, which are not in the files
    """

    file_format: FileFormat
    name: str
    tables: dict[str, WrittenTable]
    operations: int
    identical_channels: int = 0
    unread: tuple[Unread, ...] = field(default=())

    #: So many of the unread operations are named in the JSON; all of them are counted.
    NAMED = 100

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "format": self.file_format.value,
            "name": self.name,
            "tables": {name: {"paths": list(table.paths), "rows": table.rows} for name, table in self.tables.items()},
            "operations": self.operations,
            "identical_channels": self.identical_channels,
            "unread": {
                "count": len(self.unread),
                "operations": {one.operation_id: one.reason for one in self.unread[: self.NAMED]},
            },
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        """Rebuild what `to_json` gave; of the unread operations those that it names."""
        unread = data.get("unread", {}).get("operations", {})
        return cls(
            file_format=FileFormat(data["format"]),
            name=data["name"],
            tables={name: WrittenTable(tuple(table["paths"]), table["rows"]) for name, table in data["tables"].items()},
            operations=data["operations"],
            identical_channels=data.get("identical_channels", 0),
            unread=tuple(Unread(operation_id, reason) for operation_id, reason in unread.items()),
        )


def write_tables(
    source: Tables | Iterable[Tables],
    target: Folder,
    *,
    name: str,
    file_format: FileFormat | str = FileFormat.PARQUET,
    partition_by_date: bool = False,
    row_group_rows: int = ROW_GROUP_ROWS,
    buffer_bytes: int = BUFFER_BYTES,
) -> Manifest:
    """Write tables as files: ``TABLE/NAME.parquet``, or ``TABLE/created_date=2026-11-22/NAME.parquet``.

    A second run with the same name replaces exactly those files.

    :param source: the rows, all at once or piece by piece; an exception while they come leaves the target as it was
    :param target: where to
    :param name: what the files are named after; characters that paths don't like become ``_``
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param partition_by_date: a folder for each UTC date of ``created_at``, as Hive has it
    :param row_group_rows: rows in a row group of Parquet
    :param buffer_bytes: how much may wait in memory for its row group to fill
    :raises SettingsError: the format or a number can't be taken
    :raises StorageError: the target can't be written
    """
    pieces = [source] if isinstance(source, Tables) else source
    with Writing(
        target,
        name=name,
        file_format=file_format,
        partition_by_date=partition_by_date,
        row_group_rows=row_group_rows,
        buffer_bytes=buffer_bytes,
    ) as writing:
        for piece in pieces:
            writing.add(piece)
        return writing.finish()


class Writing:
    """The writing of one batch: pieces are added, and at the end all files are put in place.

    The arguments are those of `write_tables`.
    """

    def __init__(
        self,
        target: Folder,
        *,
        name: str,
        file_format: FileFormat | str,
        partition_by_date: bool,
        row_group_rows: int,
        buffer_bytes: int,
    ) -> None:
        try:
            self._format = FileFormat(file_format)
        except ValueError:
            formats = ", ".join(known.value for known in FileFormat)
            raise SettingsError(f"`file_format` is {file_format!r}; it can be {formats}") from None
        if row_group_rows < 1 or buffer_bytes < 1:
            raise SettingsError("`row_group_rows` and `buffer_bytes` count from 1")
        self._target = target
        self._name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
        self._by_date = partition_by_date
        self._row_group_rows = row_group_rows
        self._buffer_bytes = buffer_bytes
        self._files: dict[tuple[str, str], TableFile] = {}
        self._operations = 0
        self._identical_channels = 0

    def __enter__(self) -> Writing:
        self._folder = tempfile.TemporaryDirectory(prefix="airflow-speechkit-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.abandon()
        self._folder.cleanup()

    def add(self, tables: Tables) -> None:
        """Add the rows of some operations, each of which comes whole."""
        self._operations += tables.recognitions.num_rows
        self._identical_channels += len(identical_channels(tables.utterances))
        for date, part in _by_date(tables) if self._by_date else [("", tables)]:
            for schema, rows in part.items():
                self._file(schema, date).add(rows)
        if sum(file.buffered_bytes for file in self._files.values()) > self._buffer_bytes:
            for file in self._files.values():
                file.flush()

    def finish(self) -> Manifest:
        """Put all files in place.

        :raises StorageError: that failed; each file that is there is a whole one, the old or the new
        """
        if not self._files and not self._by_date:
            self.add(Tables.empty())
        written = {schema.name: WrittenTable((), 0) for schema in TABLES}
        for file in self._files.values():
            file.close()
        for (table, name), file in sorted(
            self._files.items(), key=lambda item: (item[0][0] == "recognitions", item[0])
        ):
            self._target.put(name, file.path)
            before = written[table]
            written[table] = WrittenTable((*before.paths, self._target.url_of(name)), before.rows + file.rows)
        return Manifest(self._format, self._name, written, self._operations, self._identical_channels)

    def _file(self, schema: TableSchema, date: str) -> TableFile:
        folder = f"{schema.name}/{DATE_COLUMN}={date}" if date else schema.name
        name = f"{folder}/{self._name}.{self._format.value}"
        if (schema.name, name) not in self._files:
            path = Path(self._folder.name) / f"{len(self._files)}.{self._format.value}"
            self._files[schema.name, name] = TableFile(path, schema.arrow, self._format, self._row_group_rows)
        return self._files[schema.name, name]


def _by_date(tables: Tables) -> Iterable[tuple[str, Tables]]:
    """Divide rows by the UTC date on which their operation was created."""
    dates = pc.fill_null(pc.strftime(tables.recognitions["created_at"], "%Y-%m-%d"), NO_DATE)
    distinct = sorted(dates.unique().to_pylist())
    if len(distinct) == 1:
        yield distinct[0], tables
        return
    for date in distinct:
        operations = tables.recognitions["operation_id"].filter(pc.equal(dates, date)).combine_chunks()
        yield (
            date,
            Tables(
                **{
                    schema.name: rows.filter(pc.is_in(rows["operation_id"], pa.array(operations)))
                    for schema, rows in tables.items()
                }
            ),
        )
