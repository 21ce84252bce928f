"""Tables to files: one for each operation and table, ``TABLE/day=2026-11-22/OPERATION.parquet``.

An operation has its rows once below a target: writing it again replaces its files. All files are written to the local
disk first, and put in place when they are complete. ``recognitions`` is put in place last: if an operation is there, so
are its other tables.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.results.files import AT_ONCE, FileFormat, write_file
from airflow_speechkit.results.manifest import Manifest, WrittenTable, stem
from airflow_speechkit.results.schema import RECOGNITIONS, TABLES, Tables

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

    from airflow_speechkit.results.manifest import Unread
    from airflow_speechkit.storage import Folder

#: Where rows go whose operation has no time at all. A date, since one that is none turns DuckDB's column into text,
#: and beside Hive's own ``__HIVE_DEFAULT_PARTITION__`` pandas reads nothing.
NO_DATE = "1970-01-01"

_KEY = RECOGNITIONS.key[0]
_OURS = re.compile(rf"({'|'.join(table.name for table in TABLES)})/day=[^/]+/(?P<stem>[^/]+)\.({'|'.join(FileFormat)})")


class Writing:
    """The writing of some operations: pieces are added, and at the end all files are put in place.

    :param target: where to
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param folder: an empty folder on this machine, for the files until they are put in place
    :raises SettingsError: there is no such format
    """

    def __init__(self, target: Folder, file_format: FileFormat | str, folder: Path) -> None:
        if file_format not in list(FileFormat):
            raise SettingsError(f"`file_format` is {file_format!r}; it can be {', '.join(FileFormat)}")
        self._format = FileFormat(file_format)
        self._target = target
        self._folder = folder
        self._places: dict[str, list[str]] = {table.name: [] for table in TABLES}
        self._rows = dict.fromkeys(self._places, 0)
        self._stems: set[str] = set()
        self._days: set[str] = set()
        #: How many operations have rows so far.
        self.operations = 0
        self._identical_channels = 0

    def add(self, tables: Tables) -> None:
        """Add the rows of some operations, each of which comes whole, its rows of a table one after the other."""
        self.operations += tables.recognitions.num_rows
        self._identical_channels += _identical_channels(tables.utterances)
        days = dict(zip(tables.recognitions[_KEY].to_pylist(), _days(tables.recognitions), strict=True))
        self._days.update(days.values())
        self._stems.update(map(stem, days))
        for schema, rows in tables.items():
            self._rows[schema.name] += rows.num_rows
            begin = 0
            for operation_id, end in _ends(rows[_KEY]):
                place = f"{schema.name}/day={days[operation_id]}/{stem(operation_id)}.{self._format.value}"
                path = self._folder / place
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, rows.slice(begin, end - begin), self._format)
                self._places[schema.name].append(place)
                begin = end

    def finish(self, name: str, unread: Iterable[Unread] = ()) -> Manifest:
        """Put all files in place, remove what else there is of these operations, and write the manifest.

        :param name: the manifest's
        :param unread: operations that were left out
        :raises StorageError: that failed; each file that is there is a whole one, the old or the new
        """
        first = [place for table in TABLES if table is not RECOGNITIONS for place in self._places[table.name]]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="files") as pool:
            for places in (first, self._places[RECOGNITIONS.name]):
                list(pool.map(self._target.replace, places, [self._folder / place for place in places]))
            self._remove_others(pool)
        manifest = Manifest(
            target=self._target.url,
            file_format=self._format,
            name=name,
            tables={table: WrittenTable(tuple(places), self._rows[table]) for table, places in self._places.items()},
            operations=self.operations,
            identical_channels=self._identical_channels,
            unread=tuple(unread),
        )
        self._target.replace(manifest.place, json.dumps(manifest.to_json()).encode())
        return manifest

    def _remove_others(self, pool: ThreadPoolExecutor) -> None:
        """Remove files of these operations that are in another format or under another day, or have no rows now.

        An operation's day is that of the service's own time. Only if an answer doesn't have it the day may have
        been another: it is looked for under `NO_DATE`, and whatever has no day now, under all days.

        :raises StorageError: the target can't be listed, or a file not be removed
        """
        placed = {place for places in self._places.values() for place in places}

        def others(folder: str) -> list[str]:
            matches = (_OURS.fullmatch(name) for name in self._target.names(folder))
            return [one[0] for one in matches if one and one["stem"] in self._stems and one[0] not in placed]

        days = [""] if NO_DATE in self._days else [f"/day={day}" for day in sorted({*self._days, NO_DATE})]
        # `recognitions` first, since what is there has to be complete; `TABLES` begins with it.
        for found in list(pool.map(others, [f"{table.name}{day}" for table in TABLES for day in days])):
            for place in found:
                try:
                    self._target.delete(place)
                except StorageError as error:
                    raise StorageError(
                        f"The new files are in place, and so is an older one with rows of the same operation, which "
                        f"readers see twice. {error.what}",
                        hint="Remove it, or give the account the right to delete there (in Object Storage the role "
                        "`storage.editor` on the bucket)",
                        retry="writes the same files again, and removes what is left",
                        retry_can_help=error.retry_can_help,
                    ) from error


def _identical_channels(utterances: pa.Table) -> int:
    """Count the recognitions whose channels have the same texts: mono that was stored as stereo."""
    channels: dict[str, dict[str, list[str]]] = {}
    columns = (utterances[name].to_pylist() for name in (_KEY, "channel", "alternative", "text"))
    for recognition_id, channel, alternative, text in zip(*columns, strict=True):
        if alternative == 0 and text:
            channels.setdefault(recognition_id, {}).setdefault(channel, []).append(text)
    return sum(len(texts) > 1 and len(set(map(tuple, texts.values()))) == 1 for texts in channels.values())


def _days(recognitions: pa.Table) -> list[str]:
    """Return the UTC date on which each operation was created."""
    moments = pc.coalesce(recognitions["created_at"], recognitions["finished_at"])
    days: list[str] = pc.fill_null(pc.strftime(moments, "%Y-%m-%d"), NO_DATE).to_pylist()
    return days


def _ends(ids: pa.ChunkedArray) -> Iterable[tuple[str, int]]:
    """Give each operation and where its rows end."""
    runs = pc.run_end_encode(ids.combine_chunks())
    return zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True)
