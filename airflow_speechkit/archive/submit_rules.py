"""How recordings are submitted, and when: facts and decisions. No I/O, and the time is passed in."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import ServiceFaultError
from airflow_speechkit.models import Submission
from airflow_speechkit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_speechkit.errors import SpeechKitError
    from airflow_speechkit.models import Recording

#: A task that frees its worker resumes when it can submit so many, or all of the rest.
MIN_SUBMITS_OF_A_VISIT = 50

_HOUR = timedelta(hours=1)
_REFUSED_RETRY = RetryPolicy(10.0, 600.0)

#: Freeing the worker and resuming takes a task longer than this.
_MIN_DEFERRAL_S = 5.0


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
    """What to do about a request that the service may have taken, and whose operation id never came back."""

    FAIL = "fail"  #: the recording has no operation until a person settles it
    RESUBMIT = "resubmit"  #: it is sent again, once for each task instance, and may be paid for twice


class OnFailure(StrEnum):
    """What a recording that can't be submitted does to the task."""

    FAIL = "fail"  #: the task fails, after all the others were submitted
    SKIP = "skip"  #: it is left out of the returned ids
    RECORD = "record"  #: an id that stands for it is returned, and brings its error into `recognitions`


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
    :param attempts: how often a recording is sent that the service, in trouble, has surely not taken
    :param progress_every: the least time between two lines of progress in the log
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
    progress_every: timedelta = timedelta(minutes=1)
    labels_update: bool = False
    without_archive: bool = False


class SubmitStatus(StrEnum):
    """How a recording came by its operation, or why it has none."""

    SUBMITTED = "submitted"  #: it was sent, and is paid for
    JOINED = "joined"  #: its operation was there, and is running
    REUSED = "reused"  #: its answer is archived
    FAILED = "failed"  #: its operation failed, and would fail again
    REFUSED = "refused"  #: it can't be sent, or the service refused it
    LOST = "lost"  #: the service may have taken it, and its operation is unknown


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


class SubmitRateLimiter:
    """When submits may go out: within the hourly quota, and not during a pause after a refusal.

    :param per_hour: how many may go out in any hour (500 by default with the service; users buy more)
    :param refused_since: since when the service has refused all submits, if it refused the last one
    """

    def __init__(self, per_hour: int, refused_since: datetime | None = None) -> None:
        self.per_hour = per_hour
        self.refused_since = refused_since
        self._sent: deque[datetime] = deque()
        self._paused_until: datetime | None = None
        self._over_quota = False

    @property
    def sent_at(self) -> list[datetime]:
        """When each submit of the last hour went out."""
        return list(self._sent)

    def add_sent(self, sent_at: Iterable[datetime], now: datetime) -> None:
        """Count submits that went out before: those of an earlier try or visit, or of other tasks.

        :param sent_at: when each went out
        """
        self._sent = deque(sorted([*self._sent, *(min(at, now) for at in sent_at)]))
        self._expire(now)

    def send(self, now: datetime) -> None:
        """Count one that goes out now."""
        self._sent.append(now)

    def take_back(self) -> None:
        """Don't count the last one: it was not sent after all, or the service did not count it."""
        if self._sent:
            self._sent.pop()

    def accepted(self) -> None:
        """End the row of refusals."""
        self.refused_since = None

    def delay_s(self, now: datetime, number: int = 1) -> float:
        """Return in how many seconds so many more may have gone out; 0 is now.

        :param number: how many; more than the quota of an hour count as that quota
        """
        paused_s = 0.0 if self._paused_until is None else (self._paused_until - now).total_seconds()
        return max(0.0, paused_s, self._quota_s(now, number))

    def resume_at(self, left: int, now: datetime) -> datetime | None:
        """Return when a task that doesn't wait for the quota resumes; None: it goes on at once.

        :param left: how many have still to go out
        """
        number = min(left, MIN_SUBMITS_OF_A_VISIT)
        refused = self._over_quota and self._paused_until is not None and now < self._paused_until
        used_up = self._quota_s(now, 1) > 0 and self._quota_s(now, number) > _MIN_DEFERRAL_S
        return now + timedelta(seconds=self.delay_s(now, number)) if refused or used_up else None

    def is_exhausted(self, patience: timedelta, now: datetime) -> bool:
        """Whether the service has refused all submits for so long."""
        return self.refused_since is not None and now - self.refused_since >= patience

    def pause(
        self, now: datetime, retry_after_s: float | None = None, *, patience: timedelta, over_quota: bool = False
    ) -> float | None:
        """Stop all submits for a while: each pause is twice the last one, or as long as the service asks for.

        :param retry_after_s: what ``Retry-After`` says
        :param patience: the pause ends in time for one more attempt before the task fails
        :param over_quota: whether the service refused for its quota, rather than being in trouble
        :return: how many seconds the pause lasts; None if it was on already, and isn't any longer now
        """
        before = self._paused_until
        since = self.refused_since = self.refused_since or now
        if self._paused_until is None or now >= self._paused_until:
            length_s = _REFUSED_RETRY.pause_after_s((now - since).total_seconds())
            self._paused_until = now + timedelta(seconds=length_s)
            self._over_quota = False
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + timedelta(seconds=retry_after_s))
        self._over_quota = self._over_quota or over_quota
        self._paused_until = min(self._paused_until, since + patience)
        return None if self._paused_until == before else (self._paused_until - now).total_seconds()

    def expected_end(self, left: int, now: datetime, seconds_each: float) -> datetime:
        """Return when the last of those that are left will have gone out.

        :param left: how many have still to go out
        :param seconds_each: how long one has taken so far, with what goes on side by side
        """
        self._expire(now)
        by_work = now + timedelta(seconds=left * seconds_each + self.delay_s(now))
        beyond = left - (self.per_hour - len(self._sent))
        if beyond <= 0:
            return by_work
        # The quota comes back in the order in which it was used, and then once more each hour.
        hours, place = divmod(beyond - 1, self.per_hour)
        used = self._sent[place] if place < len(self._sent) else now
        return max(by_work, used + _HOUR * (hours + 1))

    def _quota_s(self, now: datetime, number: int) -> float:
        self._expire(now)
        place = len(self._sent) + min(number, self.per_hour) - self.per_hour - 1
        return 0.0 if place < 0 else (self._sent[place] + _HOUR - now).total_seconds()

    def _expire(self, now: datetime) -> None:
        while self._sent and now - self._sent[0] >= _HOUR:
            self._sent.popleft()
