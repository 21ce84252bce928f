"""Tables to files: Parquet, CSV or JSON Lines, each file whole or not at all.

Everything is written on the local disk first and put in place when all of it is there: an exception inside an open
file of an object store would still commit the half that was written. ``recognitions`` goes last, so whoever finds an
operation there finds the rest of it too. What an earlier run left under the same name goes after that: a process that
is killed in between leaves rows twice, never none.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.results.channels import identical_channels
from airflow_speechkit.results.formats import FileFormat, Spool, TableFile
from airflow_speechkit.results.schema import TABLES, Tables, TableSchema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from types import TracebackType

    from airflow_speechkit.folder import Folder

log = logging.getLogger(__name__)

#: Rows in a row group of Parquet: some megabytes of words, as query engines like it.
ROW_GROUP_ROWS = 250_000

#: How many bytes of rows wait in memory, all files together.
BUFFER_BYTES = 64 << 20

#: The Hive partition column: the UTC date of ``created_at``.
DATE_COLUMN = "created_date"

#: Where rows go whose operation has no time at all. A date, since one that is none turns DuckDB's column into text,
#: and beside Hive's own ``__HIVE_DEFAULT_PARTITION__`` pandas reads nothing.
NO_DATE = "1970-01-01"


@dataclass(frozen=True)
class Unread:
    """An operation whose answer could not be read.

    :param operation_id: the operation, or the file that was to hold its answer
    :param reason: why not
    :param retry_can_help: whether it may be read the next time
    """

    operation_id: str
    reason: str
    retry_can_help: bool = False


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


def name_after(operation_ids: Collection[str]) -> str:
    """Name files after what is in them: the same operations, in whatever order, have the same name."""
    if len(operation_ids) == 1:
        return next(iter(operation_ids))
    return f"batch-{hashlib.sha256(chr(10).join(sorted(operation_ids)).encode()).hexdigest()[:16]}"


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

    A second run with the same name replaces exactly those files: what the first one left in other formats and under
    other dates is removed too. Where nothing is left over, nothing is removed, and the right to do so isn't needed.

    :param source: the rows, all at once or piece by piece; an exception while they come leaves the target as it was
    :param target: where to
    :param name: what the files are named after; characters that paths don't like become ``_``
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param partition_by_date: a folder for each UTC date of ``created_at``, as Hive has it; ``finished_at`` stands in
        for one that is missing, and rows without either go to ``created_date=1970-01-01``
    :param row_group_rows: rows in a row group of Parquet
    :param buffer_bytes: how much may wait in memory
    :raises SettingsError: the format or a number can't be taken
    :raises StorageError: the target can't be written, or what an earlier run left can't be removed
    """
    pieces = [source] if isinstance(source, Tables) else source
    with Writing(
        target,
        file_format=file_format,
        partition_by_date=partition_by_date,
        row_group_rows=row_group_rows,
        buffer_bytes=buffer_bytes,
    ) as writing:
        for piece in pieces:
            writing.add(piece)
        return writing.finish(name)


class Writing:
    """The writing of one batch: pieces are added, and at the end all files are put in place.

    The arguments are those of `write_tables`.
    """

    def __init__(
        self,
        target: Folder,
        *,
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
        self._by_date = partition_by_date
        self._row_group_rows = row_group_rows
        self._buffer_bytes = buffer_bytes
        #: The files by their table and date; without partitions the date is empty.
        self._files: dict[tuple[str, str], TableFile] = {}
        self._waiting: list[Tables] = []
        self._waiting_bytes = 0
        self._spools: dict[str, Spool] = {}
        self._dates: set[str] = set()
        #: How many operations have rows so far.
        self.operations = 0
        self._identical_channels = 0

    def __enter__(self) -> Writing:
        self._folder = tempfile.TemporaryDirectory(prefix="airflow-speechkit-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.abandon()
        for spool in self._spools.values():
            spool.discard()
        self._folder.cleanup()

    def add(self, tables: Tables) -> None:
        """Add the rows of some operations, each of which comes whole."""
        self.operations += tables.recognitions.num_rows
        self._identical_channels += len(identical_channels(tables.utterances))
        if self._by_date:
            self._waiting.append(tables)
            self._waiting_bytes += tables.nbytes
            if self._waiting_bytes > self._buffer_bytes:
                self._spill()
            return
        for schema, rows in tables.items():
            self._file(schema, "").add(rows)
        if sum(file.buffered_bytes for file in self._files.values()) > self._buffer_bytes:
            for file in self._files.values():
                file.flush()

    def finish(self, name: str, *, anew: bool = True) -> Manifest:
        """Put all files in place, and remove what an earlier run left under the same name.

        :param name: what the files are named after
        :param anew: whether the name stands for the same operations each time, so that what is left of an earlier run
            in another format or under another date is removed
        :raises StorageError: that failed; each file that is there is a whole one, the old or the new
        """
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
        if self._by_date:
            self._write_dates()
        elif not self._files:
            self.add(Tables.empty())
        written = {schema.name: WrittenTable((), 0) for schema in TABLES}
        for file in self._files.values():
            file.close()
        placed = set()
        for (table, date), file in sorted(
            self._files.items(), key=lambda item: (item[0][0] == "recognitions", item[0])
        ):
            folder = f"{table}/{DATE_COLUMN}={date}" if date else table
            place = f"{folder}/{name}.{self._format.value}"
            self._target.put(place, file.path)
            placed.add(place)
            before = written[table]
            written[table] = WrittenTable((*before.paths, self._target.url_of(place)), before.rows + file.rows)
        if anew:
            _remove(self._target, [place for place in _named(self._target, name) if place not in placed])
        return Manifest(self._format, name, written, self.operations, self._identical_channels)

    def _file(self, schema: TableSchema, date: str) -> TableFile:
        if (schema.name, date) not in self._files:
            path = Path(self._folder.name) / f"{len(self._files)}.{self._format.value}"
            self._files[schema.name, date] = TableFile(path, schema.arrow, self._format, self._row_group_rows)
        return self._files[schema.name, date]

    def _spill(self) -> None:
        """Have what waits wait on the disk: a file for each date would take more descriptors than a process has."""
        tables = Tables.concat(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        dates, of_operation = _dates(tables.recognitions)
        self._dates.update(dates)
        for schema, rows in tables.items():
            if schema.name not in self._spools:
                self._spools[schema.name] = Spool(Path(self._folder.name) / f"{schema.name}.waiting", schema.arrow)
            for date, part in zip(dates, _divided(rows, tables.recognitions, of_operation, len(dates)), strict=True):
                self._spools[schema.name].add(date, part)

    def _write_dates(self) -> None:
        """Write the files of each date, one after the other."""
        if self._waiting:
            self._spill()
        for date in sorted(self._dates):
            for schema in TABLES:
                file = self._file(schema, date)
                for rows in self._spools[schema.name].rows(date):
                    file.add(rows)
                    if file.buffered_bytes > self._buffer_bytes:
                        file.flush()
                file.close()
        for spool in self._spools.values():
            spool.discard()


def _dates(recognitions: pa.Table) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return the UTC dates on which operations were created, and of each operation the place of its date there."""
    moments = pc.coalesce(recognitions["created_at"], recognitions["finished_at"])
    dates = pc.fill_null(pc.strftime(moments, "%Y-%m-%d"), NO_DATE)
    distinct = sorted(dates.unique().to_pylist())
    return distinct, pc.index_in(dates, pa.array(distinct, pa.string())).to_numpy()


def _divided(
    rows: pa.Table, recognitions: pa.Table, of_operation: np.ndarray[Any, Any], parts: int
) -> Iterator[pa.Table]:
    """Divide a table's rows by the part that their operation belongs to, each part's in the order they have."""
    if parts == 1:
        yield rows
        return
    operations = pc.index_in(rows["recognition_id"], recognitions["recognition_id"].combine_chunks()).to_numpy()
    of_row = of_operation[operations]
    order = np.argsort(of_row, kind="stable")
    ends = np.cumsum(np.bincount(of_row, minlength=parts)).tolist()
    in_order = rows.take(pa.array(order))
    for begin, end in zip([0, *ends], ends, strict=False):
        yield in_order.slice(begin, end - begin)


def _named(target: Folder, name: str) -> list[str]:
    """Find the files of ours that bear a name, in whatever format and under whatever date.

    :raises StorageError: the target can't be listed
    """
    endings = "|".join(file_format.value for file_format in FileFormat)
    ours = re.compile(rf"({DATE_COLUMN}=[^/]*/)?{re.escape(name)}\.({endings})")
    found: list[str] = []
    # Whoever finds an operation in `recognitions` finds the rest of it too, also while the rest is being removed.
    for table in ("recognitions", *(schema.name for schema in TABLES if schema.name != "recognitions")):
        try:
            listed = list(_listed(target, table, name))
        except StorageError as error:
            if error.retry_can_help:
                raise
            # Whoever may only write: the files are in place, and there seldom are any others.
            log.warning("What an earlier run may have left under the name %s isn't looked for: %s", name, error.what)
            return []
        found += [place for place in listed if ours.fullmatch(place.removeprefix(f"{table}/"))]
    return found


def _listed(target: Folder, table: str, name: str) -> Iterable[str]:
    """Give the files of a table that may bear a name, and others."""
    if "s3" in target.fs.protocol:
        # A bucket lists only what begins like that: the table's folder can hold a file for each of a million
        # operations. Where that fails, the plain listing says how.
        with contextlib.suppress(Exception):
            beginnings = (f"{table}/{name}.", f"{table}/{DATE_COLUMN}=")
            paths = [path for one in beginnings for path in target.fs.find(target.root, prefix=one)]
            return [path[len(target.root) + 1 :] for path in paths]
    return target.names(table)


def _remove(target: Folder, places: list[str]) -> None:
    """Remove what an earlier run left: its rows would be there twice.

    :raises StorageError: that failed
    """
    for number, place in enumerate(places):
        try:
            target.delete(place)
        except StorageError as error:
            raise StorageError(
                f"The new files are in place, but {len(places) - number} of an earlier run with the same name are "
                f"left beside them, so that their rows are there twice. {error.what}",
                todo="Remove it, or give the account the right to delete there (in Object Storage the role "
                "`storage.editor` on the bucket)",
                retry="writes the same files again, and removes what is left",
                retry_can_help=error.retry_can_help,
            ) from error
