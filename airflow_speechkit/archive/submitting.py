"""Recordings become operations, each paid for once: one after the other or thousands side by side."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING

from airflow_speechkit.archive.batch import (
    How,
    OnFailure,
    OnLostSubmission,
    Origin,
    SubmitPolicy,
    Visit,
    how_to_go_on,
    raise_failures,
)
from airflow_speechkit.archive.budget import Budget, bill
from airflow_speechkit.archive.claiming import Case, Claimant, NotYet
from airflow_speechkit.archive.labels import SubmitLabels
from airflow_speechkit.archive.ledger import Action, Failure, Request, fingerprint
from airflow_speechkit.archive.pace import Pace
from airflow_speechkit.archive.progress import Progress, found
from airflow_speechkit.errors import ArchiveError, QuotaExceededError, RecordingError, ServiceFaultError, SpeechKitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.batch import SubmitOutcome
    from airflow_speechkit.archive.run import RunRecord
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Recording
    from airflow_speechkit.settings import RecognitionSettings

log = logging.getLogger(__name__)

#: How many failed recordings are named one by one in the log.
_MOST_NAMED = 1000

#: How long somebody else's claim is left alone between two looks at it.
_LOOK_AGAIN = timedelta(seconds=5)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Submitter:
    """Makes operations of recordings: joins, reuses or submits, as the archive's ledger says.

    :param archive: has been probed
    :param send: hands one recording (its https link) to the service; blocks; must not send it again on its own
        account once it may have been taken
    :param origin: who submits
    :param policy: how
    :param prepare: reads what has to be known of a recording before it is sent (its format, its length); called side
        by side, and only for those that have to be sent
    :param ask: whether the service still has an operation that is older than results are kept; without it they are
        taken to be gone
    :param price_note: what a second costs with these settings, in words, where it isn't the usual price
    :param before: what the visits before this one have come to, if there were any
    :param now: the time, UTC
    :param sleep: waits, in seconds
    """

    archive: Archive
    send: Callable[[str, RecognitionSettings], Operation]
    origin: Origin = field(default_factory=Origin)
    policy: SubmitPolicy = field(default_factory=SubmitPolicy)
    prepare: Callable[[Recording], Recording] | None = None
    ask: Callable[[str], bool] | None = None
    price_note: Callable[[RecognitionSettings], str] = lambda _: ""
    before: RunRecord | None = None
    now: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        before = self.before
        self._pace = Pace(self.policy.submits_per_hour, before.refused_since if before else None)
        self._budget = Budget(self.policy.max_billed_seconds)
        self._last: list[Case] = []
        owner = f"{socket.gethostname()}:{os.getpid()}"
        self._labels = SubmitLabels(update=self.policy.labels_update, by=self.origin.scope or owner, now=self.now)
        self._claimant = Claimant(
            archive=self.archive,
            send=self.send,
            origin=self.origin,
            policy=self.policy,
            prepare=self.prepare,
            ask=self.ask,
            now=self.now,
            sleep=self.sleep,
            request=Request(
                # Without a task instance there are no retries to give it back to.
                scope=self.origin.scope or uuid.uuid4().hex,
                reuse=self.policy.reuse,
                resubmit_lost=self.policy.on_lost_submission == OnLostSubmission.RESUBMIT,
                since=before.began_at if before else None,
            ),
            owner=owner,
            budget=self._budget,
            labels=self._labels,
        )

    @property
    def concluded(self) -> list[SubmitOutcome]:
        """What became of the recordings of the last `submit` or `visit`, as far as it came."""
        return [replace(case.outcome, item=case.item) for case in self._last if case.outcome is not None]

    def submit(self, items: Sequence[Recording]) -> list[SubmitOutcome]:
        """Get every recording its operation. Killed at any point and started again, it goes on where it was.

        A recording that can't be submitted doesn't hold up the others; its outcome says why. What concerns all of
        them is raised: the archive, the credentials, the budget, a quota that stays used up, a service that can't be
        reached.

        :param items: the recordings; one that is there twice is paid for once
        :return: one for each item, in the same order
        :raises SpeechKitError: nothing more could be sent; a retry goes on from there
        """
        return self.visit(items, waits=True).outcomes

    def visit(self, items: Sequence[Recording], *, waits: bool = False) -> Visit:
        """Do as `submit` does, but return in place of waiting for the quota.

        The next visit, by another `Submitter`, is told what this one has come to (`before`). Only the first one looks
        at all recordings before it sends any, to check what they cost together.

        It is for the caller to say in the log how far it came.

        :param items: the recordings; in a later visit the same ones in the same order
        :param waits: wait for the quota after all
        :raises SpeechKitError: nothing more could be sent; a retry goes on from there
        """
        cases = self._last = self._cases(items)
        with ThreadPoolExecutor(self.policy.side_by_side, thread_name_prefix="speechkit-submit") as pool:
            try:
                self._look_up(pool, cases)
                next_at = self._work_off(pool, cases, waits=waits)
            except BaseException:
                # What is on its way still gets put on record; nothing else goes out.
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            finally:
                self._labels.log()
        by_place: list[SubmitOutcome | None] = [None] * len(items)
        for case in cases:
            for place in case.places:
                by_place[place] = case.outcome
        return Visit(
            items=items,
            by_place=by_place,
            left=sum(case.outcome is None for case in cases),
            next_at=next_at,
            refused_since=self._pace.refused_since,
            sent=self._pace.last_hour,
        )

    def _cases(self, items: Sequence[Recording]) -> list[Case]:
        cases: dict[str, Case] = {}
        before = self.before.by_place if self.before is not None else ()
        for place, (item, outcome) in enumerate(zip_longest(items, before)):
            mark = fingerprint(item.audio_uri, item.version, item.settings) if outcome is None else outcome.fingerprint
            if mark in cases:
                case = cases[mark]
                case.places.append(place)
                case.item = self._labels.joined(case.item, item)
                continue
            case = cases[mark] = Case(mark, [place], item, outcome=outcome)
            if outcome is not None:
                continue
            if item.error is not None:
                case.conclude(How.REFUSED, error=item.error)
            elif not item.version and not self.policy.allow_unversioned:
                error = RecordingError(
                    "The bucket gives this recording no ETag: if it is replaced nobody can tell",
                    recording=item.audio_uri,
                    hint="Set `allow_unversioned=True` if recordings under one address never change",
                )
                case.conclude(How.REFUSED, error=error)
        return list(cases.values())

    def _look_up(self, pool: ThreadPoolExecutor, cases: list[Case]) -> None:
        before = self.before
        look = self._claimant.look_up if before is None else self._claimant.decide
        for _ in pool.map(look, [case for case in cases if case.outcome is None]):
            pass
        sent = (one.submitted_at for case in cases for one in case.attempts if one.submitted_at is not None)
        self._pace.remember(sent if before is None else before.sent, self.now())
        if before is None:
            log.info("%s", found(cases, self._planned(cases)))
            return
        self._budget.spent(before.billed_seconds)

    def _planned(self, cases: list[Case]) -> str:
        to_send = [case for case in cases if _is_to_be_sent(case)]
        items = [case.item for case in to_send]
        self._budget.plan(items)
        for case in to_send:
            case.charged = True
        return bill(items, self.price_note)

    def _work_off(self, pool: ThreadPoolExecutor, cases: list[Case], *, waits: bool) -> datetime | None:
        # Only what has to be sent waits for the quota. Others' claims are looked at all the while.
        left = [case for case in cases if case.outcome is None]
        to_send = deque(case for case in left if _is_to_be_sent(case))
        to_look = deque(case for case in left if not _is_to_be_sent(case))
        later: list[tuple[datetime, Case]] = []
        looking: dict[Future[NotYet | None], Case] = {}
        sending: dict[Future[NotYet | None], Case] = {}
        progress = Progress(cases, self._pace, self.policy.progress_every, self.now())
        while to_send or to_look or later or looking or sending:
            now = self.now()
            to_look.extend(case for at, case in later if at <= now)
            later = [(at, case) for at, case in later if at > now]
            delay_s = self._pace.delay_s(now)
            if len(looking) + len(sending) < self.policy.side_by_side:
                if to_look:
                    case = to_look.popleft()
                    looking[pool.submit(self._look, case)] = case
                    continue
                # After a refusal one at a time finds out whether the service takes recordings again.
                if to_send and delay_s == 0 and not (sending and self._pace.refused_since):
                    case = to_send.popleft()
                    self._pace.sent(now)
                    sending[pool.submit(self._claimant.advance, case)] = case
                    continue
            progress.log(now)
            if not looking and not sending:
                next_at = self._pace.comes_back_at(len(to_send), now) if to_send and not waits else None
                if next_at is not None:
                    return next_at
                waits_s = [(at - now).total_seconds() for at, _ in later] + ([delay_s] if to_send else [])
                self.sleep(min(*waits_s, max(1.0, self.policy.progress_every.total_seconds())))
                continue
            for done in wait([*looking, *sending], timeout=1.0, return_when=FIRST_COMPLETED).done:
                was_to_be_sent = done in sending
                case = sending.pop(done) if was_to_be_sent else looking.pop(done)
                not_yet = done.result()
                if not_yet is None:
                    self._pace.accepted()
                    continue
                if was_to_be_sent and (not not_yet.sent or isinstance(not_yet.error, QuotaExceededError)):
                    self._pace.not_sent()
                if not_yet.error is not None:
                    self._not_taken(case, not_yet.error)
                if case.outcome is not None:
                    continue
                if not_yet.until is not None:
                    later.append((not_yet.until, case))
                elif not_yet.sent or _is_to_be_sent(case):
                    to_send.append(case)
                else:
                    to_look.append(case)
        if waits:
            progress.log(self.now(), last=True)
        return None

    def _look(self, case: Case) -> NotYet | None:
        """See what has become of somebody else's claim, in a thread of its own; nothing is sent."""
        decision = self._claimant.decide(case)
        if decision is None or decision.action is not Action.WAIT:
            return NotYet()
        return NotYet(until=min(decision.until or self.now(), self.now() + _LOOK_AGAIN))

    def _not_taken(self, case: Case, error: SpeechKitError) -> None:
        now, patience = self.now(), self.policy.patience
        if self._pace.is_beyond(patience, now):
            raise error
        if isinstance(error, QuotaExceededError):
            pause_s = self._pace.pause(now, error.retry_after_s, patience=patience, over_quota=True)
            if pause_s is not None:
                log.warning("The quota is used up: nothing goes out for %.0f seconds", pause_s)
            return
        case.faults += 1
        if case.faults < self.policy.tries:
            pause_s = self._pace.pause(now, patience=patience)
            if pause_s is not None:
                log.warning(
                    "The service is in trouble (%s): nothing goes out for %.0f seconds", type(error).__name__, pause_s
                )
        elif isinstance(error, ServiceFaultError):
            case.conclude(How.REFUSED, error=error)
        else:
            raise error

    def hand_on(self, outcomes: Sequence[SubmitOutcome], on_failure: OnFailure) -> list[str]:
        """Return the operation ids that go to whoever waits for the results, in the order of the recordings.

        What a retry of the task may mend is raised whatever `on_failure` says: that isn't the recording's fault. So is
        a lost submission: it may have been paid for, and a person has to look.

        :param outcomes: what `submit` gave
        :param on_failure: see `OnFailure`
        :raises SpeechKitError: the error itself where there is one, `SubmissionsFailedError` where there are several
        """
        failed = [one for one in outcomes if one.error is not None]
        errors = [one.error for one in outcomes if one.error is not None]
        if on_failure != OnFailure.FAIL:
            errors = _must_fail(failed)
        try:
            raise_failures(errors, of=len(outcomes))
        except SpeechKitError as error:
            if self.policy.without_archive:
                error.retry = "sends everything again, and pays again for what was taken: there is no archive"
            others = len({one.fingerprint for one in outcomes if one.error is None})
            if others and not _must_fail(failed) and not self.policy.without_archive:
                error.add_hint(f"{how_to_go_on(others)}.")
            error.add_hint(self._left_behind(outcomes))
            raise
        for one in failed[:_MOST_NAMED]:
            log.warning("%s: %s", "Skipped" if on_failure == OnFailure.SKIP else "On record as failed", one.error)
        if len(failed) > _MOST_NAMED:
            log.warning("… and %d more", len(failed) - _MOST_NAMED)
        if on_failure == OnFailure.SKIP:
            return [one.operation_id for one in outcomes if one.error is None and one.operation_id is not None]
        ids = [one.operation_id or self._refuse(one) for one in outcomes]
        self._labels.log()
        return ids

    def _left_behind(self, outcomes: Sequence[SubmitOutcome]) -> str:
        """Say what becomes of the operations that were accepted, and that a failed task hands on to nobody."""
        awaited = {one.operation_id for one in outcomes if one.is_awaited and one.operation_id}
        with ThreadPoolExecutor(self.policy.side_by_side, thread_name_prefix="speechkit-look") as pool:
            ended = pool.map(self._has_ended, awaited)
            accepted = [one for one, has_ended in zip(awaited, ended, strict=True) if not has_ended]
        if not accepted:
            return ""
        text = (
            f"{len(accepted):,} accepted operation{'' if len(accepted) == 1 else 's'} will be waited for by nobody "
            "while this task fails, and the service forgets results three days after the submission"
        )
        if self.policy.without_archive:
            return text
        return f"{text}: mend this, and run the task again in time. It hands them on, and pays for none of them twice"

    def _has_ended(self, operation_id: str) -> bool:
        try:
            return self.archive.outcome(operation_id) is not None
        except ArchiveError:
            return False

    def _refuse(self, outcome: SubmitOutcome) -> str:
        now = self.now()
        planned = self._claimant.planned(outcome.item, outcome.fingerprint, now)
        code = getattr(outcome.error, "grpc_code", None)
        message = outcome.error.what if outcome.error is not None else outcome.how.value
        operation_id = self.archive.refuse(planned, Failure(code, message), now)
        self._labels.put(self.archive, outcome.item, operation_id)
        return operation_id


def _is_to_be_sent(case: Case) -> bool:
    return case.decision is not None and case.decision.action is Action.SUBMIT


def _must_fail(failed: Sequence[SubmitOutcome]) -> list[SpeechKitError]:
    """Return what fails the task whatever becomes of recordings that can't be submitted."""
    return [one.error for one in failed if one.error is not None and (one.how is How.LOST or _passing(one.error))]


def _passing(error: SpeechKitError) -> bool:
    if isinstance(error, ServiceFaultError):
        # "Internal Server Error = check that the declared format matches the file" (the service's FAQ).
        return error.http_status != 500
    return error.retry_can_help
