"""What a person can say about a submission that is lost: here is its operation, or: it was never taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_speechkit.archive.ledger import Failure, Stage, lost_attempts
from airflow_speechkit.errors import ArchiveError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_speechkit.archive.ledger import Attempt
    from airflow_speechkit.archive.records import Claim
    from airflow_speechkit.archive.store import Archive


def adopt(archive: Archive, fingerprint: str, operation_id: str, *, now: datetime, attempt: int | None = None) -> int:
    """Put the operation of a lost submission on record, as if its id had come back.

    :param attempt: which one; the newest that nobody has settled, if none is given
    :return: which one it was
    :raises ArchiveError: no submission of this recording is lost, or the operation is on record for another one
    """
    number, claim = lost_claim(archive, fingerprint, now, attempt)
    submission = replace(claim.planned, operation_id=operation_id)
    archive.record_submission(number, claim.scope, submission, claim.over)
    return number


def release(archive: Archive, fingerprint: str, *, now: datetime, attempt: int | None = None) -> int:
    """Put on record that a lost submission was surely not taken: the next run sends it again.

    :param attempt: which one; the newest that nobody has settled, if none is given
    :return: which one it was
    :raises ArchiveError: no submission of this recording is lost
    """
    number, claim = lost_claim(archive, fingerprint, now, attempt)
    archive.give_up(number, Stage.REFUSED, claim, Failure(None, "released by hand: it was not taken"), now)
    return number


def lost_claim(archive: Archive, fingerprint: str, now: datetime, attempt: int | None = None) -> tuple[int, Claim]:
    """Return the number and the claim of a lost submission, whatever became of the recording's other ones.

    :param attempt: which one, also if the recording was sent again over it on purpose; the newest that nobody has
        settled, if none is given
    :raises ArchiveError: there is none, or this one isn't lost
    """
    attempts = archive.attempts(fingerprint)
    if attempt is None:
        found = lost_attempts(attempts, now)
    else:
        found = [one for one in attempts if one.number == attempt and one.is_lost(now)]
    claim = archive.planned(fingerprint, found[0].number) if found else None
    if claim is None:
        which = "no lost submission" if attempt is None else f"no lost submission with the number {attempt}"
        story = ", ".join(_described(one, now) for one in attempts) or "nothing at all"
        raise ArchiveError(
            f"There is {which} under {fingerprint}. On record is {story}",
            hint="A claim that somebody may still be at counts as lost only when its lease is over"
            if any(one.is_live(now) for one in attempts)
            else "`airflow-speechkit archive verify` names those that are lost",
            retry_can_help=False,
        )
    return found[0].number, claim


def _described(attempt: Attempt, now: datetime) -> str:
    until = f" until {attempt.lease_expires_at:%H:%M:%S} UTC" if attempt.is_live(now) else ""
    return f"attempt {attempt.number} ({attempt.stage.value}{until})"
