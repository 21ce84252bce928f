"""One recording, paid for once: decide, claim, send, put on record."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from airflow_speechkit.archive.labels import SubmitLabels
from airflow_speechkit.archive.layout import OUTCOME_FILE, operation_file
from airflow_speechkit.archive.ledger import Action, AttemptState, Failure, Request, decide
from airflow_speechkit.archive.records import Claim
from airflow_speechkit.archive.submit_errors import (
    answer_missing,
    failed_before,
    lost_submission,
    not_on_record,
    refused_before,
)
from airflow_speechkit.archive.submit_rules import OnLostSubmission, Origin, SubmitOutcome, SubmitPolicy, SubmitStatus
from airflow_speechkit.errors import (
    ArchiveError,
    AuthenticationError,
    InvalidRequestError,
    OperationNotFoundError,
    RefusedError,
    SpeechKitError,
)
from airflow_speechkit.recordings.cost import CostLimit
from airflow_speechkit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.ledger import Attempt, Decision
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Recording, Submission
    from airflow_speechkit.settings import RecognitionSettings

log = logging.getLogger(__name__)

#: How often somebody else's claim is checked.
CHECK_CLAIM_EVERY = timedelta(seconds=5)

#: Pauses between attempts to put an accepted submission on record: it is worth more than a quick failure.
RECORD_RETRY = RetryPolicy(1.0, 20.0, give_up_failures=5)

_REUSED = {
    Action.JOIN: SubmitStatus.JOINED,
    Action.REUSE: SubmitStatus.REUSED,
    Action.SENT: SubmitStatus.SUBMITTED,
}


class Source(Protocol):
    """Reads recordings: `recordings.source.RecordingSource`."""

    def probe(self, recording: Recording) -> Recording:
        """Return the recording with what has to be read from it before it is sent."""

    def check_unchanged(self, recording: Recording) -> bytes | None:
        """Check that it is still the same version; return the bytes of a local file."""


class Service(Protocol):
    """Recognises recordings: `hooks.speechkit.SpeechKitHook`. It never repeats a submit that may have been accepted."""

    def submit(self, audio_uri: str, settings: RecognitionSettings) -> Operation:
        """Have a recording recognised, by its link."""

    def submit_inline(self, content: bytes, settings: RecognitionSettings) -> Operation:
        """Have a recording recognised, by its bytes."""

    def get_operation(self, operation_id: str) -> Operation:
        """Ask for an operation."""


class Step(Enum):
    """What a step of a job has come to."""

    ACCEPTED = "accepted"  #: the service has accepted the recording
    SENT = "sent"  #: a request went out, and was not accepted, as far as is known
    NOT_SENT = "not sent"  #: no request went out


@dataclass
class SubmitJob:
    """A recording that is being submitted.

    :param fingerprint: its place in the ledger
    :param places: where it stands among the recordings of the task
    :param recording: the recording
    :param attempts: what is on record of it
    :param decision: what has to be done about it
    :param is_paid: whether its cost was set aside
    :param faults: how often it was surely not accepted because the service was in trouble
    :param error: why the last request was not accepted, if the recording is sent again
    :param outcome: what became of it, in the end
    """

    fingerprint: str
    places: list[int]
    recording: Recording
    attempts: Sequence[Attempt] = ()
    decision: Decision | None = None
    is_paid: bool = False
    faults: int = 0
    error: SpeechKitError | None = None
    outcome: SubmitOutcome | None = None

    @property
    def has_to_be_sent(self) -> bool:
        """Whether the ledger leaves nothing else to do."""
        return self.decision is not None and self.decision.action is Action.SUBMIT

    def end(
        self, status: SubmitStatus, operation_id: str | None = None, *, error: SpeechKitError | None = None
    ) -> None:
        """Give it its outcome."""
        if error is not None:
            error.about_recording(self.recording.audio_uri)
        self.decision = None
        self.outcome = SubmitOutcome(
            recording=self.recording,
            fingerprint=self.fingerprint,
            status=status,
            operation_id=operation_id,
            error=error,
        )


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class SubmitWorker:
    """Takes jobs one step on at a time. Safe to share between threads, except for a job.

    :param archive: was probed
    :param source: reads recordings
    :param service: recognises them; blocks
    :param origin: who submits
    :param policy: how
    :param now: the time, UTC
    :param sleep: waits, in seconds
    """

    archive: Archive
    source: Source
    service: Service
    origin: Origin = field(default_factory=Origin)
    policy: SubmitPolicy = field(default_factory=SubmitPolicy)
    now: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self.labels = SubmitLabels(update=self.policy.labels_update, by=self.origin.scope or self.owner, now=self.now)
        self.cost_limit = CostLimit(None)
        self.request = Request(
            # Without a task instance there are no retries to give it back to.
            scope=self.origin.scope or uuid.uuid4().hex,
            reuse=self.policy.reuse,
            resubmit_lost=self.policy.on_lost_submission == OnLostSubmission.RESUBMIT,
        )

    def decide(self, job: SubmitJob, *, probe: bool = False) -> Step:
        """Decide what has to be done about a job, and end it if it needs no sending.

        :param probe: read the recording if it has to be sent
        :raises ArchiveError: the archive can't be read
        """
        try:
            job.decision = decision = self._decision(job)
            if decision.operation_id is not None:
                self.labels.put(self.archive, job.recording, decision.operation_id)
            if decision.action in _REUSED:
                job.end(_REUSED[decision.action], decision.operation_id)
            elif decision.action is Action.FAIL and decision.operation_id is None:
                job.end(SubmitStatus.REFUSED, error=refused_before(decision.failure))
            elif decision.action is Action.FAIL:
                operation_id = decision.operation_id or ""
                error = failed_before(self.archive.url, decision.failure, operation_id)
                job.end(SubmitStatus.FAILED, operation_id, error=error)
            elif decision.action is Action.LOST:
                self._end_lost(job, decision.attempt, decision.owner)
            elif decision.action is Action.SUBMIT and probe:
                self._probe(job)
        except ArchiveError:
            raise
        except SpeechKitError as error:
            job.end(SubmitStatus.REFUSED, error=error)
        return Step.NOT_SENT

    def send(self, job: SubmitJob) -> Step:
        """Claim and send a job, if it still has to be sent.

        :raises ArchiveError: the archive can't be read or written
        :raises AuthenticationError: the service refuses the credentials
        """
        # Nobody can have come in between as long as the first attempt is free to claim: what was claimed once stays
        # so, even if it is forgotten.
        if not job.has_to_be_sent or (job.decision is not None and job.decision.attempt > 1):
            self.decide(job)
        decision = job.decision
        if decision is None or decision.action is not Action.SUBMIT:
            return Step.NOT_SENT
        try:
            self._probe(job)
            if not job.is_paid:
                self.cost_limit.spend([job.recording])
                job.is_paid = True
        except ArchiveError:
            raise
        except SpeechKitError as error:
            job.end(SubmitStatus.REFUSED, error=error)
            return Step.NOT_SENT
        return self._claim_and_send(job, decision)

    def _probe(self, job: SubmitJob) -> None:
        if job.recording.channels is None:
            job.recording = self.source.probe(job.recording)

    def _decision(self, job: SubmitJob) -> Decision:
        missing = None
        while True:
            now = self.now()
            job.attempts = self.archive.attempts(job.fingerprint, refusals=self.request.since is not None)
            decision = decide(job.attempts, self.request, now)
            operation_id = decision.operation_id
            if operation_id is None:
                return decision
            if decision.action is Action.REUSE and self.archive.outcome(operation_id) is None:
                if missing == operation_id:
                    place = self.archive.folder.url_of(operation_file(operation_id, OUTCOME_FILE))
                    raise answer_missing(self.archive.url, place, operation_id, job.recording.audio_uri)
                # It may just have been forgotten: the ledger knows.
                missing = operation_id
                continue
            if decision.action is not Action.ASK:
                return decision
            try:
                self.service.get_operation(operation_id)
            except OperationNotFoundError:
                self.archive.expire(operation_id, now)
            else:
                return replace(decision, action=Action.JOIN)

    def _claim_and_send(self, job: SubmitJob, decision: Decision) -> Step:
        number, recording, claimed_at = decision.attempt, job.recording, self.now()
        claim = Claim(
            id=uuid.uuid4().hex,
            owner=self.owner,
            scope=self.request.scope,
            claimed_at=claimed_at,
            lease_expires_at=claimed_at + self.policy.lease,
            planned=self.origin.submission(recording, job.fingerprint, claimed_at),
            supersedes=decision.supersedes,
        )
        job.decision = None
        try:
            is_ours = self.archive.claim(number, claim)
        except ArchiveError:
            # It can be there although writing it ended in an error.
            with suppress(ArchiveError):
                if self.archive.is_held(number, claim):
                    why = "its claim could not be written, and nothing was sent"
                    self._give_up(number, AttemptState.REFUSED, claim, why)
            raise
        if not is_ours:
            # Somebody else's, which a listing that lags behind doesn't have yet.
            return Step.NOT_SENT
        doubt = self._doubt(claim)
        if doubt is not None:
            self._give_up(number, AttemptState.REFUSED, claim, doubt)
            return Step.NOT_SENT
        if claim.supersedes:
            log.warning(
                "%s may be paid for twice: attempt %s may have been accepted, with an unknown operation id. It is sent "
                "again, as attempt %d",
                recording.audio_uri,
                " and ".join(map(str, sorted(claim.supersedes))),
                number,
            )
        try:
            operation = self._send(recording)
        except SpeechKitError as error:
            return self._not_accepted(job, number, claim, error)
        submission = replace(claim.planned, operation_id=operation.id, submitted_at=self.now())
        self._record(number, claim, submission)
        job.end(SubmitStatus.SUBMITTED, operation.id)
        return Step.ACCEPTED

    def _send(self, recording: Recording) -> Operation:
        content = self.source.check_unchanged(recording)
        if content is None:
            return self.service.submit(recording.link, recording.settings)
        return self.service.submit_inline(content, recording.settings)

    def _not_accepted(self, job: SubmitJob, number: int, claim: Claim, error: SpeechKitError) -> Step:
        if error.may_have_been_accepted:
            self._give_up(number, AttemptState.LOST, claim, error)
            if self.request.resubmit_lost and not claim.supersedes:
                # The ledger has it as lost now, and the next step sends it in place of that.
                job.is_paid = False
            else:
                self._end_lost(job, number, self.owner, error)
            return Step.SENT
        self._give_up(number, AttemptState.REFUSED, claim, error)
        if isinstance(error, AuthenticationError):
            raise error
        # Of this recording alone, before anything went out.
        is_invalid = isinstance(error, InvalidRequestError)
        if error.retry_can_help and not is_invalid:
            job.error = error
        else:
            job.end(SubmitStatus.REFUSED, error=error)
        return Step.NOT_SENT if is_invalid else Step.SENT

    def _doubt(self, claim: Claim) -> str | None:
        """Return why nothing is to be sent although the claim is held."""
        if claim.supersedes:
            attempts = self.archive.attempts(claim.planned.fingerprint)
            if not {one.number for one in attempts if one.is_lost(self.now())}.issuperset(claim.supersedes):
                # Perhaps a person has just found the operation of one of them.
                return "what it was to be sent in place of was settled in the meantime"
        # Nothing may come between this and the sending.
        if self.now() - claim.claimed_at > self.policy.lease / 2:
            # A suspended machine: whoever waits for this claim would soon take it for lost.
            return "its claim was held up before anything was sent"
        return None

    def _give_up(self, number: int, state: AttemptState, claim: Claim, why: SpeechKitError | str) -> None:
        message = why.what if isinstance(why, SpeechKitError) else why
        final = state is AttemptState.REFUSED and isinstance(why, RefusedError) and not why.retry_can_help
        failure = Failure(getattr(why, "grpc_code", None), message, final=final)
        self.archive.give_up(number, state, claim, failure, self.now())

    def _record(self, number: int, claim: Claim, submission: Submission) -> None:
        for pause_s in (*RECORD_RETRY.pauses_s(), None):
            try:
                return self.archive.record_submission(number, claim.scope, submission, claim.supersedes)
            except ArchiveError as error:
                # First of all: if the process is killed while it waits, this line is the only trace.
                log.error(
                    "%s was accepted as operation %s (fingerprint %s, attempt %d), and that can't be recorded: %s",
                    submission.audio_uri,
                    submission.operation_id,
                    submission.fingerprint,
                    number,
                    error.what,
                )
                if pause_s is None:
                    raise not_on_record(submission, number, error, archive_url=self._archive_url) from error
                self.sleep(pause_s)

    def _end_lost(self, job: SubmitJob, number: int, owner: str | None, error: SpeechKitError | None = None) -> None:
        lost = lost_submission(
            job.fingerprint,
            number,
            owner,
            error,
            archive_url=self._archive_url,
            is_resent=self.request.resubmit_lost,
        )
        job.end(SubmitStatus.LOST, error=lost)

    @property
    def _archive_url(self) -> str | None:
        return None if self.policy.without_archive else self.archive.url
