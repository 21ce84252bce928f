"""What a person can say about a submission that is lost: here is its operation, or: it was never taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_speechkit.archive.ledger import Action, Failure, Request, Stage, decide
from airflow_speechkit.errors import ArchiveError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_speechkit.archive.records import Claim
    from airflow_speechkit.archive.store import Archive


def adopt(archive: Archive, fingerprint: str, operation_id: str, *, now: datetime) -> None:
    """Put the operation of a lost submission on record, as if its id had come back.

    :raises ArchiveError: no submission of this recording is lost
    """
    number, claim = lost_claim(archive, fingerprint, now)
    archive.record_submission(number, claim.scope, replace(claim.planned, operation_id=operation_id))


def release(archive: Archive, fingerprint: str, *, now: datetime) -> None:
    """Put on record that a lost submission was surely not taken: the next run sends it again.

    :raises ArchiveError: no submission of this recording is lost
    """
    number, claim = lost_claim(archive, fingerprint, now)
    archive.give_up(number, Stage.REFUSED, claim, Failure(None, "released by hand: it was not taken"), now)


def lost_claim(archive: Archive, fingerprint: str, now: datetime) -> tuple[int, Claim]:
    """Return the attempt and the claim of a lost submission.

    :raises ArchiveError: no submission of this recording is lost
    """
    decision = decide(archive.attempts(fingerprint), Request(scope=""), now)
    claim = archive.planned(fingerprint, decision.attempt) if decision.action is Action.LOST else None
    if claim is None:
        raise ArchiveError(
            f"There is no lost submission under {fingerprint}: the ledger says {decision.action}",
            todo="A claim that somebody may still be at counts as lost only when its lease is over"
            if decision.action is Action.WAIT
            else None,
        )
    return decision.attempt, claim
