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
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.records import load, pack
from airflow_speechkit.archive.submit_rules import SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import StorageError, error_from_json
from airflow_speechkit.models import Recording
from airflow_speechkit.parsing import expect, expect_or_none
from airflow_speechkit.recordings.address import parse_s3

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.settings import RecognitionSettings

_FACTS = ("size_bytes", "duration_ms", "channels", "billed_seconds")


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
    record = {
        "began_at": run.began_at.isoformat(),
        "many": run.returns_list,
        "refused_since": run.refused_since and run.refused_since.isoformat(),
        "sent": [at.isoformat() for at in run.sent_at],
        "recordings": [_to_json(one) for one in run.outcomes],
    }
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
        refused_since = data.get("refused_since")
        return SubmitRun(
            began_at=datetime.fromisoformat(data["began_at"]),
            returns_list=expect(data["many"], bool),
            outcomes=[_from_json(expect(one, dict), settings) for one in expect(data["recordings"], list)],
            is_resumed=True,
            refused_since=None if refused_since is None else datetime.fromisoformat(refused_since),
            sent_at=[datetime.fromisoformat(at) for at in expect(data["sent"], list)],
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


def _to_json(outcome: SubmitOutcome) -> dict[str, Any]:
    recording = outcome.recording
    data: dict[str, Any] = {
        "address": recording.address.text if recording.address else recording.audio_uri,
        "audio_uri": recording.audio_uri,
        "version": recording.version,
        "labels": dict(recording.labels),
        **{name: getattr(recording, name) for name in _FACTS if getattr(recording, name) is not None},
    }
    if outcome.status is not None:
        data |= {
            "fingerprint": outcome.fingerprint,
            "how": outcome.status,
            "operation_id": outcome.operation_id,
            "error": outcome.error and outcome.error.to_json(),
        }
    return data


def _from_json(data: dict[str, Any], settings: RecognitionSettings) -> SubmitOutcome:
    facts: dict[str, Any] = {name: expect(data[name], int) for name in _FACTS if name in data}
    address = expect(data["address"], str)
    recording = Recording(
        audio_uri=expect(data["audio_uri"], str),
        version=expect_or_none(data["version"], str),
        settings=settings,
        labels=expect(data["labels"], dict),
        address=parse_s3(address) if address.startswith("s3://") else None,
        **facts,
    )
    if "how" not in data:
        return SubmitOutcome(recording=recording)
    error = data["error"]
    return SubmitOutcome(
        recording=recording,
        fingerprint=expect(data["fingerprint"], str),
        status=SubmitStatus(data["how"]),
        operation_id=expect_or_none(data["operation_id"], str),
        error=None if error is None else error_from_json(expect(error, dict)),
    )


def _file(scope: str) -> str:
    return f"runs/{hashlib.sha256(scope.encode(errors='backslashreplace')).hexdigest()[:32]}.json"
