"""What became of a task's recordings so far, for its next visit.

A visit goes on with what the first one found: what came meanwhile is not its business, and what was sent is handed on
although its recording was deleted or replaced. Beside what `archive.layout` describes, an archive has ::

    runs/<task instance>.json    what the last visit has come to; removed when no other one follows

The task instance stands in the file's name as a hash. The ledger, not this file, says what is paid for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.batch import How, SubmitOutcome
from airflow_speechkit.archive.records import load, pack
from airflow_speechkit.errors import StorageError, error_from_json
from airflow_speechkit.models import Recording
from airflow_speechkit.parsing import expect, expect_or_none

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.archive.batch import Visit
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.settings import RecognitionSettings

_FACTS = ("size_bytes", "duration_ms", "channels", "billed_seconds")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What the visits of one try have come to.

    :param began_at: when the first one began
    :param many: whether a list is handed on, of whatever length
    :param items: the recordings that the first one found
    :param by_place: what became of each; None where nothing has yet
    :param refused_since: since when the service has taken nothing, if it didn't take the last one
    :param sent: when something went out within the last hour
    """

    began_at: datetime
    many: bool
    items: Sequence[Recording] = ()
    by_place: Sequence[SubmitOutcome | None] = ()
    refused_since: datetime | None = None
    sent: Sequence[datetime] = ()

    @property
    def billed_seconds(self) -> int:
        """What the visits may have been billed."""
        paid = {one.fingerprint: one for one in self.by_place if one and one.how in (How.SUBMITTED, How.LOST)}
        return sum(one.item.billed_seconds or 0 for one in paid.values())


def write_run(archive: Archive, scope: str, began_at: datetime, visit: Visit, *, many: bool) -> None:
    """Put on record what a visit has come to.

    :param scope: the task instance
    :raises ArchiveError: the archive can't be written
    """
    record = {
        "began_at": began_at.isoformat(),
        "many": many,
        "refused_since": visit.refused_since and visit.refused_since.isoformat(),
        "sent": [at.isoformat() for at in visit.sent],
        "recordings": [_to_json(item, outcome) for item, outcome in zip(visit.items, visit.by_place, strict=True)],
    }
    archive.folder.replace(_file(scope), pack(record))


def read_run(archive: Archive, scope: str, settings: RecognitionSettings) -> RunRecord | None:
    """Return what the last visit has come to; None where there is no such record.

    :param scope: the task instance
    :param settings: those of its recordings
    :raises ArchiveError: the archive can't be read, or the record is damaged
    """

    def build(data: dict[str, Any]) -> RunRecord | None:
        if "recordings" not in data:
            # Emptied at the end of an earlier try.
            return None
        recordings = [_from_json(expect(one, dict), settings) for one in expect(data["recordings"], list)]
        refused_since = data.get("refused_since")
        return RunRecord(
            began_at=datetime.fromisoformat(data["began_at"]),
            many=expect(data["many"], bool),
            items=[item for item, _ in recordings],
            by_place=[outcome for _, outcome in recordings],
            refused_since=None if refused_since is None else datetime.fromisoformat(refused_since),
            sent=[datetime.fromisoformat(at) for at in expect(data["sent"], list)],
        )

    return load(archive.folder, _file(scope), build)


def remove_run(archive: Archive, scope: str) -> None:
    """Remove the record, in which addresses and labels stand; empty it where nothing may be deleted.

    :param scope: the task instance
    """
    try:
        archive.folder.delete(_file(scope))
    except StorageError:
        archive.folder.replace(_file(scope), pack({}))


def _to_json(item: Recording, outcome: SubmitOutcome | None) -> dict[str, Any]:
    known = item if outcome is None else outcome.item
    data: dict[str, Any] = {
        "address": item.address or item.audio_uri,
        "audio_uri": item.audio_uri,
        "version": item.version,
        "labels": dict(item.labels),
        **{name: getattr(known, name) for name in _FACTS if getattr(known, name) is not None},
    }
    if outcome is not None:
        data |= {"fingerprint": outcome.fingerprint, "how": outcome.how, "operation_id": outcome.operation_id}
        data["error"] = outcome.error and outcome.error.to_json()
    return data


def _from_json(data: dict[str, Any], settings: RecognitionSettings) -> tuple[Recording, SubmitOutcome | None]:
    facts: dict[str, Any] = {name: expect(data[name], int) for name in _FACTS if name in data}
    item = Recording(
        audio_uri=expect(data["audio_uri"], str),
        version=expect_or_none(data["version"], str),
        settings=settings,
        labels=expect(data["labels"], dict),
        address=expect(data["address"], str),
        **facts,
    )
    if "how" not in data:
        return item, None
    error = data["error"]
    return item, SubmitOutcome(
        item=item,
        fingerprint=expect(data["fingerprint"], str),
        how=How(data["how"]),
        operation_id=expect_or_none(data["operation_id"], str),
        error=None if error is None else error_from_json(expect(error, dict)),
    )


def _file(scope: str) -> str:
    return f"runs/{hashlib.sha256(scope.encode(errors='backslashreplace')).hexdigest()[:32]}.json"
