"""Which run of a task was handed which operation: so that a later one can leave it out.

Beside what `archive.layout` describes, an archive has ::

    handed_on/<task>/<operation id>/<run>.json    a run of a DAG's task was handed the operation (exclusive create)

The task and the run stand in the file's name as hashes, which are safe in any path, and in the file as they are. One
listing says whether an operation was handed on before, and to whom. A run that is cleared or tried again finds its own
file there and gets the operation again, whoever else was handed it since.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import checked_operation_id
from airflow_speechkit.archive.records import pack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from airflow_speechkit.archive.store import Archive

#: A bucket answers each request in its own good time.
_SIDE_BY_SIDE = 16

#: 128 bits tell any two names apart.
_DIGITS = 32


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A run of a task, to which operations are handed. All its tries are one, and so are all its map indexes.

    :param dag_id: the DAG
    :param task_id: the task
    :param run_id: the DAG run
    """

    dag_id: str
    task_id: str
    run_id: str

    def folder(self, operation_id: str) -> str:
        """Return the folder in which stands who of this task's runs was handed an operation."""
        return f"handed_on/{_hash(self.dag_id, self.task_id)}/{checked_operation_id(operation_id)}"

    @property
    def file(self) -> str:
        """What the file of this run is called, in each of those folders."""
        return f"{_hash(self.run_id)}.json"

    def is_old(self, files: Collection[str]) -> bool:
        """Tell whether an operation was handed to another run, and not to this one.

        :param files: the names of the files in its folder
        """
        return bool(files) and self.file not in files


def old_ones(archive: Archive, receiver: Receiver, operation_ids: Sequence[str]) -> set[str]:
    """Return those operations that other runs of the task were handed, and this one was not.

    :raises ArchiveError: the archive can't be read
    """

    def is_old(operation_id: str) -> bool:
        names = archive.folder.names(receiver.folder(operation_id))
        return receiver.is_old({name.rpartition("/")[2] for name in names})

    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="speechkit-handed-on") as pool:
        return {one for one, old in zip(operation_ids, pool.map(is_old, operation_ids), strict=True) if old}


def put_on_record(archive: Archive, receiver: Receiver, operation_ids: Sequence[str], now: datetime) -> None:
    """Put on record that a run was handed operations. Again, and it changes nothing.

    A process that is killed in the middle of it leaves some out: its retry is handed them all the same, and puts them
    on record then.

    :param now: UTC
    :raises ArchiveError: the archive can't be written
    """
    about = {"dag_id": receiver.dag_id, "task_id": receiver.task_id, "run_id": receiver.run_id, "at": now.isoformat()}
    record = pack(about)

    def write(operation_id: str) -> bool:
        return archive.folder.create(f"{receiver.folder(operation_id)}/{receiver.file}", record)

    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="speechkit-handed-on") as pool:
        for _ in pool.map(write, dict.fromkeys(operation_ids)):
            pass


def _hash(*names: str) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:_DIGITS]
