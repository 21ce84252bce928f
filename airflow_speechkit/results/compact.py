"""Larger files for query engines: of each day that is over one Parquet file for each table.

A day's parts are the files that transforms wrote, one for each operation. An operation counts once its part of
``recognitions`` is there: transforms put that in place last, and deletion removes it first. It doesn't count while a
part is missing that it names rows of: a transform wrote that while an older one was being deleted.
"""

from __future__ import annotations

import hashlib
import logging
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

from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.results.files import ROW_GROUP_ROWS, FileFormat, parquet_writer, rows_of
from airflow_speechkit.results.manifest import COMPACTED_STEM, stem
from airflow_speechkit.results.schema import RECOGNITIONS, TABLES, TableSchema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from airflow_speechkit.storage import Folder

log = logging.getLogger(__name__)

#: In the metadata of a compacted file of `recognitions`: which parts it was made of.
_PARTS_KEY = b"airflow_speechkit.parts"

#: A part without its `recognitions` that is so old was left by a deletion, or a transform, that was killed.
_LEFT_AFTER = timedelta(days=1)

_ROW_GROUP_BYTES = 64 << 20
_KEY = RECOGNITIONS.key[0]
#: Tables of which `recognitions` says how many rows there are.
_COUNTED = ("utterances", "words")
_MOST_NAMED = 10
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

    :param name: its file
    :param stem: its name in every table
    :param version: changes when it is written again
    :param written_at: UTC
    """

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
    if source.fs.protocol == target.fs.protocol and _nested(source.root, target.root):
        raise SettingsError(
            f"{source.url} and {target.url} are the same folder, or one is inside the other",
            hint="Use a separate folder for the larger files: a reader must not find rows twice",
        )
    last = through or now.astimezone(UTC).date() - timedelta(days=1)
    days = {match[1] for table in TABLES for name in source.folders(table.name) if (match := _DAY.fullmatch(name))}
    return (_compact_day(source, target, day, now, delete_parts) for day in sorted(days) if _date(day) <= last)


def _nested(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _date(day: str) -> date:
    try:
        return date.fromisoformat(day)
    except ValueError:
        raise SettingsError(f"There is no such day as in the folder day={day}", hint="Remove that folder") from None


def _compact_day(source: Folder, target: Folder, day: str, now: datetime, delete_parts: bool) -> CompactedDay:
    there = _parts(source, day)
    known = {part.stem for part in there[RECOGNITIONS.name]}
    parts = _of(known, there)
    rows, counted = None, known
    if known:
        with tempfile.TemporaryDirectory(prefix="airflow-speechkit-") as folder:
            rows, counted = _write_day(source, target, day, parts, Path(folder))
    parts = _of(counted, parts)
    removed = 0
    if delete_parts:
        old = [
            part
            for some in there.values()
            for part in some
            if part.stem not in known and now - part.written_at > _LEFT_AFTER
        ]
        removed = _remove(source, day, [part for some in parts.values() for part in some], old)
    return CompactedDay(_date(day), rows, removed)


def _of(stems: Collection[str], parts: dict[str, list[_Part]]) -> dict[str, list[_Part]]:
    return {table: [part for part in some if part.stem in stems] for table, some in parts.items()}


def _parts(source: Folder, day: str) -> dict[str, list[_Part]]:
    found: dict[str, list[_Part]] = {}
    for table in TABLES:
        found[table.name] = parts = []
        for name, version, written_at in source.versions(f"{table.name}/day={day}"):
            stem, _, ending = name.rpartition("/")[2].rpartition(".")
            if ending == FileFormat.PARQUET:
                parts.append(_Part(name, stem, version, written_at))
            elif ending in list(FileFormat):
                raise SettingsError(
                    f"{source.url_of(name)} isn't Parquet, the only format that can be compacted",
                    hint="Transform its operation again with `file_format='parquet'`",
                )
    return found


def _write_day(
    source: Folder, target: Folder, day: str, parts: dict[str, list[_Part]], folder: Path
) -> tuple[dict[str, int] | None, set[str]]:
    """Write a day's files unless they are made of the same parts.

    :return: their rows, and what the operations that count are called
    """
    versions = "\n".join(f"{part.name} {part.version}" for some in parts.values() for part in some)
    digest = hashlib.sha256(versions.encode()).hexdigest().encode()
    known = {part.stem for part in parts[RECOGNITIONS.name]}
    before = {table.name: _compacted(target, table, day, folder) for table in TABLES}
    last = before[RECOGNITIONS.name]
    if last is not None and (pq.read_schema(last).metadata or {}).get(_PARTS_KEY) == digest:
        return None, known
    replaced, incomplete = _replaced(source, parts)
    if incomplete:
        log.warning(
            "%s has only some of the files of %s recognitions, whose rows stay as they were: transform them again (%s)",
            source.url_of(f"*/day={day}"),
            f"{len(incomplete):,}",
            ", ".join(sorted(incomplete)[:_MOST_NAMED]),
        )
        # The next run checks it again.
        digest = b""
    parts = _of(known - incomplete, parts)
    rows = {}
    # `recognitions` comes last, with the digest: until it is there the day counts as not done.
    for table in reversed(TABLES):
        names = [part.name for part in parts[table.name]]
        path = folder / f"{table.name}.new"
        metadata = {**(table.arrow.metadata or {}), **({_PARTS_KEY: digest} if table is RECOGNITIONS else {})}
        batches = chain(_left_of(before[table.name], table, replaced), _rows(source, names, table))
        rows[table.name] = _write(path, batches, table, metadata)
        target.put(_place(table, day), path)
        path.unlink()
    return rows, known - incomplete


def _replaced(source: Folder, parts: dict[str, list[_Part]]) -> tuple[pa.Array, set[str]]:
    """Return the recognitions whose parts are all there, and what those are called that lack some."""
    there = {table: {part.stem for part in some} for table, some in parts.items()}
    names = [part.name for part in parts[RECOGNITIONS.name]]
    replaced: list[str] = []
    incomplete: set[str] = set()
    for batch in _rows(source, names, RECOGNITIONS):
        columns = (batch[name].to_pylist() for name in (_KEY, *_COUNTED))
        for recognition_id, *counts in zip(*columns, strict=True):
            called = stem(recognition_id)
            if all(called in there[table] for table, count in zip(_COUNTED, counts, strict=True) if count):
                replaced.append(recognition_id)
            else:
                incomplete.add(called)
    return pa.array(replaced, pa.string()), incomplete


def _place(table: TableSchema, day: str) -> str:
    return f"{table.name}/day={day}/{COMPACTED_STEM}.parquet"


def _compacted(target: Folder, table: TableSchema, day: str, folder: Path) -> str | None:
    try:
        return target.fetch(_place(table, day), str(folder / table.name))
    except FileNotFoundError:
        return None


def _left_of(path: str | None, table: TableSchema, replaced: pa.Array) -> Iterator[pa.RecordBatch]:
    """Give the rows of the file before, but for those of operations that have parts."""
    if path is None:
        return
    for batch in rows_of([path], lambda name, _: name, FileFormat.PARQUET, table.arrow):
        yield batch.filter(pc.invert(pc.is_in(batch[_KEY], replaced)))


def _rows(source: Folder, names: list[str], table: TableSchema) -> Iterator[pa.RecordBatch]:
    def fetch(name: str, copy: str) -> str:
        try:
            return source.fetch(name, copy)
        except FileNotFoundError:
            raise StorageError(
                f"{source.url_of(name)} was removed in the meantime", retry="lists the files again"
            ) from None

    return rows_of(names, fetch, FileFormat.PARQUET, table.arrow)


def _write(path: Path, batches: Iterable[pa.RecordBatch], table: TableSchema, metadata: dict[bytes, bytes]) -> int:
    # A file of an older version may lack what must not be empty now.
    schema = pa.schema([field.with_nullable(True) for field in table.arrow], metadata=metadata)
    rows = 0
    waiting: list[pa.RecordBatch] = []
    with parquet_writer(path, schema) as writer:
        for batch in batches:
            waiting.append(batch)
            rows += batch.num_rows
            full = sum(one.num_rows for one in waiting) >= ROW_GROUP_ROWS
            if full or sum(one.nbytes for one in waiting) >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting, schema), ROW_GROUP_ROWS)
                waiting = []
        writer.write_table(pa.Table.from_batches(waiting, schema), ROW_GROUP_ROWS)
    return rows


def _remove(source: Folder, day: str, done: list[_Part], old: list[_Part]) -> int:
    """Remove parts, `recognitions` first: a part without it doesn't count."""
    versions = {part.name: part.version for some in _parts(source, day).values() for part in some}
    stale = {part.stem for part in done if versions.get(part.name, part.version) != part.version}
    going = [part for part in (*done, *old) if part.stem not in stale and part.name in versions]
    for part in going:
        source.delete(part.name)
    for table in TABLES:
        source.prune(f"{table.name}/day={day}")
    return len(going)
