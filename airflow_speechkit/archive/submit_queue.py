"""When recordings are sent: within the hourly quota, side by side, and not during a pause after a refusal."""

from __future__ import annotations

import logging
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, wait
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_speechkit.archive.submit_rules import Step, SubmitStatus
from airflow_speechkit.errors import QuotaExceededError, ServiceFaultError
from airflow_speechkit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor

    from airflow_speechkit.archive.submit_rules import SubmitJob
    from airflow_speechkit.archive.submit_worker import SubmitWorker
    from airflow_speechkit.errors import SpeechKitError

log = logging.getLogger(__name__)

#: A task that frees its worker resumes when it can submit so many, or all of the rest.
MIN_SUBMITS_OF_A_VISIT = 50

_HOUR = timedelta(hours=1)
_LOG_EVERY = timedelta(minutes=1)
#: How often another process's claim is checked.
_CHECK_CLAIM_EVERY = timedelta(seconds=5)
_REFUSED_RETRY = RetryPolicy(10.0, 600.0)

#: Freeing the worker and resuming takes a task longer than this.
_MIN_DEFERRAL_S = 5.0


class SubmitRateLimiter:
    """When submits may go out. Pure: the time is passed in.

    :param per_hour: how many may go out in any hour (500 by default with the service; users buy more)
    :param patience: how long the service may refuse all submits
    :param refused_since: since when it has refused them, if it refused the last one
    """

    def __init__(self, per_hour: int, patience: timedelta, refused_since: datetime | None = None) -> None:
        self.per_hour = per_hour
        self.patience = patience
        self.refused_since = refused_since
        #: When each submit of the last hour went out.
        self.sent_at: deque[datetime] = deque()
        self._paused_until: datetime | None = None
        self._is_over_quota = False

    def add_sent(self, sent_at: Iterable[datetime], now: datetime) -> None:
        """Count submits that went out before: those of an earlier try or visit, or of other tasks.

        :param sent_at: when each went out
        """
        self.sent_at = deque(sorted([*self.sent_at, *(min(at, now) for at in sent_at)]))

    def take_back(self) -> None:
        """Don't count the last one: it was not sent after all, or the service did not count it."""
        if self.sent_at:
            self.sent_at.pop()

    def delay_s(self, now: datetime, number: int = 1) -> float:
        """Return in how many seconds so many more may have gone out; 0 is now.

        :param number: how many; more than the quota of an hour count as that quota
        """
        paused_s = 0.0 if self._paused_until is None else (self._paused_until - now).total_seconds()
        return max(0.0, paused_s, self._quota_s(now, number))

    def resume_at(self, left: int, now: datetime) -> datetime | None:
        """Return when a task that doesn't wait for the quota resumes; None: it continues at once.

        :param left: how many have still to go out
        """
        number = min(left, MIN_SUBMITS_OF_A_VISIT)
        is_refused = self._is_over_quota and self._paused_until is not None and now < self._paused_until
        is_used_up = self._quota_s(now, 1) > 0 and self._quota_s(now, number) > _MIN_DEFERRAL_S
        return now + timedelta(seconds=self.delay_s(now, number)) if is_refused or is_used_up else None

    def is_exhausted(self, now: datetime) -> bool:
        """Whether the service has refused all submits for too long."""
        return self.refused_since is not None and now - self.refused_since >= self.patience

    def pause(self, now: datetime, retry_after_s: float = 0.0, *, over_quota: bool = False) -> float | None:
        """Stop all submits for a while: each pause is twice the last one, or as long as the service asks for.

        A pause ends in time for one more attempt before the task fails.

        :param retry_after_s: the value of ``Retry-After``
        :param over_quota: whether the service refused for its quota, rather than being in trouble
        :return: how many seconds the pause lasts; None if it was on already, and isn't any longer now
        """
        before = self._paused_until
        since = self.refused_since = self.refused_since or now
        if before is None or now >= before:
            before, self._is_over_quota = None, False
            retry_after_s = max(retry_after_s, _REFUSED_RETRY.pause_after_s((now - since).total_seconds()))
        self._is_over_quota = self._is_over_quota or over_quota
        until = min(max(before or now, now + timedelta(seconds=retry_after_s)), since + self.patience)
        self._paused_until = until
        return None if until == before else (until - now).total_seconds()

    def expected_end(self, left: int, now: datetime, each_s: float) -> datetime:
        """Return about when the last of those that are left will have gone out.

        :param left: how many have still to go out
        :param each_s: how many seconds one has taken so far, with those that are sent side by side
        """
        by_work = timedelta(seconds=left * each_s + self.delay_s(now))
        return now + max(by_work, _HOUR * ((left + len(self.sent_at)) / self.per_hour - 1))

    def _quota_s(self, now: datetime, number: int) -> float:
        while self.sent_at and now - self.sent_at[0] >= _HOUR:
            self.sent_at.popleft()
        place = len(self.sent_at) + min(number, self.per_hour) - self.per_hour - 1
        return 0.0 if place < 0 else (self.sent_at[place] + _HOUR - now).total_seconds()


class SubmitQueue:
    """The jobs of one visit that have no outcome yet.

    Only what has to be sent waits for the quota. Other processes' claims are checked meanwhile.

    :param worker: takes one job a step on
    :param limiter: when submits may go out
    :param pool: runs the steps
    """

    def __init__(self, worker: SubmitWorker, limiter: SubmitRateLimiter, pool: ThreadPoolExecutor) -> None:
        self._worker = worker
        self._policy = worker.policy
        self._limiter = limiter
        self._pool = pool
        self._to_send: deque[SubmitJob] = deque()
        #: Jobs that wait for another process's claim, and when that is checked next.
        self._claimed: deque[tuple[datetime, SubmitJob]] = deque()
        #: The jobs that are taken a step on, and whether that may send them.
        self._running: dict[Future[Step], tuple[SubmitJob, bool]] = {}

    def run(self, jobs: Sequence[SubmitJob], *, waits: bool) -> datetime | None:
        """Send what may be sent; return when to continue with the rest.

        :param jobs: all of the run, for the log
        :param waits: wait for the quota, until nothing is left
        """
        began = logged_at = self._worker.now()
        done_at_first = len(jobs) - sum(job.outcome is None for job in jobs)
        for job in jobs:
            if job.outcome is None:
                self._put(job, began)
        while self._to_send or self._claimed or self._running:
            now = self._worker.now()
            if self._start(now):
                continue
            if now - logged_at >= _LOG_EVERY:
                logged_at = now
                self._log_progress(jobs, done_at_first, began, now)
            if self._running:
                for done in wait(self._running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                    self._finish_step(done)
                continue
            next_at = self._limiter.resume_at(len(self._to_send), now) if self._to_send and not waits else None
            if next_at is not None:
                return next_at
            waits_s = [(self._claimed[0][0] - now).total_seconds()] if self._claimed else []
            waits_s += [self._limiter.delay_s(now)] if self._to_send else []
            self._worker.sleep(min(*waits_s, _LOG_EVERY.total_seconds()))
        if waits:
            self._log_progress(jobs, done_at_first, began, self._worker.now())
        return None

    def _put(self, job: SubmitJob, now: datetime) -> None:
        if job.has_to_be_sent:
            self._to_send.append(job)
        else:
            self._claimed.append((now + _CHECK_CLAIM_EVERY, job))

    def _start(self, now: datetime) -> bool:
        """Start one more job, if one may be started."""
        if len(self._running) >= self._policy.concurrency:
            return False
        if self._claimed and self._claimed[0][0] <= now:
            _, job = self._claimed.popleft()
            self._running[self._pool.submit(self._worker.decide, job)] = job, False
            return True
        if not self._to_send or self._limiter.delay_s(now) > 0:
            return False
        # After a refusal one request at a time finds out whether the service accepts recordings again.
        if self._limiter.refused_since and any(sends for _, sends in self._running.values()):
            return False
        job = self._to_send.popleft()
        self._limiter.sent_at.append(now)
        self._running[self._pool.submit(self._worker.send, job)] = job, True
        return True

    def _finish_step(self, done: Future[Step]) -> None:
        """Put a job back into the queue, if it has no outcome."""
        job, sends = self._running.pop(done)
        step = done.result()
        error, job.error = job.error, None
        if step is Step.ACCEPTED:
            self._limiter.refused_since = None
        elif sends and (step is Step.NOT_SENT or isinstance(error, QuotaExceededError)):
            # It was not sent after all, or the service did not count it.
            self._limiter.take_back()
        if error is not None:
            self._pause(job, error)
        if job.outcome is None and step is Step.SENT:
            self._to_send.append(job)
        elif job.outcome is None:
            self._put(job, self._worker.now())

    def _pause(self, job: SubmitJob, error: SpeechKitError) -> None:
        """Stop all submits for a while, since the service has refused one that it may accept later.

        :raises SpeechKitError: it has done so for too long, or too often
        """
        now, is_over_quota = self._worker.now(), isinstance(error, QuotaExceededError)
        job.faults += not is_over_quota
        if self._limiter.is_exhausted(now):
            raise error
        if job.faults >= self._policy.attempts:
            if not isinstance(error, ServiceFaultError):
                raise error
            job.end(SubmitStatus.REFUSED, error=error)
            return
        pause_s = self._limiter.pause(now, getattr(error, "retry_after_s", None) or 0.0, over_quota=is_over_quota)
        if pause_s is not None:
            why = "The quota is used up" if is_over_quota else f"The service is in trouble ({type(error).__name__})"
            log.warning("%s: the next submission is sent in %.0f seconds", why, pause_s)

    def _log_progress(self, jobs: Sequence[SubmitJob], done_at_first: int, began: datetime, now: datetime) -> None:
        counts = count_outcomes(jobs)
        left, new = len(jobs) - counts.total(), counts.total() - done_at_first
        end = ""
        if left:
            each_s = (now - began).total_seconds() / new if new else 1.0
            end = f"; expected end {self._limiter.expected_end(left, now, each_s):%Y-%m-%d %H:%M} UTC"
        log.info("%d of %d recordings done%s, %d waiting%s", counts.total(), len(jobs), in_words(counts), left, end)


def count_outcomes(jobs: Sequence[SubmitJob]) -> Counter[SubmitStatus]:
    """Return how many jobs have ended in which way."""
    return Counter(job.outcome.status for job in jobs if job.outcome is not None and job.outcome.status is not None)


def in_words(counts: Counter[SubmitStatus]) -> str:
    """Return such counts for the log, in parentheses; nothing if there are none."""
    words = ", ".join(f"{counts[status]} {status.value}" for status in SubmitStatus if counts[status])
    return f" ({words})" if words else ""
