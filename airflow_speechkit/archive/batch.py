"""Recordings on their way to the service, and what becomes of each: the facts and rules, without any I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SubmissionsFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.errors import SpeechKitError
    from airflow_speechkit.models import Recording


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who submits: the connection, and the task instance where there is one."""

    speechkit_conn_id: str | None = None
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None

    @property
    def scope(self) -> str | None:
        """What stays the same over all tries of a task instance, and names no other one."""
        if self.dag_id is None:
            return None
        return json.dumps([self.dag_id, self.run_id, self.task_id, self.map_index], ensure_ascii=False)


class OnLostSubmission(StrEnum):
    """What to do about a request that may have been taken, and whose operation id never came back."""

    FAIL = "fail"  #: this recording has no operation until a person has settled it
    RESUBMIT = "resubmit"  #: it is sent again, once for each task instance, and may be paid for twice


class OnFailure(StrEnum):
    """What becomes of the task when a recording can't be submitted."""

    FAIL = "fail"  #: the task fails, after all the others have been submitted
    SKIP = "skip"  #: it is left out of what is handed on
    RECORD = "record"  #: an id that stands for it is handed on, and brings its error into `recognitions`


@dataclass(frozen=True, kw_only=True)
class SubmitPolicy:
    """How to go about it.

    :param reuse: whether what has been paid for before will do; ``False`` pays again, once for each task instance
    :param on_lost_submission: see `OnLostSubmission`
    :param allow_unversioned: take recordings without an ETag: one address is one recording then, for ever
    :param max_billed_seconds: nothing is sent if all that would have to be sent costs more
    :param submits_per_hour: the folder's quota
    :param side_by_side: how many requests at once
    :param lease: how long others wait for the operation id of a claim; longer than any submit takes
    :param patience: how long the service may refuse for its quota before the task gives up
    :param tries: how often a recording is sent that the service, in trouble, has surely not taken
    :param progress_every: the least time between two lines of progress in the log
    :param labels_update: whether labels replace others that are on record; without it they only add what is missing
    :param without_archive: the archive is a throw-away one: nothing of it is left for a retry, or for a person
    """

    reuse: bool = True
    on_lost_submission: OnLostSubmission = OnLostSubmission.FAIL
    allow_unversioned: bool = False
    max_billed_seconds: int | None = None
    submits_per_hour: int = 500
    side_by_side: int = 8
    lease: timedelta = timedelta(minutes=10)
    patience: timedelta = timedelta(hours=2)
    tries: int = 4
    progress_every: timedelta = timedelta(minutes=1)
    labels_update: bool = False
    without_archive: bool = False


class How(StrEnum):
    """How a recording came by its operation, or why it has none."""

    SUBMITTED = "submitted"  #: it was sent, and is paid for
    JOINED = "joined"  #: its operation runs already
    REUSED = "reused"  #: its answer is archived
    FAILED = "failed"  #: its operation failed, and would only fail again
    REFUSED = "refused"  #: it can't be sent, or the service said no
    LOST = "lost"  #: it may have been taken, but nobody knows its operation


@dataclass(frozen=True, kw_only=True)
class SubmitOutcome:
    """What became of one recording.

    :param item: the recording, as it was given
    :param fingerprint: its place in the ledger
    :param how: what became of it
    :param operation_id: its operation, where it has one
    :param error: why it has none, or what that one ended in
    """

    item: Recording
    fingerprint: str
    how: How
    operation_id: str | None = None
    error: SpeechKitError | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether somebody has to wait for its operation."""
        return self.how in (How.SUBMITTED, How.JOINED)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What became of recordings by the time when a task that doesn't wait for the quota stops.

    :param items: the recordings
    :param by_place: what became of each; None where nothing has yet
    :param left: how many recordings have no outcome yet
    :param next_at: when to go on with those; None where none is left
    :param refused_since: since when the service has taken nothing, if it didn't take the last one
    :param sent: when something went out within the last hour
    """

    items: Sequence[Recording]
    by_place: list[SubmitOutcome | None]
    left: int
    next_at: datetime | None
    refused_since: datetime | None
    sent: Sequence[datetime] = ()

    @property
    def outcomes(self) -> list[SubmitOutcome]:
        """What became of those that have an outcome, in the order of the recordings."""
        return [one for one in self.by_place if one is not None]


def how_to_go_on(others: int) -> str:
    """Say how a task that fails for some of its recordings hands on the others all the same.

    :param others: how many those are
    """
    those, them = (f"The other {others:,} are", "them") if others > 1 else ("The other one is", "it")
    return (
        f"{those} in the archive, and nobody pays for {them} again. on_failure='record' hands {them} on, and makes "
        "rows with status='refused' or 'failed' of what has no result; on_failure='skip' leaves that out"
    )


def raise_failures(errors: Sequence[SpeechKitError], *, of: int) -> None:
    """Raise what went wrong, if anything did.

    :param errors: what went wrong
    :param of: how many recordings there were
    :raises SpeechKitError: the error itself where there is one, `SubmissionsFailedError` where there are several
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SubmissionsFailedError(errors, of=of)
