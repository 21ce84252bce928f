"""Remove what is known of a recording from the archive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.layout import (
    REFUSED_PREFIX,
    SUBMISSION_FILE,
    checked_operation_id,
    forgotten_file,
    is_fingerprint,
    ledger_file,
    operation_file,
)
from airflow_speechkit.archive.ledger import Attempt, Stage
from airflow_speechkit.archive.reading import load, read
from airflow_speechkit.archive.records import pack, tombstone
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.parsing import MalformedError, expect, expect_or_none

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow_speechkit.archive.records import Claim
    from airflow_speechkit.archive.store import Archive

#: After this a file that isn't finished never will be. In the ledger others may be writing just now.
UNFINISHED_FOR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was removed from the archive.

    :param operation_id: the operation
    :param files: how many files this call removed
    """

    operation_id: str
    files: int


def forget(archive: Archive, operation_id: str, *, now: datetime, even_if_running: bool = False) -> Forgotten:
    """Remove an operation's submission and answer, and leave a record that it was done.

    The record holds the operation id, the fingerprint (a hash) and the times, nothing of the recording. It makes the
    ledger count the attempt as never having been: the recording can be submitted again, and is paid for again.
    Killed in between, it is finished by the next call.

    :param operation_id: the operation
    :param now: UTC
    :param even_if_running: also one of which no end is on record
    :raises ArchiveError: nothing of the kind is on record, or its end isn't
    """
    checked_operation_id(operation_id)
    began = _begun(archive, operation_id)
    if began is None:
        began = _begin(archive, operation_id, now, even_if_running)
        archive.folder.replace(forgotten_file(operation_id), pack(began))
    removed = 0
    if began["attempt"] is not None:
        names = ("attempt", "scope", "over", "operation_id", "submitted_at")
        mark = {name: began.get(name) for name in names} | {"at": began["began_at"], "failure": None}
        removed += _clear(archive, str(began["fingerprint"]), int(began["attempt"]), mark)
    folder = operation_file(operation_id)
    # Also what a process was killed while it wrote: it may be a whole answer. The submission last: it leads from a
    # recording to what is left of its operation. And once more: whoever was writing labels meanwhile removes them, if
    # the submission had gone by then.
    for _ in range(2):
        for name in [*archive.folder.unfinished(folder), *sorted(archive.folder.names(folder), key=_is_submission)]:
            archive.folder.delete(name)
            removed += 1
    archive.folder.prune(folder)
    archive.folder.replace(forgotten_file(operation_id), pack({**began, "finished_at": now.isoformat()}))
    return Forgotten(operation_id=operation_id, files=removed)


def _is_submission(name: str) -> bool:
    return name.endswith(f"/{SUBMISSION_FILE}")


def _begin(archive: Archive, operation_id: str, now: datetime, even_if_running: bool) -> dict[str, Any]:
    entry, outcome = archive.entry(operation_id), archive.outcome(operation_id)
    began: dict[str, Any] = {"operation_id": operation_id, "began_at": now.isoformat()}
    if entry is not None:
        submission, ended = entry.submission, outcome is not None
        began |= {"fingerprint": submission.fingerprint, "attempt": entry.attempt, "scope": entry.scope}
        began |= {"over": list(entry.over), "submitted_at": submission.submitted_at.isoformat()}
    else:
        # Its files have gone, or it was submitted elsewhere. Where the ledger knows it, it would be joined or reused.
        found = _in_ledger(archive, operation_id)
        if found is None and outcome is None:
            raise ArchiveError("This operation isn't in the archive", operation_id=operation_id, retry_can_help=False)
        fingerprint, attempt = found if found is not None else (None, None)
        ended = outcome is not None or (attempt is not None and attempt.stage is not Stage.IN_FLIGHT)
        submitted_at = None if attempt is None else attempt.submitted_at
        began |= {
            "fingerprint": fingerprint,
            "attempt": None if attempt is None else attempt.number,
            "scope": None if attempt is None else attempt.scope,
            "over": [] if attempt is None else list(attempt.over),
            "submitted_at": None if submitted_at is None else submitted_at.isoformat(),
        }
    if not ended and not even_if_running:
        raise ArchiveError(
            "No end of this operation is on record: whoever waits for it would put it back",
            operation_id=operation_id,
            hint="Wait until it has ended, or say --even-if-running",
            retry_can_help=False,
        )
    return began


def _in_ledger(archive: Archive, operation_id: str) -> tuple[str, Attempt] | None:
    for fingerprint in archive.fingerprints():
        for attempt in archive.attempts(fingerprint):
            if attempt.operation_id == operation_id:
                return fingerprint, attempt
    return None


def operations_of(archive: Archive, audio_uri: str) -> Iterator[str]:
    """Give every operation of a recording that is on record, whatever its settings and version."""
    for operation_id in archive.operations():
        entry = archive.entry(operation_id)
        if entry is not None and entry.submission.audio_uri == audio_uri:
            yield operation_id


def attempts_of(archive: Archive, audio_uri: str) -> Iterator[tuple[str, Attempt, Claim]]:
    """Give every attempt to submit a recording that leads to no operation on record.

    Refused ones, lost ones, those whose operation's files have gone, and what is left of one whose removal was broken
    off.

    :return: the fingerprint, the attempt and its claim
    """
    for fingerprint in archive.fingerprints():
        for attempt in archive.attempts(fingerprint):
            claim = archive.planned(fingerprint, attempt.number)
            if claim is None or claim.planned.audio_uri != audio_uri:
                continue
            if attempt.operation_id is None or archive.entry(attempt.operation_id) is None:
                yield fingerprint, attempt, claim


def forget_attempts(archive: Archive, audio_uri: str, *, now: datetime) -> int:
    """Remove what is on record of attempts to submit a recording that led to no operation: see `attempts_of`.

    :return: how many there were
    :raises ArchiveError: somebody may still be at one
    """
    count = 0
    for fingerprint, attempt, claim in attempts_of(archive, audio_uri):
        if attempt.is_live(now):
            raise ArchiveError(
                "Somebody is submitting this recording just now",
                recording=audio_uri,
                hint=f"Wait until its operation is on record, or its claim has run out at "
                f"{claim.lease_expires_at:%H:%M:%S} UTC",
                retry_can_help=True,
            )
        mark = {
            "attempt": attempt.number,
            "scope": claim.scope,
            "over": list(claim.over),
            "at": now.isoformat(),
            "failure": None,
        }
        _clear(archive, fingerprint, attempt.number, mark)
        count += 1
    return count


def _clear(archive: Archive, fingerprint: str, number: int, mark: dict[str, Any]) -> int:
    """Leave of an attempt only that there was one, under a number that nobody can claim again.

    A run that found the number free hours ago, and waits for the quota, would otherwise claim it now; and what it is
    billed for would be hidden behind the mark.
    """
    folder = archive.folder
    folder.create(ledger_file(fingerprint, number, Stage.FORGOTTEN), pack(mark))
    removed = 0
    for stage in Stage:
        name = ledger_file(fingerprint, number, stage)
        if stage not in (Stage.FORGOTTEN, Stage.CLAIMED) and folder.exists(name):
            folder.delete(name)
            removed += 1
    for name in folder.unfinished(f"ledger/{fingerprint}", untouched_for=UNFINISHED_FOR):
        folder.delete(name)
        removed += 1
    # The claim last: it names the recording, and so leads to what is left of the attempt.
    claim, grave = ledger_file(fingerprint, number, Stage.CLAIMED), pack(tombstone(mark))
    there = read(folder, claim)
    if there != grave:
        folder.replace(claim, grave)
        removed += there is not None
    return removed


def _begun(archive: Archive, operation_id: str) -> dict[str, Any] | None:
    data = load(archive.folder, forgotten_file(operation_id), _begun_from_json)
    # A refused recording can be refused again after it was forgotten, under the same id.
    return None if data is not None and operation_id.startswith(REFUSED_PREFIX) and "finished_at" in data else data


def _begun_from_json(data: dict[str, Any]) -> dict[str, Any]:
    attempt, fingerprint = expect_or_none(data["attempt"], int), expect_or_none(data["fingerprint"], str)
    if attempt is not None and (fingerprint is None or not is_fingerprint(fingerprint)):
        raise MalformedError("an attempt has no fingerprint")
    expect(data["began_at"], str)
    return data
