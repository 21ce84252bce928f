"""Tables to files: one for each operation and table, ``TABLE/day=2026-11-22/OPERATION.parquet``.

An operation's rows stand once below a target, however and how often it was listed: whoever writes it again replaces
its files. Everything is on the local disk first, and is put in place when all of it is there. Of each operation
``recognitions`` goes last, so whoever finds an operation there finds the rest of it too.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow.compute as pc

from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.results.files import FileFormat, write_file
from airflow_speechkit.results.manifest import Manifest, WrittenTable, stem
from airflow_speechkit.results.schema import RECOGNITIONS, TABLES, Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    import pyarrow as pa

    from airflow_speechkit.results.manifest import Unread
    from airflow_speechkit.storage import Folder

log = logging.getLogger(__name__)

#: Where rows go whose operation has no time at all. A date, since one that is none turns DuckDB's column into text,
#: and beside Hive's own ``__HIVE_DEFAULT_PARTITION__`` pandas reads nothing.
NO_DATE = "1970-01-01"

#: Files that are put in place at the same time.
_AT_ONCE = 16

_KEY = RECOGNITIONS.key[0]
_OURS = re.compile(rf"({'|'.join(table.name for table in TABLES)})/day=[^/]+/(?P<stem>[^/]+)\.({'|'.join(FileFormat)})")

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Finished:
    """A file that is to be put in place.

    :param table: its table
    :param place: where it goes, below the target
    :param path: where it is
    :param rows: how many rows it has
    """

    table: str
    place: str
    path: Path
    rows: int


class Writing:
    """The writing of some operations: pieces are added, and at the end all files are put in place.

    :param target: where to
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :raises SettingsError: there is no such format
    """

    def __init__(self, target: Folder, file_format: FileFormat | str) -> None:
        try:
            self._format = FileFormat(file_format)
        except ValueError:
            formats = ", ".join(known.value for known in FileFormat)
            raise SettingsError(f"`file_format` is {file_format!r}; it can be {formats}") from None
        self._target = target
        self._files: list[_Finished] = []
        self._stems: set[str] = set()
        self._days: set[str] = set()
        #: How many operations have rows so far.
        self.operations = 0
        self._identical_channels = 0

    def __enter__(self) -> Writing:
        self._folder = tempfile.TemporaryDirectory(prefix="airflow-speechkit-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def add(self, tables: Tables) -> None:
        """Add the rows of some operations, each of which comes whole, its rows of a table one after the other."""
        self.operations += tables.recognitions.num_rows
        self._identical_channels += len(_identical_channels(tables.utterances))
        days = dict(zip(tables.recognitions[_KEY].to_pylist(), _days(tables.recognitions), strict=True))
        self._days.update(days.values())
        self._stems.update(map(stem, days))
        for schema, rows in tables.items():
            begin = 0
            for operation_id, end in _ends(rows[_KEY]):
                place = f"{schema.name}/day={days[operation_id]}/{stem(operation_id)}.{self._format.value}"
                path = Path(self._folder.name) / f"{len(self._files)}"
                write_file(path, rows.slice(begin, end - begin), self._format)
                self._files.append(_Finished(schema.name, place, path, end - begin))
                begin = end

    def finish(self, name: str, unread: Iterable[Unread] = ()) -> Manifest:
        """Put all files in place, remove what else there is of these operations, and write the manifest.

        :param name: the manifest's
        :param unread: operations that were left out
        :raises StorageError: that failed; each file that is there is a whole one, the old or the new
        """
        for last in (False, True):
            _each(self._put, [file for file in self._files if (file.table == RECOGNITIONS.name) is last])
        self._remove_others()
        written = {}
        for table in TABLES:
            files = [file for file in self._files if file.table == table.name]
            written[table.name] = WrittenTable(tuple(file.place for file in files), sum(file.rows for file in files))
        manifest = Manifest(
            target=self._target.url,
            file_format=self._format,
            name=name,
            tables=written,
            operations=self.operations,
            identical_channels=self._identical_channels,
            unread=tuple(unread),
        )
        self._target.replace(manifest.place, json.dumps(manifest.to_json()).encode())
        return manifest

    def _put(self, file: _Finished) -> None:
        self._target.put(file.place, file.path)

    def _remove_others(self) -> None:
        """Remove files of these operations that are in another format or under another day, or have no rows now.

        An operation's day is that of the service's own time. Only where an answer doesn't tell it the day may have
        been another: it is looked for under `NO_DATE`, and whatever has no day now, under all days.

        :raises StorageError: the target can't be listed, or a file not be removed
        """
        placed = {file.place for file in self._files}

        def others(folder: str) -> list[str]:
            matches = (_OURS.fullmatch(name) for name in self._target.names(folder))
            return [one[0] for one in matches if one and one["stem"] in self._stems and one[0] not in placed]

        days = [""] if NO_DATE in self._days else [f"/day={day}" for day in sorted({*self._days, NO_DATE})]
        try:
            found = _each(others, [f"{table.name}{day}" for table in TABLES for day in days])
        except StorageError as error:
            if error.retry_can_help:
                raise
            # The account may only write. The files are in place, and there seldom are any others.
            log.warning("Other files of these operations are kept, if there are any: %s", error.what)
            return
        places = [place for places in found for place in places]
        try:
            # As whoever finds an operation in `recognitions` finds the rest of it; `TABLES` begins with that.
            for place in places:
                self._target.delete(place)
        except StorageError as error:
            raise StorageError(
                f"The new files are in place, but of the same operations others are left beside them ({len(places)}, "
                f"some of them removed by now), so that their rows are there twice. {error.what}",
                hint="Remove it, or give the account the right to delete there (in Object Storage the role "
                "`storage.editor` on the bucket)",
                retry="writes the same files again, and removes what is left",
                retry_can_help=error.retry_can_help,
            ) from error


def _identical_channels(utterances: pa.Table) -> list[str]:
    """Return the recognitions whose channels have the same texts: mono that was stored as stereo."""
    said: dict[str, dict[str, list[str]]] = {}
    columns = (utterances[name].to_pylist() for name in ("recognition_id", "channel", "alternative", "text"))
    for recognition_id, channel, alternative, text in zip(*columns, strict=True):
        if alternative == 0 and text:
            said.setdefault(recognition_id, {}).setdefault(channel, []).append(text)
    return [
        recognition_id
        for recognition_id, channels in said.items()
        if len(channels) > 1 and all(texts == next(iter(channels.values())) for texts in channels.values())
    ]


def _days(recognitions: pa.Table) -> list[str]:
    """Return the UTC date on which each operation was created."""
    moments = pc.coalesce(recognitions["created_at"], recognitions["finished_at"])
    days: list[str] = pc.fill_null(pc.strftime(moments, "%Y-%m-%d"), NO_DATE).to_pylist()
    return days


def _ends(ids: pa.ChunkedArray) -> Iterable[tuple[str, int]]:
    """Give each operation and where its rows end."""
    runs = pc.run_end_encode(ids.combine_chunks())
    return zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True)


def _each(do: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Do something with each of many items side by side; the first error stops it."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="files") as pool:
        return list(pool.map(do, items))
