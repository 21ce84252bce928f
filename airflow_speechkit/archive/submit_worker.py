"""One recording, paid for once: decide, claim, send, put on record."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from airflow_speechkit.archive import identity
from airflow_speechkit.archive.labels import SubmitLabels
from airflow_speechkit.archive.layout import OUTCOME_FILE, damage, operation_file
from airflow_speechkit.archive.ledger import Action, AttemptState, Failure, Request, decide
from airflow_speechkit.archive.records import Claim
from airflow_speechkit.archive.submit_rules import (
    OnLostSubmission,
    Origin,
    Step,
    SubmitJob,
    SubmitPolicy,
    SubmitStatus,
    failure_of,
    forget_command,
    would_fail_again,
)
from airflow_speechkit.errors import (
    ArchiveError,
    AuthenticationError,
    InvalidRequestError,
    OperationNotFoundError,
    RecognitionFailedError,
    RecordingError,
    SpeechKitError,
    SubmissionLostError,
)
from airflow_speechkit.recordings.cost import CostLimit
from airflow_speechkit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.ledger import Decision
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.archive.submit_rules import Service
    from airflow_speechkit.models import Recording, Submission
    from airflow_speechkit.recordings.source import RecordingSource

log = logging.getLogger(__name__)

#: Pauses between attempts to put an accepted submission on record: it is worth more than a quick failure.
RECORD_RETRY = RetryPolicy(1.0, 20.0, give_up_failures=5)

_REUSED = {Action.JOIN: SubmitStatus.JOINED, Action.REUSE: SubmitStatus.REUSED, Action.SENT: SubmitStatus.SUBMITTED}

_utc_now = partial(datetime.now, UTC)


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
    source: RecordingSource
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
                for recording in job.recordings:
                    self.put_on_record(recording, job.fingerprint, decision.operation_id)
            if decision.action in _REUSED:
                job.end(_REUSED[decision.action], decision.operation_id)
            elif decision.action is Action.FAIL:
                self._end_failed(job, decision)
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
        # No other process can have claimed the recording while the first attempt is free: a claimed attempt stays
        # claimed, even if it is deleted.
        if not job.has_to_be_sent or (job.decision is not None and job.decision.attempt > 1):
            self.decide(job)
        decision = job.decision
        if decision is None or decision.action is not Action.SUBMIT:
            return Step.NOT_SENT
        try:
            self._probe(job)
            if job.outcome is not None:
                return Step.NOT_SENT
            if job.recording.parts:
                # Until now another process was submitting the whole.
                raise RecordingError("It has to be submitted in parts", retry="does so", retry_can_help=True)
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
        """Read the recording of a job that has to be sent, and end the job if it is left out."""
        recording = job.recording
        if recording.channels is None:
            if self.policy.split and recording.part is None:
                recording = replace(recording, starts_ms=identity.recorded_cut(self.archive, job.fingerprint))
            job.recording = self.source.probe(recording)
        if job.recording.filter_reason is not None:
            job.end(SubmitStatus.FILTERED)

    def put_on_record(self, recording: Recording, fingerprint: str, operation_id: str) -> None:
        """Put on record what a recording adds to its operation: its labels, and its address if that is another one.

        :param fingerprint: its place in the ledger
        :raises ArchiveError: the archive can't be read or written
        """
        is_other = recording.content_hash is not None and identity.share(
            self.archive, self.origin.submission(recording, fingerprint, self.now()), operation_id
        )
        if recording.labels or is_other:
            about = identity.recognition_id(operation_id, recording.audio_uri) if is_other else operation_id
            self.labels.put(self.archive, recording, about)

    def _decision(self, job: SubmitJob) -> Decision:
        decision = self._decision_under(job, job.fingerprint)
        if decision.action is not Action.SUBMIT or job.recording.content_hash is None:
            return decision
        # What was submitted by its address is paid for, too.
        attempts = job.attempts
        for other in identity.fingerprints_by_address(self.archive, job.fingerprint, job.recordings):
            known = self._decision_under(job, other)
            if known.operation_id is not None:
                identity.remember_fingerprint(self.archive, job.fingerprint, other)
            if known.action is Action.LOST:
                # The one to adopt or release.
                job.fingerprint = other
            if known.action is not Action.SUBMIT:
                return known
        job.attempts = attempts
        return decision

    def _decision_under(self, job: SubmitJob, fingerprint: str) -> Decision:
        missing = None
        while True:
            now = self.now()
            job.attempts = self.archive.attempts(fingerprint)
            decision = decide(job.attempts, self.request, now)
            operation_id = decision.operation_id
            if operation_id is None:
                return decision
            if decision.action is Action.REUSE and self.archive.outcome(operation_id) is None:
                if missing == operation_id:
                    place = self.archive.folder.url_of(operation_file(operation_id, OUTCOME_FILE))
                    raise damage(
                        f"According to the ledger the answer to this recording is archived, but {place} is missing",
                        "Restore that folder from a backup; or, to submit the recording again and pay for it again: "
                        f"{forget_command(self.archive.url, operation_id)}",
                        operation_id=operation_id,
                        recording=job.recording.audio_uri,
                    )
                # It may just have been deleted, which is in the ledger.
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
                    why = Failure(None, "its claim could not be written, and nothing was sent")
                    self.archive.give_up(number, AttemptState.REFUSED, claim, why, self.now())
            raise
        if not is_ours:
            # Another process's, which a listing that lags behind doesn't have yet.
            return Step.NOT_SENT
        doubt = self._doubt(claim)
        if doubt is not None:
            self.archive.give_up(number, AttemptState.REFUSED, claim, doubt, self.now())
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
        for other in job.others.values():
            self.put_on_record(other, job.fingerprint, operation.id)
        job.end(SubmitStatus.SUBMITTED, operation.id)
        return Step.ACCEPTED

    def _send(self, recording: Recording) -> Operation:
        content = self.source.check_unchanged(recording)
        if content is None:
            return self.service.submit(recording.link, recording.settings)
        return self.service.submit_inline(content, recording.settings)

    def _not_accepted(self, job: SubmitJob, number: int, claim: Claim, error: SpeechKitError) -> Step:
        if error.may_have_been_accepted:
            self.archive.give_up(number, AttemptState.LOST, claim, failure_of(error), self.now())
            if self.request.resubmit_lost and not claim.supersedes:
                # The ledger has it as lost now, and the next step sends it in place of that.
                job.is_paid = False
            else:
                self._end_lost(job, number, self.owner, error)
            return Step.SENT
        self.archive.give_up(number, AttemptState.REFUSED, claim, failure_of(error), self.now())
        if isinstance(error, AuthenticationError):
            raise error
        # Of this recording alone, before anything went out.
        is_invalid = isinstance(error, InvalidRequestError)
        if error.retry_can_help and not is_invalid:
            job.error = error
        else:
            job.end(SubmitStatus.REFUSED, error=error)
        return Step.NOT_SENT if is_invalid else Step.SENT

    def _doubt(self, claim: Claim) -> Failure | None:
        """Return why nothing is to be sent although the claim is held."""
        if claim.supersedes:
            attempts = self.archive.attempts(claim.planned.fingerprint)
            if not {one.number for one in attempts if one.is_lost(self.now())}.issuperset(claim.supersedes):
                # Perhaps a person has just found the operation of one of them.
                return Failure(None, "what it was to be sent in place of was settled in the meantime")
        # Nothing may come between this and the sending.
        if self.now() - claim.claimed_at > self.policy.lease / 2:
            # A suspended machine: processes that wait for this claim would soon take it for lost.
            return Failure(None, "its claim was held up before anything was sent")
        return None

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
                    raise self._not_on_record(submission, number, error) from error
                self.sleep(pause_s)

    def _not_on_record(self, submission: Submission, number: int, error: ArchiveError) -> ArchiveError:
        hint, retry = "Give that operation id to a SpeechKitRecognitionSensor", "pays again: there is no archive"
        if not self.policy.without_archive:
            hint = (
                f"Once the archive can be written: airflow-speechkit archive adopt {submission.fingerprint} "
                f"{submission.operation_id} --archive {self.archive.url} --attempt {number}"
            )
            retry = "treats it as a lost submission until then"
        return ArchiveError(
            f"The service has accepted the recording, and that can't be put on record: {error.what}",
            recording=submission.audio_uri,
            operation_id=submission.operation_id,
            hint=hint,
            retry=retry,
            retry_can_help=False,
        )

    def _end_failed(self, job: SubmitJob, decision: Decision) -> None:
        failure, operation_id = decision.failure or Failure(None, "no reason is on record"), decision.operation_id or ""
        failed = RecognitionFailedError(
            f"This recording was submitted before, and failed: {failure.message} (code {failure.code})",
            code=failure.code,
            message=failure.message,
            operation_id=operation_id,
            hint=would_fail_again(self.archive.url, operation_id),
            retry="fails here at once and costs nothing",
        )
        job.end(SubmitStatus.FAILED, operation_id, error=failed)

    def _end_lost(self, job: SubmitJob, number: int, owner: str | None, error: SpeechKitError | None = None) -> None:
        hint = "The service has no list of operations: look for the id in that process's log or the folder's billing"
        retry = "sends it again, and pays again if it was accepted"
        if not self.policy.without_archive:
            command, options = "airflow-speechkit archive", f"--attempt {number} --archive {self.archive.url}"
            hint += (
                f". With the id: `{command} adopt {job.fingerprint} OPERATION_ID {options}`; if it surely wasn't "
                f"accepted: `{command} release {job.fingerprint} {options}`. on_lost_submission='resubmit' sends it "
                "again, once for each task instance, and perhaps pays twice"
            )
            retry = "fails in the same way until one of these is done"
        reason = "" if error is None else f": {error.what}"
        lost = SubmissionLostError(
            "The service may have accepted this recording, but the operation's id never came back "
            f"(attempt {number}, by {owner or 'an unknown process'}{reason})",
            hint=hint,
            retry=retry,
            retry_can_help=False,
            request_id=getattr(error, "request_id", None),
            server_trace_id=getattr(error, "server_trace_id", None),
        )
        job.end(SubmitStatus.LOST, error=lost)
