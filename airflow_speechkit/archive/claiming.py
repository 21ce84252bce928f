"""One recording, paid for once: decide, claim, send, put on record."""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_speechkit.archive.batch import How, SubmitOutcome
from airflow_speechkit.archive.known_errors import answer_gone, failed_before, refused_before
from airflow_speechkit.archive.ledger import Action, AttemptState, Failure, decide
from airflow_speechkit.archive.records import Claim
from airflow_speechkit.errors import (
    ArchiveError,
    AuthenticationError,
    CostLimitExceededError,
    InvalidRequestError,
    RefusedError,
    SpeechKitError,
    SubmissionLostError,
)
from airflow_speechkit.models import Submission
from airflow_speechkit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.batch import Origin, SubmitPolicy
    from airflow_speechkit.archive.budget import Budget
    from airflow_speechkit.archive.labels import SubmitLabels
    from airflow_speechkit.archive.ledger import Attempt, Decision, Request
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Recording
    from airflow_speechkit.settings import RecognitionSettings

log = logging.getLogger(__name__)

#: How long somebody else's claim is left alone between two looks at it.
_LOOK_AGAIN = timedelta(seconds=5)

#: An accepted submission is worth more than a quick failure: how long to try to put it on record.
RECORD_RETRY = RetryPolicy(1.0, 20.0, give_up_failures=5)


@dataclass
class Case:
    """A recording on its way.

    :param fingerprint: its place in the ledger
    :param places: where it stands among what was given
    :param item: the recording
    :param attempts: what is on record of it
    :param decision: what is to be done about it
    :param prepared: whether what has to be known of it has been read
    :param charged: whether its cost has been set aside
    :param faults: how often it was surely not taken because the service was in trouble
    :param outcome: what became of it, at last
    """

    fingerprint: str
    places: list[int]
    item: Recording
    attempts: Sequence[Attempt] = ()
    decision: Decision | None = None
    prepared: bool = False
    charged: bool = False
    faults: int = 0
    outcome: SubmitOutcome | None = None

    def conclude(
        self,
        how: How,
        operation_id: str | None = None,
        *,
        error: SpeechKitError | None = None,
    ) -> None:
        """Give it its outcome."""
        if error is not None:
            error.about_recording(self.item.audio_uri)
        self.outcome = SubmitOutcome(
            item=self.item, fingerprint=self.fingerprint, how=how, operation_id=operation_id, error=error
        )


@dataclass(frozen=True)
class NotYet:
    """Nothing came of it this time.

    :param until: when to look again; at once without
    :param error: what the service answered in place of an operation, where the recording is to be sent again
    :param sent: whether something went out
    """

    until: datetime | None = None
    error: SpeechKitError | None = None
    sent: bool = False


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """Takes recordings one step on at a time. Safe to share between threads, but for the cases.

    The parameters are `Submitter`'s; and

    :param request: who asks, as the ledger wants it
    :param owner: this process, for people
    :param budget: what may still be spent
    :param labels: puts labels on record of recordings that have their operations already
    """

    archive: Archive
    send: Callable[[str, RecognitionSettings], Operation]
    origin: Origin
    policy: SubmitPolicy
    prepare: Callable[[Recording], Recording] | None
    ask: Callable[[str], bool] | None
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    request: Request
    owner: str
    budget: Budget
    labels: SubmitLabels

    def decide(self, case: Case) -> Decision | None:
        """Decide about a case; give it its outcome if it needs no sending."""
        case.decision = None
        try:
            decision = self._decision(case)
        except ArchiveError:
            raise
        except SpeechKitError as error:
            case.conclude(How.REFUSED, error=error)
            return None
        if decision.operation_id is not None:
            self.labels.put(self.archive, case.item, decision.operation_id)
        match decision.action:
            case Action.JOIN | Action.REUSE:
                case.conclude(How.JOINED if decision.action is Action.JOIN else How.REUSED, decision.operation_id)
            case Action.SENT:
                case.conclude(How.SUBMITTED, decision.operation_id)
            case Action.FAIL if decision.operation_id is None:
                case.conclude(How.REFUSED, error=refused_before(decision.failure))
            case Action.FAIL:
                failed = failed_before(self.archive, decision.failure, decision.operation_id or "")
                case.conclude(How.FAILED, decision.operation_id, error=failed)
            case Action.LOST:
                case.conclude(How.LOST, error=self._lost(case, decision.attempt, decision.owner))
            case _:
                case.decision = decision
        return case.decision

    def look_up(self, case: Case) -> None:
        """Decide about a case, and read what has to be known of it before it is sent."""
        decision = self.decide(case)
        if decision is not None and decision.action is Action.SUBMIT:
            self._get_ready(case)

    def _get_ready(self, case: Case) -> bool:
        try:
            if self.prepare is not None and not case.prepared:
                case.item = self.prepare(case.item)
                case.prepared = True
                if case.item.error is not None:
                    raise case.item.error
        except ArchiveError:
            raise
        except SpeechKitError as error:
            case.decision = None
            case.conclude(How.REFUSED, error=error)
            return False
        return True

    def _decision(self, case: Case) -> Decision:
        gone = None
        while True:
            now = self.now()
            case.attempts = self.archive.attempts(case.fingerprint, refusals=self.request.since is not None)
            decision = decide(case.attempts, self.request, now)
            if decision.operation_id is None:
                return decision
            if decision.action is Action.REUSE and self.archive.outcome(decision.operation_id) is None:
                if gone == decision.operation_id:
                    raise answer_gone(self.archive, gone, case.item.audio_uri)
                # It may just have been forgotten: the ledger knows.
                gone = decision.operation_id
                continue
            if decision.action is not Action.ASK:
                return decision
            if self.ask is not None and self.ask(decision.operation_id):
                return replace(decision, action=Action.JOIN)
            self.archive.expire(decision.operation_id, now)

    def advance(self, case: Case) -> NotYet | None:
        """Take a case one step on, in a thread of its own; None where something was sent and taken."""
        decision = case.decision
        # Nobody can have come in between as long as the first attempt is free to claim: what was claimed once stays
        # so, even if it is forgotten.
        if decision is None or decision.attempt > 1 or decision.action is not Action.SUBMIT:
            decision = self.decide(case)
        if decision is None:
            return NotYet()
        if decision.action is Action.WAIT:
            return NotYet(until=min(decision.until or self.now(), self.now() + _LOOK_AGAIN))
        return self._send(case, decision) if self._get_ready(case) else NotYet()

    def _send(self, case: Case, decision: Decision) -> NotYet | None:
        number = decision.attempt
        if not case.charged:
            try:
                self.budget.spend(case.item)
            except CostLimitExceededError as error:
                case.conclude(How.REFUSED, error=error)
                return NotYet()
            case.charged = True
        claimed_at = self.now()
        claim = Claim(
            id=uuid.uuid4().hex,
            owner=self.owner,
            scope=self.request.scope,
            claimed_at=claimed_at,
            lease_expires_at=claimed_at + self.policy.lease,
            planned=self.planned(case.item, case.fingerprint, claimed_at),
            supersedes=decision.supersedes,
        )
        case.decision = None
        try:
            is_ours = self.archive.claim(number, claim)
        except ArchiveError:
            self._withdraw(number, claim)
            raise
        if not is_ours:
            # Somebody else's, which a listing that lags behind doesn't have yet.
            return NotYet(until=self.now() + _LOOK_AGAIN)
        doubt = self._doubt(claim)
        if doubt is not None:
            self._give_up(number, AttemptState.REFUSED, claim, doubt)
            return NotYet()
        if claim.supersedes:
            log.warning(
                "%s may be paid for twice: it may have been taken as attempt %s, whose operation nobody knows. It is "
                "sent again, as attempt %d",
                case.item.audio_uri,
                " and ".join(map(str, sorted(claim.supersedes))),
                number,
            )
        try:
            operation = self.send(case.item.link, case.item.settings)
        except InvalidRequestError as error:
            # It is about this recording alone, and nothing went out.
            self._give_up(number, AttemptState.REFUSED, claim, error)
            case.conclude(How.REFUSED, error=error)
            return NotYet()
        except SpeechKitError as error:
            if error.may_have_been_accepted:
                return self._ambiguous(case, number, claim, error)
            self._give_up(number, AttemptState.REFUSED, claim, error)
            if isinstance(error, AuthenticationError):
                raise
            if error.retry_can_help:
                return NotYet(error=error, sent=True)
            case.conclude(How.REFUSED, error=error)
            return NotYet(sent=True)
        submission = replace(claim.planned, operation_id=operation.id, submitted_at=self.now())
        self._record(number, claim, submission)
        case.conclude(How.SUBMITTED, operation.id)
        return None

    def _doubt(self, claim: Claim) -> str | None:
        """Say why nothing is to be sent although the claim is held."""
        if claim.supersedes:
            attempts = self.archive.attempts(claim.planned.fingerprint)
            if not {one.number for one in attempts if one.is_lost(self.now())}.issuperset(claim.supersedes):
                # In the last moment a person has found the operation of one of them, perhaps.
                return "what it was to be sent over was settled in the meantime"
        # Nothing may come between this and the sending.
        if self.now() - claim.claimed_at > self.policy.lease / 2:
            # A suspended machine: whoever waits for this claim would soon take it for lost.
            return "its claim was held up before anything was sent"
        return None

    def _withdraw(self, number: int, claim: Claim) -> None:
        """Say that nothing was sent, where a claim is there although it could not be written to the end."""
        with suppress(ArchiveError):
            there = self.archive.planned(claim.planned.fingerprint, number)
            if there is not None and there.id == claim.id:
                self._give_up(
                    number, AttemptState.REFUSED, claim, "its claim could not be written, and nothing was sent"
                )

    def _ambiguous(self, case: Case, number: int, claim: Claim, error: SpeechKitError) -> NotYet:
        self._give_up(number, AttemptState.LOST, claim, error)
        if self.request.resubmit_lost and not claim.supersedes:
            # The next look at the ledger finds it lost, and sends it over that.
            case.charged = False
            return NotYet(sent=True)
        case.conclude(How.LOST, error=self._lost(case, number, self.owner, error))
        return NotYet(sent=True)

    def _give_up(self, number: int, stage: AttemptState, claim: Claim, why: SpeechKitError | str) -> None:
        message = why.what if isinstance(why, SpeechKitError) else why
        final = stage is AttemptState.REFUSED and isinstance(why, RefusedError) and not why.retry_can_help
        failure = Failure(getattr(why, "grpc_code", None), message, final=final)
        self.archive.give_up(number, stage, claim, failure, self.now())

    def _record(self, number: int, claim: Claim, submission: Submission) -> None:
        for pause_s in (*RECORD_RETRY.pauses_s(), None):
            try:
                self.archive.record_submission(number, claim.scope, submission, claim.supersedes)
            except ArchiveError as error:
                # Before anything else: killed while it waits, or one of many that fail, this line is all there is.
                log.error(
                    "%s was taken as operation %s (fingerprint %s, attempt %d), and that can't be put on record: %s",
                    submission.audio_uri,
                    submission.operation_id,
                    submission.fingerprint,
                    number,
                    error.what,
                )
                if pause_s is not None:
                    self.sleep(pause_s)
                    continue
                raise ArchiveError(
                    f"The service has taken the recording, and that can't be put on record: {error.what}",
                    recording=submission.audio_uri,
                    operation_id=submission.operation_id,
                    hint="Hand that operation id to the sensor yourself"
                    if self.policy.without_archive
                    else "Once the archive can be written: airflow-speechkit archive adopt "
                    f"{submission.fingerprint} {submission.operation_id} --archive {self.archive.url} "
                    f"--attempt {number}",
                    retry="sends it again, and pays again: there is no archive"
                    if self.policy.without_archive
                    else "takes it for a lost submission until then",
                    retry_can_help=False,
                ) from error
            return

    def planned(self, item: Recording, mark: str, now: datetime) -> Submission:
        """Return a submission as it will be, still without an operation id."""
        return Submission(
            operation_id="",
            fingerprint=mark,
            audio_uri=item.audio_uri,
            settings=item.settings,
            submitted_at=now,
            etag=item.version,
            size_bytes=item.size_bytes,
            duration_ms=item.duration_ms,
            channels=item.channels,
            billed_seconds=item.billed_seconds,
            labels=item.labels,
            speechkit_conn_id=self.origin.speechkit_conn_id,
            dag_id=self.origin.dag_id,
            run_id=self.origin.run_id,
            task_id=self.origin.task_id,
            map_index=self.origin.map_index,
        )

    def _lost(self, case: Case, number: int, owner: str | None, error: SpeechKitError | None = None) -> SpeechKitError:
        if self.policy.without_archive:
            hint = (
                "The service has no list of operations, and there is no archive that would remember this one: look for "
                "the seconds in the folder's billing before anything else"
            )
            retry = "sends it again, and pays again if it was taken"
        else:
            command = "airflow-speechkit archive {} " + f"--attempt {number} --archive {self.archive.url}"
            again = (
                "This task instance has sent it again once already, as on_lost_submission='resubmit' says"
                if self.request.resubmit_lost
                else "To send it again and perhaps pay twice: on_lost_submission='resubmit'"
            )
            hint = (
                "The service has no list of operations: look for the id in that process's log, or for the seconds in "
                f"the folder's billing. With the id: `{command.format(f'adopt {case.fingerprint} OPERATION_ID')}`; if "
                f"it surely wasn't taken: `{command.format(f'release {case.fingerprint}')}`. {again}"
            )
            retry = "says the same until one of these is done"
        return SubmissionLostError(
            "The service may have taken this recording, but the operation's id never came back"
            f" (attempt {number}, by {owner or 'a process that is gone'}{f': {error.what}' if error else ''})",
            recording=case.item.audio_uri,
            hint=hint,
            retry=retry,
            retry_can_help=False,
            request_id=error.request_id if error else None,
            server_trace_id=error.server_trace_id if error else None,
        )
