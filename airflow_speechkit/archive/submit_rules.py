"""How recordings are submitted, and what becomes of them: facts, without any I/O."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import ServiceFaultError
from airflow_speechkit.models import Submission

if TYPE_CHECKING:
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
            audio_uri=recording.audio_uri,
            settings=recording.settings,
            submitted_at=now,
            etag=recording.version,
            size_bytes=recording.size_bytes,
            duration_ms=recording.duration_ms,
            channels=recording.channels,
            billed_seconds=recording.billed_seconds,
            labels=recording.labels,
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
    :param without_archive: the archive is temporary: no retry and no person can read it
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
    without_archive: bool = False


class SubmitStatus(StrEnum):
    """How a recording came by its operation, or why it has none."""

    SUBMITTED = "submitted"  #: it was sent, and is paid for
    JOINED = "joined"  #: its operation was there, and is running
    REUSED = "reused"  #: its answer is archived
    FAILED = "failed"  #: its operation failed, and would fail again
    REFUSED = "refused"  #: it can't be sent, or the service refused it
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
        """Whether it fails the task whatever `OnFailure` says.

        A lost submission may have been paid for, and a person has to settle it. What a retry of the task may solve
        isn't the recording's fault.
        """
        if self.error is None or self.status is SubmitStatus.LOST:
            return self.error is not None
        if isinstance(self.error, ServiceFaultError):
            # "Internal Server Error = check that the declared format matches the file" (the service's FAQ).
            return self.error.http_status != 500
        return self.error.retry_can_help
