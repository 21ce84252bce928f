"""Larger files for query engines: of each day that is over one Parquet file for each table.

A day's parts are the files that transforms wrote, one for each operation. An operation counts once its part of
``recognitions`` is there: transforms put that in place last, and deletion removes it first.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from more_itertools import constrained_batches

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.results.files import ROW_GROUP_ROWS, FileFormat, parquet_writer, rows_of
from airflow_speechkit.results.manifest import COMPACTED_STEM, stem
from airflow_speechkit.results.schema import RECOGNITIONS, TABLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.storage import Folder

#: In the metadata of a compacted file of `recognitions`: which parts it was made of.
_PARTS_KEY = b"airflow_speechkit.parts"

#: A part without its `recognitions` that is so old was left by a deletion, or a transform, that was killed.
_LEFT_AFTER = timedelta(days=1)

_ROW_GROUP_BYTES = 64 << 20
_KEY = RECOGNITIONS.key[0]
_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class CompactedDay:
    """The result for one day.

    :param day: the day
    :param rows: number of rows of its files, by table; None if they were up to date
    :param removed: how many parts were removed
    """

    day: date
    rows: dict[str, int] | None
    removed: int


@dataclass(frozen=True)
class _Part:
    """A part.

    :param table: the table's name
    :param name: its file
    :param stem: its name in every table
    :param version: changes when it is written again
    :param written_at: UTC
    """

    table: str
    name: str
    stem: str
    version: str
    written_at: datetime


def compact(
    source: Folder, target: Folder, *, now: datetime, through: date | None = None, delete_parts: bool = False
) -> Iterator[CompactedDay]:
    """Write a day's rows into one file for each table, ``TABLE/day=2026-11-22/part-0.parquet``, day after day.

    A file has the rows of the day's parts, and those of the file before it whose operations have no part any more.
    So it is correct also after parts were removed and an operation was transformed again. Each file is replaced as a
    whole, `recognitions` last; the next run repairs what a killed run left. A day whose parts are unchanged is skipped.

    :param source: where transforms write
    :param target: another folder: readers take one or the other of a day, never both
    :param now: UTC; without `through` the days before this one's are over
    :param through: the last day
    :param delete_parts: remove a day's parts once its files are in place, but for those that were written since
    :return: each day that has parts, as it is done
    :raises SettingsError: one folder is inside the other, or a part isn't Parquet
    :raises StorageError: a file can't be read, written or removed
    """
    roots = sorted(f"{folder.root}/" for folder in (source, target))
    if source.fs.protocol == target.fs.protocol and roots[1].startswith(roots[0]):
        raise SettingsError(
            f"{source.url} and {target.url} are the same folder, or one is inside the other",
            hint="Use a separate folder for the larger files: a reader must not find rows twice",
        )
    last = through or now.astimezone(UTC).date() - timedelta(days=1)
    names = {match[1] for table in TABLES for name in source.folders(table.name) if (match := _DAY.fullmatch(name))}
    try:
        days = sorted(map(date.fromisoformat, names))
    except ValueError as error:
        raise SettingsError(f"{source.url} has a folder of an impossible day: {error}", hint="Remove it") from None
    return (_compact_day(source, target, day, now, delete_parts) for day in days if day <= last)


def _compact_day(source: Folder, target: Folder, of: date, now: datetime, delete_parts: bool) -> CompactedDay:
    day = of.isoformat()
    parts = _parts(source, day)
    stems = {part.stem for part in parts if part.table == RECOGNITIONS.name}
    rows = _write_day(source, target, day, [part for part in parts if part.stem in stems], stems) if stems else None
    removed = 0
    if delete_parts:
        there = set(_parts(source, day))
        written_since = {part.stem for part in there.difference(parts)}
        # `recognitions` goes first: a part without it doesn't count.
        for part in parts:
            is_done = part.stem in stems or now - part.written_at > _LEFT_AFTER
            if is_done and part in there and part.stem not in written_since:
                source.delete(part.name)
                removed += 1
        for table in TABLES:
            source.prune(f"{table.name}/day={day}")
    return CompactedDay(of, rows, removed)


def _parts(source: Folder, day: str) -> list[_Part]:
    """Return a day's parts, those of `recognitions` first."""
    parts = []
    for table in TABLES:
        for name, version, written_at in source.versions(f"{table.name}/day={day}"):
            path = Path(name)
            if path.suffix == f".{FileFormat.PARQUET}":
                parts.append(_Part(table.name, name, path.stem, version, written_at))
            elif path.suffix[1:] in list(FileFormat):
                raise SettingsError(
                    f"{source.url_of(name)} isn't Parquet, the only format that can be compacted",
                    hint="Transform its operation again with `file_format='parquet'`",
                )
    return parts


def _write_day(source: Folder, target: Folder, day: str, parts: list[_Part], stems: set[str]) -> dict[str, int] | None:
    """Write a day's files, and return their rows; None if they are made of the same parts already."""
    digest = hashlib.sha256("\n".join(f"{part.name} {part.version}" for part in parts).encode()).hexdigest().encode()
    rows = {}
    with tempfile.TemporaryDirectory(prefix="airflow-speechkit-") as folder:
        if _made_of(target, day, f"{folder}/before") == digest:
            return None
        # `recognitions` comes last, with the digest: until it is there the day counts as not done.
        for table in reversed(TABLES):
            metadata = {**(table.arrow.metadata or {}), **({_PARTS_KEY: digest} if table is RECOGNITIONS else {})}
            # A file of an older version may lack what must not be empty now.
            schema = pa.schema([field.with_nullable(True) for field in table.arrow], metadata=metadata)
            names = [part.name for part in parts if part.table == table.name]
            path, place = Path(folder, table.name), _place(table, day)
            new = rows_of(source, names, FileFormat.PARQUET, table.arrow)
            rows[table.name] = _write(path, chain(_other_rows(target, place, table, stems), new), schema)
            target.replace(place, path)
    return rows


def _place(table: TableSchema, day: str) -> str:
    return f"{table.name}/day={day}/{COMPACTED_STEM}.parquet"


def _made_of(target: Folder, day: str, copy: str) -> bytes | None:
    """Return the digest of the parts that a day's files were made of."""
    try:
        path = target.fetch(_place(RECOGNITIONS, day), copy)
    except FileNotFoundError:
        return None
    return (pq.read_schema(path).metadata or {}).get(_PARTS_KEY)


def _other_rows(target: Folder, place: str, table: TableSchema, stems: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Give the rows of the file that is there, but for those of operations that have parts."""
    if not target.exists(place):
        return
    for batch in rows_of(target, [place], FileFormat.PARQUET, table.arrow):
        others = [one for one in pc.unique(batch[_KEY]).to_pylist() if stem(one) not in stems]
        yield batch.filter(pc.is_in(batch[_KEY], pa.array(others, pa.string())))


def _write(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write a Parquet file, and return its rows."""
    rows = 0
    with parquet_writer(path, schema) as writer:
        for some in constrained_batches(batches, _ROW_GROUP_BYTES, get_len=lambda one: one.nbytes, strict=False):
            writer.write_table(pa.Table.from_batches(some, schema), ROW_GROUP_ROWS)
            rows += sum(batch.num_rows for batch in some)
    return rows
