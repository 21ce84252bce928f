"""What became of a task's recordings so far, for its next visit.

A task that frees its worker while the quota is used up works in visits, each perhaps in another process. A later visit
goes on with the recordings that the first one found. What came in the meantime is left to the next run, and what was
sent is returned although its recording was deleted or replaced. Beside what `archive.layout` describes, an archive
has ::

    runs/<task instance>.json    what the last visit has come to; removed when no other one follows

The file's name is a hash of the task instance. The ledger, not this file, says what is paid for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - the codec resolves the annotations
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_speechkit.archive.records import Record, load, pack
from airflow_speechkit.archive.submit_rules import SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import StorageError, error_from_json
from airflow_speechkit.models import Recording
from airflow_speechkit.recordings.address import parse_s3

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.settings import RecognitionSettings

_FACTS = ("audio_uri", "version", "labels", "size_bytes", "duration_ms", "channels", "billed_seconds")


class _RunRecording(Record, frozen=True, kw_only=True):
    """A recording of a run, and what became of it."""

    address: str
    audio_uri: str
    version: str | None
    labels: dict[str, str]
    size_bytes: int | None = None
    duration_ms: int | None = None
    channels: int | None = None
    billed_seconds: int | None = None
    fingerprint: str = ""
    status: SubmitStatus | None = msgspec.field(default=None, name="how")
    operation_id: str | None = None
    error: dict[str, Any] | None = None

    @classmethod
    def of(cls, outcome: SubmitOutcome) -> _RunRecording:
        recording = outcome.recording
        return cls(
            address=recording.address.text if recording.address else recording.audio_uri,
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
        facts = {name: getattr(self, name) for name in _FACTS}
        return SubmitOutcome(
            recording=Recording(settings=settings, address=address, **facts),
            fingerprint=self.fingerprint,
            status=self.status,
            operation_id=self.operation_id,
            error=None if self.error is None else error_from_json(self.error),
        )


class _RunRecord(Record, frozen=True, kw_only=True):
    """The file of a run."""

    began_at: datetime
    returns_list: bool = msgspec.field(name="many")
    recordings: list[_RunRecording]
    refused_since: datetime | None = None
    sent_at: list[datetime] = msgspec.field(name="sent")


@dataclass(frozen=True, kw_only=True)
class SubmitRun:
    """What one try of a task has come to.

    :param began_at: when its first visit began, UTC
    :param returns_list: whether it returns a list, of whatever length
    :param outcomes: of each recording, in their order
    :param is_resumed: whether there was a visit before
    :param refused_since: since when the service has refused all submits, if it refused the last one
    :param sent_at: when each submit of the last hour went out
    :param next_at: when the next visit goes on; None where nothing is left
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
    archive.folder.replace(_file(scope), pack(record))


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

    return load(archive.folder, _file(scope), build)


def remove_run(archive: Archive, scope: str) -> None:
    """Remove the record, which has addresses and labels; empty it where nothing may be deleted.

    :param scope: the task instance
    """
    try:
        archive.folder.delete(_file(scope))
    except StorageError:
        archive.folder.replace(_file(scope), pack({}))


def _file(scope: str) -> str:
    return f"runs/{hashlib.sha256(scope.encode(errors='backslashreplace')).hexdigest()[:32]}.json"
