"""What a person does to an archive: delete an operation, delete attempts, settle a lost submission."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from airflow_speechkit.archive import identity, layout
from airflow_speechkit.archive.ledger import Attempt, AttemptState, Failure, lost_attempts
from airflow_speechkit.archive.records import AttemptEnd, Deletion
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.models import PARTS_PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

    from airflow_speechkit.archive.records import Claim
    from airflow_speechkit.archive.store import Archive

#: Younger unfinished files of the ledger may belong to a process that is writing now.
UNFINISHED_FOR = timedelta(hours=1)


def delete_operation(archive: Archive, operation_id: str, *, now: datetime, even_if_running: bool = False) -> int:
    """Delete an operation's submission and answer, and leave a record of that.

    The record holds the operation id, the fingerprint (a hash) and the times, nothing of the recording. The ledger
    then ignores the attempt: the recording can be submitted again, and is paid for again. If the process is killed,
    the next call continues.

    :param operation_id: the operation
    :param now: UTC
    :param even_if_running: also one of which no end is on record
    :return: how many files were removed
    :raises ArchiveError: the operation is not on record, or has no end on record
    """
    deletion = _begun(archive, operation_id)
    if deletion is None:
        deletion = _begin(archive, operation_id, now, even_if_running)
        archive.folder.replace(layout.forgotten_file(operation_id), layout.pack(deletion))
    removed = identity.delete_hashes(archive, identity.audio_uris(archive, operation_id))
    if deletion.attempt is not None and deletion.fingerprint is not None:
        end = AttemptEnd.after(deletion, operation_id=operation_id, at=deletion.began_at)
        removed += _clear(archive, deletion.fingerprint, deletion.attempt, end)
    folder = layout.operation_file(operation_id)
    # Unfinished files too: one may be a whole answer. The submission last: it leads from the recording to the rest.
    # Twice: a process that writes labels meanwhile removes them itself once the submission is gone.
    for _ in range(2):
        names = sorted(archive.folder.names(folder), key=lambda name: name.endswith(f"/{layout.SUBMISSION_FILE}"))
        for name in [*archive.folder.unfinished(folder), *names]:
            archive.folder.delete(name)
            removed += 1
    archive.folder.prune(folder)
    archive.folder.replace(
        layout.forgotten_file(operation_id), layout.pack(msgspec.structs.replace(deletion, finished_at=now))
    )
    return removed


def _begun(archive: Archive, operation_id: str) -> Deletion | None:
    found = layout.load(archive.folder, layout.forgotten_file(operation_id), Deletion.read)
    # A recording that was not submitted can be put on record again after its deletion, under the same id.
    is_over = found is not None and found.finished_at is not None and layout.is_unsent(operation_id)
    return None if is_over else found


def _begin(archive: Archive, operation_id: str, now: datetime, even_if_running: bool) -> Deletion:
    entry, has_ended = archive.entry(operation_id), archive.outcome(operation_id) is not None
    fingerprint, attempt = None, None
    if entry is None:
        # Its files are missing, or it was submitted elsewhere. If it is in the ledger, it would be joined or reused.
        fingerprint, attempt = _in_ledger(archive, operation_id)
        if attempt is None and not has_ended:
            raise layout.damage("This operation isn't in the archive", "Check the id", operation_id=operation_id)
        has_ended = has_ended or (attempt is not None and attempt.state is not AttemptState.IN_FLIGHT)
    if not has_ended and not even_if_running:
        what = "According to the archive this operation has not ended: a task that waits for it would restore it"
        raise layout.damage(what, "Wait until it has ended, or pass --even-if-running", operation_id=operation_id)
    known = entry or attempt
    submitted = entry.submission if entry else attempt
    return Deletion(
        operation_id=operation_id,
        began_at=now,
        fingerprint=entry.submission.fingerprint if entry else fingerprint,
        attempt=entry.attempt if entry else (attempt.number if attempt else None),
        scope=known.scope if known else None,
        supersedes=known.supersedes if known else (),
        submitted_at=submitted.submitted_at if submitted else None,
    )


def _in_ledger(archive: Archive, operation_id: str) -> tuple[str | None, Attempt | None]:
    known = ((one, attempt) for one in archive.fingerprints() for attempt in archive.attempts(one))
    return next((found for found in known if found[1].operation_id == operation_id), (None, None))


def operations_of(archive: Archive, audio_uri: str) -> list[str]:
    """Return every operation of a recording that is on record, alone or in a pair, in any settings and version.

    Also those that it shares, which were submitted for other recordings with the same bytes.
    """

    def is_of(operation_id: str) -> bool:
        # An error if it is damaged: it may be the recording's.
        entry = archive.entry(operation_id)
        paired_uri = None if entry is None else entry.submission.paired_uri
        if entry is not None and audio_uri in (entry.submission.audio_uri, paired_uri):
            return True
        if identity.is_shared_by(archive, operation_id, audio_uri):
            return True
        return paired_uri is not None and audio_uri in identity.audio_uris(archive, operation_id)

    return [one for one, found in layout.read_each(is_of, archive.operations()).items() if found]


def copies_of(archive: Archive, operation_ids: Collection[str], claims: Iterable[Claim] = ()) -> list[str]:
    """Return the converted copies that only these operations and claims were submitted with.

    :param operation_ids: operations on record
    :param claims: of attempts that led to no operation
    :return: their addresses, ``s3://bucket/key``
    """

    def copy_of(operation_id: str) -> str | None:
        entry = archive.entry(operation_id)
        return entry.submission.submitted_uri if entry else None

    copies = {*layout.each(copy_of, operation_ids), *(claim.planned.submitted_uri for claim in claims)} - {None}
    if not copies:
        return []
    # The same recording may have been submitted with other settings.
    others = layout.each(copy_of, (one for one in archive.operations() if one not in operation_ids))
    return sorted(one for one in copies.difference(others) if one)


def operations_under(archive: Archive, given: str) -> list[str]:
    """Return the operations that an id names: itself, or those of the recording in parts that has it in the tables.

    :param given: an operation id, or a recognition id
    :raises ArchiveError: the archive can't be read
    """
    if not given.startswith(PARTS_PREFIX):
        return [given]
    wholes = layout.read_each(partial(_whole_id, archive), archive.operations())
    return [one for one, whole in wholes.items() if whole == given]


def whole_ids(archive: Archive, operation_ids: Collection[str]) -> list[str]:
    """Return the ids in the tables of the recordings that some operations are parts of.

    :raises ArchiveError: the archive can't be read
    """
    return list(dict.fromkeys(one for one in layout.each(partial(_whole_id, archive), operation_ids) if one))


def _whole_id(archive: Archive, operation_id: str) -> str | None:
    entry = archive.entry(operation_id)
    return entry.submission.part.recognition_id if entry and entry.submission.part else None


def attempts_of(archive: Archive, audio_uri: str) -> Iterator[tuple[str, Attempt, Claim]]:
    """Return every attempt to submit a recording that leads to no operation on record.

    Refused ones, lost ones, those whose operation's files are gone, and those whose deletion was interrupted.

    :return: the fingerprint, the attempt and its claim
    """
    for fingerprint in archive.fingerprints():
        for attempt in archive.attempts(fingerprint):
            claim = archive.planned(fingerprint, attempt.number)
            if claim is None or audio_uri not in (claim.planned.audio_uri, claim.planned.paired_uri):
                continue
            if attempt.operation_id is None or archive.entry(attempt.operation_id) is None:
                yield fingerprint, attempt, claim


def delete_attempts(archive: Archive, audio_uri: str, *, now: datetime) -> int:
    """Delete what is on record of attempts that led to no operation: see `attempts_of`.

    :return: how many there were
    :raises ArchiveError: another process may be submitting the recording
    """
    count = 0
    identity.delete_hashes(archive, [audio_uri])
    for fingerprint, attempt, claim in attempts_of(archive, audio_uri):
        if attempt.is_live(now):
            hint = f"Wait until {claim.lease_expires_at:%H:%M:%S} UTC, when its claim expires"
            raise ArchiveError("This recording is being submitted now", recording=audio_uri, hint=hint)
        end = AttemptEnd.after(claim, attempt=attempt.number, owner=None, at=now)
        _clear(archive, fingerprint, attempt.number, end)
        count += 1
    return count


def _clear(archive: Archive, fingerprint: str, number: int, end: AttemptEnd) -> int:
    """Leave of an attempt only its number, which can't be claimed again; return how many files were removed.

    A run that found the number free hours ago, and waits for the quota, would otherwise claim it now, and what it is
    billed for would be hidden.
    """
    folder = archive.folder
    folder.create(layout.ledger_file(fingerprint, number, AttemptState.FORGOTTEN), layout.pack(end))
    states = [one for one in AttemptState if one not in (AttemptState.FORGOTTEN, AttemptState.CLAIMED)]
    left = [name for one in states if folder.exists(name := layout.ledger_file(fingerprint, number, one))]
    left += folder.unfinished(f"ledger/{fingerprint}", untouched_for=UNFINISHED_FOR)
    for name in left:
        folder.delete(name)
    # The claim last: it names the recording, and so leads to what is left of the attempt.
    claim = layout.ledger_file(fingerprint, number, AttemptState.CLAIMED)
    tombstone = layout.pack(msgspec.structs.replace(end, forgotten_at=end.at))
    there = layout.read(folder, claim)
    if there == tombstone:
        return len(left)
    folder.replace(claim, tombstone)
    return len(left) + (there is not None)


def adopt(archive: Archive, fingerprint: str, operation_id: str, *, now: datetime, attempt: int | None = None) -> int:
    """Put the operation of a lost submission on record, as if its id had come back.

    :param attempt: its number; by default the newest that is not settled
    :return: the number of the attempt
    :raises ArchiveError: no submission of this recording is lost, or the operation is on record for another one
    """
    number, claim = _lost_claim(archive, fingerprint, now, attempt)
    archive.record_submission(number, claim.scope, replace(claim.planned, operation_id=operation_id), claim.supersedes)
    return number


def release(archive: Archive, fingerprint: str, *, now: datetime, attempt: int | None = None) -> int:
    """Put on record that the service has not accepted a lost submission: the next run sends it again.

    :param attempt: its number; by default the newest that is not settled
    :return: the number of the attempt
    :raises ArchiveError: no submission of this recording is lost
    """
    number, claim = _lost_claim(archive, fingerprint, now, attempt)
    failure = Failure(None, "released by hand: the service had not accepted it")
    archive.give_up(number, AttemptState.REFUSED, claim, failure, now)
    return number


def _lost_claim(archive: Archive, fingerprint: str, now: datetime, number: int | None) -> tuple[int, Claim]:
    attempts = archive.attempts(fingerprint)
    if number is None:
        lost = lost_attempts(attempts, now)
    else:
        # Also one that the recording was sent again in place of.
        lost = [one for one in attempts if one.number == number and one.is_lost(now)]
    claim = archive.planned(fingerprint, lost[0].number) if lost else None
    if claim is None:
        known = ", ".join(f"attempt {one.number} ({one.state.value})" for one in attempts) or "nothing"
        raise layout.damage(
            f"There is no such lost submission under {fingerprint}. On record: {known}",
            "A claim counts as lost once its lease has expired. `airflow-speechkit archive verify` lists lost ones",
        )
    return lost[0].number, claim
