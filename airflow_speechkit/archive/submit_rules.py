"""How recordings are submitted, and what becomes of them: facts, and the errors of a task. No I/O."""

from __future__ import annotations

import json
import shlex
from copy import copy
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Protocol

from airflow_speechkit.archive.ledger import Action, Failure
from airflow_speechkit.errors import ServiceFaultError, SubmissionsFailedError
from airflow_speechkit.models import Recording, Submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.ledger import Attempt, Decision
    from airflow_speechkit.errors import SpeechKitError
    from airflow_speechkit.settings import RecognitionSettings

#: What a submission takes over from its recording.
_FACTS = {one.name for one in fields(Recording)} & {one.name for one in fields(Submission)}


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
        """The name of the task instance, the same in all its tries; None without one."""
        if self.dag_id is None:
            return None
        return json.dumps([self.dag_id, self.run_id, self.task_id, self.map_index], ensure_ascii=False)

    def submission(self, recording: Recording, fingerprint: str, now: datetime) -> Submission:
        """Return the submission of a recording, still without an operation id.

        :param fingerprint: of the recording with its settings
        :param now: UTC
        """
        return Submission(
            operation_id="",
            fingerprint=fingerprint,
            submitted_at=now,
            etag=recording.version,
            submitted_uri=recording.submitted_uri,
            paired_uri=recording.paired_uri,
            **{name: getattr(recording, name) for name in _FACTS},
            **asdict(self),
        )


class OnLostSubmission(StrEnum):
    """What to do about a request that the service may have accepted, and whose operation id never came back."""

    FAIL = "fail"  #: the recording has no operation until a person settles it
    RESUBMIT = "resubmit"  #: it is sent again, once for each task instance, and may be paid for twice


class OnFailure(StrEnum):
    """What a recording that can't be submitted does to the task."""

    FAIL = "fail"  #: the task fails, after all the others were submitted
    SKIP = "skip"  #: it is left out of the returned ids
    RECORD = "record"  #: a synthetic id is returned, which brings its error into `recognitions`


class OnFiltered(StrEnum):
    """What becomes of a recording that is left out."""

    SKIP = "skip"  #: it is left out of the returned ids
    RECORD = "record"  #: a synthetic id is returned, which brings its reason into `recognitions`


@dataclass(frozen=True, kw_only=True)
class SubmitPolicy:
    """How to submit.

    :param reuse: use operations that are paid for already; ``False`` pays again, once for each task instance
    :param on_lost_submission: see `OnLostSubmission`
    :param allow_unversioned: accept recordings without an ETag; one address then means one recording, for ever
    :param max_billed_seconds: nothing is sent if all that has to be sent costs more
    :param submits_per_hour: the folder's quota
    :param concurrency: how many requests at once
    :param lease: how long others wait for the operation id of a claim; longer than any submit takes
    :param patience: how long the service may refuse all requests before the task fails
    :param attempts: how often a recording is sent that the service, in trouble, has surely not accepted
    :param labels_update: replace labels that are on record; without it only missing ones are added
    :param on_filtered: see `OnFiltered`
    :param without_archive: the archive is temporary: no retry and no person can read it
    :param split: what is longer than the service takes is submitted in parts
    """

    reuse: bool = True
    on_lost_submission: OnLostSubmission = OnLostSubmission.FAIL
    allow_unversioned: bool = False
    max_billed_seconds: int | None = None
    submits_per_hour: int = 500
    concurrency: int = 8
    lease: timedelta = timedelta(minutes=10)
    patience: timedelta = timedelta(hours=2)
    attempts: int = 4
    labels_update: bool = False
    on_filtered: OnFiltered = OnFiltered.SKIP
    without_archive: bool = False
    split: bool = False


class SubmitStatus(StrEnum):
    """How a recording came by its operation, or why it has none."""

    SUBMITTED = "submitted"  #: it was sent, and is paid for
    JOINED = "joined"  #: its operation was there, and is running
    REUSED = "reused"  #: its answer is archived
    FAILED = "failed"  #: its operation failed, and would fail again
    REFUSED = "refused"  #: it can't be sent, or the service refused it
    FILTERED = "filtered"  #: it is left out, and was not sent
    LOST = "lost"  #: the service may have accepted it, and its operation is unknown


@dataclass(frozen=True, kw_only=True)
class SubmitOutcome:
    """What became of one recording.

    :param recording: the recording
    :param fingerprint: its place in the ledger; empty as long as there is no outcome
    :param status: what became of it; None where nothing has yet
    :param operation_id: its operation, where it has one
    :param error: why it has none, or how that one failed
    """

    recording: Recording
    fingerprint: str = ""
    status: SubmitStatus | None = None
    operation_id: str | None = None
    error: SpeechKitError | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether its operation has to be waited for."""
        return self.operation_id is not None and self.status in (SubmitStatus.SUBMITTED, SubmitStatus.JOINED)

    @property
    def must_fail(self) -> bool:
        """Whether it fails the task with any `OnFailure`.

        A lost submission may have been paid for, and a person has to settle it. What a retry of the task may solve
        isn't the recording's fault.
        """
        if self.error is None or self.status is SubmitStatus.LOST:
            return self.error is not None
        if isinstance(self.error, ServiceFaultError):
            # "Internal Server Error = check that the declared format matches the file" (the service's FAQ).
            return self.error.http_status != 500
        return self.error.retry_can_help


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


@dataclass(eq=False)
class SubmitJob:
    """A recording that is being submitted.

    :param fingerprint: its place in the ledger
    :param recording: the recording
    :param others: recordings of the task with the same bytes, by their addresses
    :param attempts: what is on record of it
    :param decision: what has to be done about it
    :param is_paid: whether its cost was set aside
    :param faults: how often it was surely not accepted because the service was in trouble
    :param error: why the last request was not accepted, if the recording is sent again
    :param outcome: what became of it, in the end
    """

    fingerprint: str
    recording: Recording
    others: dict[str, Recording] = field(default_factory=dict)
    attempts: Sequence[Attempt] = ()
    decision: Decision | None = None
    is_paid: bool = False
    faults: int = 0
    error: SpeechKitError | None = None
    outcome: SubmitOutcome | None = None

    @property
    def recordings(self) -> list[Recording]:
        """Its recording, and those with the same bytes."""
        return [self.recording, *self.others.values()]

    def outcome_of(self, recording: Recording) -> SubmitOutcome | None:
        """Return its outcome as that of one of its recordings."""
        other = self.others.get(recording.audio_uri)
        if self.outcome is None or other is None:
            return self.outcome
        own = {name: getattr(other, name) for name in ("audio_uri", "version", "address", "other", "link", "labels")}
        error = copy(self.outcome.error)
        if error is not None and error.recording == self.recording.audio_uri:
            error.recording = other.audio_uri
        return replace(self.outcome, recording=replace(self.outcome.recording, **own), error=error)

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


def failure_of(error: SpeechKitError) -> Failure:
    """Return what the archive keeps of an error."""
    return Failure(getattr(error, "grpc_code", None), error.what)


def forget_command(archive_url: str, operation_id: str) -> str:
    """Return the command after which the next submit sends an operation's recording, and pays for it, again."""
    return f"`airflow-speechkit archive forget {operation_id} --archive {shlex.quote(archive_url)}`"


def would_fail_again(archive_url: str, operation_id: str) -> str:
    """Return the hint for an operation that failed because of what was submitted."""
    return (
        "It would fail again, so it isn't submitted again: correct the recording or the settings. If you want it "
        f"submitted, and paid for, again as it is, run {forget_command(archive_url, operation_id)}, then clear the "
        "task that submits it"
    )


def other_recordings(count: int) -> str:
    """Return the hint for a task that fails for some of its recordings, about the others.

    :param count: how many others there are
    """
    return (
        f"The others ({count:,}) are in the archive, and are not paid for again. on_failure='record' returns them, and "
        "makes rows with status='refused' or 'failed' of what has no result; on_failure='skip' leaves that out"
    )


def error_of(
    outcomes: Sequence[SubmitOutcome], on_failure: OnFailure, *, without_archive: bool = False
) -> SpeechKitError | None:
    """Return the error that a task fails with; None where it doesn't.

    :param outcomes: what became of all its recordings
    :param on_failure: what those do that can't be submitted
    :param without_archive: whether there is no archive
    :return: the error of the recording where there is one, `SubmissionsFailedError` where there are several
    """
    must_fail = [one.error for one in outcomes if one.error is not None and one.must_fail]
    every = [one.error for one in outcomes if one.error is not None]
    errors = every if on_failure is OnFailure.FAIL else must_fail
    if not errors:
        return None
    error = errors[0] if len(errors) == 1 else SubmissionsFailedError.of(errors, len(outcomes))
    others = len({one.fingerprint for one in outcomes if one.error is None and one.operation_id is not None})
    if without_archive:
        error.retry = "submits everything again and pays again for what was accepted: there is no archive"
    elif others and not must_fail:
        error.add_hint(f"{other_recordings(others)}.")
    return error
