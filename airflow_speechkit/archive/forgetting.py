"""Remove what is known of a recording: from the archive, from the tables' files, from a DuckDB database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.layout import (
    OUTCOME_FILE,
    REFUSED_PREFIX,
    checked_operation_id,
    forgotten_file,
    ledger_file,
    operation_file,
)
from airflow_speechkit.archive.ledger import Stage
from airflow_speechkit.archive.records import pack, unpack
from airflow_speechkit.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow_speechkit.archive.store import Archive


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
        entry = archive.entry(operation_id)
        outcome = archive.outcome(operation_id)
        if entry is None and outcome is None:
            raise ArchiveError("This operation isn't in the archive", operation_id=operation_id)
        if not even_if_running and outcome is None:
            raise ArchiveError(
                "No end of this operation is on record: whoever waits for it would put it back",
                operation_id=operation_id,
                todo="Wait until it has ended, or say --even-if-running",
            )
        began = {
            "operation_id": operation_id,
            "fingerprint": entry.submission.fingerprint if entry else None,
            "attempt": entry.attempt if entry else None,
            "scope": entry.scope if entry else None,
            "submitted_at": entry.submission.submitted_at.isoformat() if entry else None,
            "began_at": now.isoformat(),
        }
        archive.folder.replace(forgotten_file(operation_id), pack(began))
    removed = 0
    if began["attempt"] is not None:
        mark = {name: began[name] for name in ("attempt", "scope", "operation_id", "submitted_at")}
        mark |= {"at": began["began_at"], "failure": None}
        removed += _clear(archive, str(began["fingerprint"]), int(began["attempt"]), mark)
    # The outcome last: without it the next call would take what is left for an operation that runs.
    names = sorted(archive.folder.names(operation_file(operation_id)), key=lambda name: name.endswith(OUTCOME_FILE))
    for name in names:
        archive.folder.delete(name)
        removed += 1
    archive.folder.replace(forgotten_file(operation_id), pack({**began, "finished_at": now.isoformat()}))
    return Forgotten(operation_id=operation_id, files=removed)


def forget_attempts(archive: Archive, audio_uri: str, *, now: datetime) -> int:
    """Remove what is on record of attempts to submit a recording that led to no operation: refused ones, lost ones.

    :return: how many there were
    :raises ArchiveError: somebody may still be at one
    """
    count = 0
    for fingerprint in archive.fingerprints():
        for attempt in archive.attempts(fingerprint):
            if attempt.stage not in (Stage.CLAIMED, Stage.LOST, Stage.REFUSED):
                continue
            claim = archive.planned(fingerprint, attempt.number)
            if claim is None or claim.planned.audio_uri != audio_uri:
                continue
            if attempt.stage is Stage.CLAIMED and now < claim.lease_expires_at:
                raise ArchiveError("Somebody is submitting this recording just now", recording=audio_uri)
            mark = {"attempt": attempt.number, "scope": claim.scope, "at": now.isoformat(), "failure": None}
            _clear(archive, fingerprint, attempt.number, mark)
            count += 1
    return count


def _clear(archive: Archive, fingerprint: str, number: int, mark: dict[str, Any]) -> int:
    """Leave of an attempt only that there was one."""
    archive.folder.create(ledger_file(fingerprint, number, Stage.FORGOTTEN), pack(mark))
    removed = 0
    for stage in Stage:
        name = ledger_file(fingerprint, number, stage)
        if stage is not Stage.FORGOTTEN and archive.folder.exists(name):
            archive.folder.delete(name)
            removed += 1
    return removed


def operations_of(archive: Archive, audio_uri: str) -> Iterator[str]:
    """Give every operation of a recording that is on record, whatever its settings and version."""
    for operation_id in archive.operations():
        submission = archive.submission(operation_id)
        if submission is not None and submission.audio_uri == audio_uri:
            yield operation_id


def _begun(archive: Archive, operation_id: str) -> dict[str, Any] | None:
    name = forgotten_file(operation_id)
    try:
        raw = archive.folder.read(name)
    except FileNotFoundError:
        return None
    data = unpack(raw, archive.folder.url_of(name))
    # A refused recording can be refused again after it was forgotten, under the same id.
    return None if operation_id.startswith(REFUSED_PREFIX) and "finished_at" in data else data
