"""What the archive records about runs of tasks: what their visits have come to, and what was delivered to them.

Beside what `archive.layout` describes, an archive has ::

    runs/<task instance>.json                    what a task's last visit has come to; removed after the last one
    handed_on/<task>/<operation id>/<run>.json   the operation was delivered to a run of a task (exclusive create)

The names have hashes, which are safe in any path.

A task that frees its worker while the quota is used up works in visits, each perhaps in another process. A later visit
continues with the recordings that the first one found. Recordings that came meanwhile are left to the next run, and
operations are returned although their recordings were deleted or replaced. What is paid for is in the ledger, not here.

A later run can leave out operations that were delivered to an earlier one. A run that is cleared or tried again finds
its own file and gets the operation again, whichever other run got it since.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_speechkit.archive.layout import each, hashed, load, operation_file, pack, read_each
from airflow_speechkit.archive.records import Record, Time
from airflow_speechkit.archive.submit_rules import SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import StorageError, error_from_json
from airflow_speechkit.models import FilterReason, ObjectVersion, Part, Recording
from airflow_speechkit.recordings.address import parse_s3

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.archive.submit_rules import Origin
    from airflow_speechkit.settings import RecognitionSettings


@dataclass(frozen=True, kw_only=True)
class SubmitRun:
    """What one try of a task has come to.

    :param began_at: when its first visit began, UTC
    :param returns_list: whether it returns a list, of whatever length
    :param outcomes: of each recording, in their order
    :param is_resumed: whether there was a visit before
    :param refused_since: since when the service has refused all submits, if it refused the last one
    :param sent_at: when each submit of the last hour went out
    :param next_at: when the next visit begins; None where nothing is left
    """

    began_at: datetime
    outcomes: Sequence[SubmitOutcome] = ()
    returns_list: bool = True
    is_resumed: bool = False
    refused_since: datetime | None = None
    sent_at: Sequence[datetime] = ()
    next_at: datetime | None = None

    @property
    def done(self) -> list[SubmitOutcome]:
        """The outcomes that there are, in the order of the recordings."""
        return [one for one in self.outcomes if one.status is not None]

    @property
    def left(self) -> list[Recording]:
        """The recordings that have no outcome yet."""
        return [one.recording for one in self.outcomes if one.status is None]

    @property
    def billed_seconds(self) -> int:
        """What the visits before may have been billed."""
        paid = {one.fingerprint: one for one in self.done if one.status in (SubmitStatus.SUBMITTED, SubmitStatus.LOST)}
        return sum(one.recording.billed_seconds or 0 for one in paid.values())


class _RunRecording(Record, frozen=True, kw_only=True):
    """A recording of a run, and what became of it."""

    address: str
    audio_uri: str
    version: str | None
    part: Part | None = None
    labels: dict[str, str]
    content_hash: str | None = None
    size_bytes: int | None = None
    duration_ms: int | None = None
    channels: int | None = None
    billed_seconds: int | None = None
    filter_reason: FilterReason | None = None
    paired_address: str | None = None
    paired_version: str | None = None
    fingerprint: str = ""
    status: SubmitStatus | None = msgspec.field(default=None, name="how")
    operation_id: str | None = None
    error: dict[str, Any] | None = None

    @classmethod
    def of(cls, outcome: SubmitOutcome) -> _RunRecording:
        recording = outcome.recording
        other = recording.other
        return cls(
            address=recording.address.text if recording.address else recording.audio_uri,
            paired_address=None if other is None else other.address.text,
            paired_version=None if other is None else other.etag,
            fingerprint=outcome.fingerprint,
            status=outcome.status,
            operation_id=outcome.operation_id,
            error=None if outcome.error is None else outcome.error.to_json(),
            **{name: getattr(recording, name) for name in _FACTS},
        )

    def outcome(self, settings: RecognitionSettings) -> SubmitOutcome:
        # Only what is left is resolved again. A refused recording may have no valid address.
        is_left = self.status is None
        address = parse_s3(self.address) if is_left and self.address.startswith("s3://") else None
        paired = self.paired_address
        other = None if paired is None else ObjectVersion(parse_s3(paired), self.paired_version)
        facts = {name: getattr(self, name) for name in _FACTS}
        return SubmitOutcome(
            recording=Recording(settings=settings, address=address, other=other, **facts),
            fingerprint=self.fingerprint,
            status=self.status,
            operation_id=self.operation_id,
            error=None if self.error is None else error_from_json(self.error),
        )


#: What is the same in a recording and in its record.
_FACTS = {one.name for one in fields(Recording)} & {*_RunRecording.__struct_fields__} - {"address", "error"}


class _RunRecord(Record, frozen=True, kw_only=True):
    """The file of a run."""

    began_at: Time
    returns_list: bool = msgspec.field(name="many")
    recordings: list[_RunRecording]
    refused_since: Time | None = None
    sent_at: list[Time] = msgspec.field(name="sent")


def write_run(archive: Archive, scope: str, run: SubmitRun) -> None:
    """Put a run on record.

    :param scope: the task instance
    :raises ArchiveError: the archive can't be written
    """
    record = _RunRecord(
        began_at=run.began_at,
        returns_list=run.returns_list,
        recordings=[_RunRecording.of(one) for one in run.outcomes],
        refused_since=run.refused_since,
        sent_at=list(run.sent_at),
    )
    archive.folder.replace(_run_file(scope), pack(record))


def read_run(archive: Archive, scope: str, settings: RecognitionSettings) -> SubmitRun | None:
    """Return what the last visit has come to; None where there is no such record.

    :param scope: the task instance
    :param settings: those of its recordings
    :raises ArchiveError: the archive can't be read, or the record is damaged
    """

    def build(data: dict[str, Any]) -> SubmitRun | None:
        if "recordings" not in data:
            # Emptied at the end of an earlier try.
            return None
        record = _RunRecord.read(data)
        return SubmitRun(
            began_at=record.began_at,
            returns_list=record.returns_list,
            outcomes=[one.outcome(settings) for one in record.recordings],
            is_resumed=True,
            refused_since=record.refused_since,
            sent_at=record.sent_at,
        )

    return load(archive.folder, _run_file(scope), build)


def remove_run(archive: Archive, scope: str) -> None:
    """Remove the record, which has addresses and labels; empty it where nothing may be deleted.

    :param scope: the task instance
    """
    try:
        archive.folder.delete(_run_file(scope))
    except StorageError:
        archive.folder.replace(_run_file(scope), pack({}))


def _run_file(scope: str) -> str:
    return f"runs/{hashed(scope)}.json"


def delivered_before(archive: Archive, to: Origin, operation_ids: Sequence[str]) -> set[str]:
    """Return those operations that were delivered to other runs of the task, and not to this one.

    :param to: the task instance. All tries and map indexes of a run count as one

    :raises ArchiveError: the archive can't be read
    """

    def is_old(operation_id: str) -> bool:
        names = list(archive.folder.names(_delivery_folder(to, operation_id)))
        return bool(names) and _delivery_file(to, operation_id) not in names

    return {one for one, old in read_each(is_old, operation_ids).items() if old}


def record_delivery(archive: Archive, to: Origin, operation_ids: Sequence[str], now: datetime) -> None:
    """Put on record that operations were delivered to a run. Calling it again changes nothing.

    A process that is killed in the middle of it leaves some out: its retry gets all of them, and puts them on record.

    :param to: the task instance
    :param now: UTC
    :raises ArchiveError: the archive can't be written
    """
    record = pack({"dag_id": to.dag_id, "task_id": to.task_id, "run_id": to.run_id, "at": now.isoformat()})
    list(each(lambda one: archive.folder.create(_delivery_file(to, one), record), dict.fromkeys(operation_ids)))


def _delivery_folder(to: Origin, operation_id: str) -> str:
    return operation_file(operation_id, folder=f"handed_on/{hashed(json.dumps([to.dag_id, to.task_id]))}")


def _delivery_file(to: Origin, operation_id: str) -> str:
    return f"{_delivery_folder(to, operation_id)}/{hashed(json.dumps([to.run_id]))}.json"
