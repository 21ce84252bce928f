"""Which operations were delivered to which run of a task, so that a later run can leave them out.

Beside what `archive.layout` describes, an archive has ::

    handed_on/<task>/<operation id>/<run>.json    the operation was delivered to a run of a task (exclusive create)

The file's name has hashes of the task and the run, which are safe in any path; the file has their names. One listing
says whether an operation was delivered before, and to which runs. A run that is cleared or tried again finds its own
file and gets the operation again, whichever other run got it since.
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

#: Requests to a bucket at once.
_CONCURRENCY = 16

#: 128 bits tell any two names apart.
_DIGITS = 32


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A run of a task that operations are delivered to. All its tries and map indexes count as one.

    :param dag_id: the DAG
    :param task_id: the task
    :param run_id: the DAG run
    """

    dag_id: str
    task_id: str
    run_id: str

    def folder(self, operation_id: str) -> str:
        """Return the folder that has a file for each run of the task that got an operation."""
        return f"handed_on/{_hash(self.dag_id, self.task_id)}/{checked_operation_id(operation_id)}"

    @property
    def file(self) -> str:
        """The name of this run's file in each of those folders."""
        return f"{_hash(self.run_id)}.json"

    def is_old(self, files: Collection[str]) -> bool:
        """Tell whether an operation was delivered to another run, and not to this one.

        :param files: the names of the files in its folder
        """
        return bool(files) and self.file not in files


def delivered_before(archive: Archive, delivery: Delivery, operation_ids: Sequence[str]) -> set[str]:
    """Return those operations that were delivered to other runs of the task, and not to this one.

    :raises ArchiveError: the archive can't be read
    """

    def is_old(operation_id: str) -> bool:
        names = archive.folder.names(delivery.folder(operation_id))
        return delivery.is_old({name.rpartition("/")[2] for name in names})

    with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="speechkit-deliveries") as pool:
        return {one for one, old in zip(operation_ids, pool.map(is_old, operation_ids), strict=True) if old}


def record_delivery(archive: Archive, delivery: Delivery, operation_ids: Sequence[str], now: datetime) -> None:
    """Put on record that operations were delivered to a run. Calling it again changes nothing.

    A process that is killed in the middle of it leaves some out: its retry gets all of them, and puts them on record.

    :param now: UTC
    :raises ArchiveError: the archive can't be written
    """
    about = {"dag_id": delivery.dag_id, "task_id": delivery.task_id, "run_id": delivery.run_id, "at": now.isoformat()}
    record = pack(about)

    def write(operation_id: str) -> bool:
        return archive.folder.create(f"{delivery.folder(operation_id)}/{delivery.file}", record)

    with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="speechkit-deliveries") as pool:
        for _ in pool.map(write, dict.fromkeys(operation_ids)):
            pass


def _hash(*names: str) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:_DIGITS]
