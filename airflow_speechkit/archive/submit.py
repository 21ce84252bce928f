"""Recordings become operations, each paid for once: one after the other, or thousands side by side."""

from __future__ import annotations

import heapq
import logging
import os
import socket
import time
import uuid
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from airflow_speechkit.archive.labels import SubmitLabels
from airflow_speechkit.archive.ledger import Failure, Request, fingerprint
from airflow_speechkit.archive.run import SubmitRun
from airflow_speechkit.archive.submit_errors import error_of
from airflow_speechkit.archive.submit_rules import (
    OnFailure,
    OnLostSubmission,
    Origin,
    SubmitOutcome,
    SubmitPolicy,
    SubmitRateLimiter,
    SubmitStatus,
)
from airflow_speechkit.archive.submit_worker import Requeue, SubmitJob, SubmitWorker
from airflow_speechkit.errors import QuotaExceededError, RecordingError, ServiceFaultError
from airflow_speechkit.recordings.cost import CostLimit, describe_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.archive.submit_worker import Service, Source
    from airflow_speechkit.errors import SpeechKitError
    from airflow_speechkit.models import Recording

log = logging.getLogger(__name__)

#: How many failed recordings are named one by one in the log.
_MAX_NAMED = 1000


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Submitter:
    """Makes operations of recordings: joins, reuses or submits, as the archive's ledger says.

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
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._labels = SubmitLabels(update=self.policy.labels_update, by=self.origin.scope or self._owner, now=self.now)
        self._jobs: list[SubmitJob] = []

    @property
    def done(self) -> list[SubmitOutcome]:
        """The outcomes that the last `submit` or `visit` has come to, also where it has not ended or failed."""
        return [job.outcome for job in self._jobs if job.outcome is not None]

    def submit(self, recordings: Iterable[Recording]) -> list[SubmitOutcome]:
        """Get every recording its operation. Killed at any point and started again, it goes on where it was.

        A recording that can't be submitted doesn't hold up the others; its outcome says why. What concerns all of
        them is raised: the archive, the credentials, the cost limit, a quota that stays used up, a service that can't
        be reached.

        :param recordings: one that is there twice is paid for once
        :return: one outcome for each, in the same order
        :raises SpeechKitError: nothing more could be sent; a retry goes on from there
        """
        outcomes = [SubmitOutcome(recording=one) for one in recordings]
        return self.visit(SubmitRun(began_at=self.now(), outcomes=outcomes), waits=True).done

    def visit(self, run: SubmitRun, *, waits: bool = False) -> SubmitRun:
        """Submit what has no outcome yet, as far as the quota allows now.

        The first visit of a run reads all recordings before it sends any, to check what they cost together.

        :param run: what the visits before have come to
        :param waits: wait for the quota, until nothing is left
        :return: what the run has come to now
        :raises SpeechKitError: nothing more could be sent; a retry goes on from there
        """
        jobs = self._jobs = self._make_jobs(run.outcomes)
        limiter = SubmitRateLimiter(self.policy.submits_per_hour, run.refused_since)
        cost_limit = CostLimit(self.policy.max_billed_seconds, run.billed_seconds)
        worker = SubmitWorker(
            archive=self.archive,
            source=self.source,
            service=self.service,
            origin=self.origin,
            policy=self.policy,
            request=Request(
                # Without a task instance there are no retries to give it back to.
                scope=self.origin.scope or uuid.uuid4().hex,
                reuse=self.policy.reuse,
                resubmit_lost=self.policy.on_lost_submission == OnLostSubmission.RESUBMIT,
                since=run.began_at if run.is_resumed else None,
            ),
            owner=self._owner,
            cost_limit=cost_limit,
            labels=self._labels,
            now=self.now,
            sleep=self.sleep,
        )
        with ThreadPoolExecutor(self.policy.concurrency, thread_name_prefix="speechkit-submit") as pool:
            try:
                undecided = [job for job in jobs if job.outcome is None]
                list(pool.map(lambda job: worker.decide(job, probe=not run.is_resumed), undecided))
                if run.is_resumed:
                    limiter.add_sent(run.sent_at, self.now())
                else:
                    sent = (one.submitted_at for job in jobs for one in job.attempts)
                    limiter.add_sent((at for at in sent if at is not None), self.now())
                    self._check_cost(jobs, cost_limit)
                next_at = _Queue(self, worker, limiter, pool).work_off(jobs, waits=waits)
            except BaseException:
                # Requests under way still get put on record; no other one goes out.
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            finally:
                self._labels.log()
        outcomes = list(run.outcomes)
        for job in jobs:
            for place in job.places:
                outcomes[place] = job.outcome or outcomes[place]
        return replace(
            run,
            outcomes=outcomes,
            is_resumed=True,
            refused_since=limiter.refused_since,
            sent_at=limiter.sent_at,
            next_at=next_at,
        )

    def _make_jobs(self, outcomes: Sequence[SubmitOutcome]) -> list[SubmitJob]:
        jobs: dict[str, SubmitJob] = {}
        for place, outcome in enumerate(outcomes):
            is_done, recording = outcome.status is not None, outcome.recording
            mark = outcome.fingerprint or fingerprint(recording.audio_uri, recording.version, recording.settings)
            if mark in jobs:
                job = jobs[mark]
                job.places.append(place)
                job.recording = self._labels.joined(job.recording, recording)
                continue
            job = jobs[mark] = SubmitJob(mark, [place], recording, outcome=outcome if is_done else None)
            if is_done:
                continue
            if recording.error is not None:
                job.end(SubmitStatus.REFUSED, error=recording.error)
            elif not recording.version and not self.policy.allow_unversioned:
                error = RecordingError(
                    "The bucket gives this recording no ETag, so a replacement can't be detected",
                    recording=recording.audio_uri,
                    hint="Set `allow_unversioned=True` if recordings under one address never change",
                )
                job.end(SubmitStatus.REFUSED, error=error)
        return list(jobs.values())

    def _check_cost(self, jobs: Sequence[SubmitJob], cost_limit: CostLimit) -> None:
        """Check what all recordings that have to be sent cost together, and log what there is."""
        new = [job for job in jobs if job.has_to_be_sent]
        recordings = [job.recording for job in new]
        cost_limit.spend(recordings)
        for job in new:
            job.is_paid = True
        known = _counts(jobs)
        elsewhere = len(jobs) - len(new) - known.total()
        log.info(
            "%d recordings: %s%d new%s%s",
            len(jobs),
            f"{_in_words(known)}, " if known else "",
            len(new),
            f", which will be billed {describe_cost(recordings)}" if new else "",
            f"; {elsewhere} are being submitted elsewhere" if elsewhere else "",
        )

    def hand_on(self, outcomes: Sequence[SubmitOutcome], on_failure: OnFailure) -> list[str]:
        """Return the operation ids for whatever waits for the results, in the order of the recordings.

        :param outcomes: what `submit` gave
        :param on_failure: see `OnFailure`
        :raises SpeechKitError: the error itself where there is one, `SubmissionsFailedError` where there are several
        """
        error = error_of(outcomes, on_failure, without_archive=self.policy.without_archive)
        if error is not None:
            raise error
        failed = [one for one in outcomes if one.error is not None]
        for one in failed[:_MAX_NAMED]:
            log.warning("%s: %s", "Skipped" if on_failure == OnFailure.SKIP else "On record as failed", one.error)
        if len(failed) > _MAX_NAMED:
            log.warning("… and %d more", len(failed) - _MAX_NAMED)
        if on_failure == OnFailure.SKIP:
            return [one.operation_id for one in outcomes if one.error is None and one.operation_id is not None]
        ids = [one.operation_id or self._record_refused(one) for one in outcomes]
        self._labels.log()
        return ids

    def _record_refused(self, outcome: SubmitOutcome) -> str:
        now = self.now()
        code = getattr(outcome.error, "grpc_code", None)
        message = outcome.error.what if outcome.error is not None else "The service refused the submission"
        submission = self.origin.submission(outcome.recording, outcome.fingerprint, now)
        operation_id = self.archive.refuse(submission, Failure(code, message), now)
        self._labels.put(self.archive, outcome.recording, operation_id)
        return operation_id


class _Queue:
    """The jobs of one visit that have no outcome yet.

    Only what has to be sent waits for the quota. Others' claims are checked all the while.
    """

    def __init__(
        self, submitter: Submitter, worker: SubmitWorker, limiter: SubmitRateLimiter, pool: ThreadPoolExecutor
    ) -> None:
        self._policy, self._now, self._sleep = submitter.policy, submitter.now, submitter.sleep
        self._worker = worker
        self._limiter = limiter
        self._pool = pool
        self._to_send: deque[SubmitJob] = deque()
        #: Jobs that wait for somebody else's claim, by when that is checked next.
        self._claimed: list[tuple[datetime, int, SubmitJob]] = []
        self._number = count()
        self._running: dict[Future[Requeue | None], tuple[SubmitJob, bool]] = {}

    def work_off(self, jobs: Sequence[SubmitJob], *, waits: bool) -> datetime | None:
        """Send what may be sent; return when to go on with the rest.

        :param jobs: all of the run, for the log
        :param waits: wait for the quota, until nothing is left
        """
        began = logged_at = self._now()
        left_at_first = sum(job.outcome is None for job in jobs)
        for job in jobs:
            if job.outcome is None:
                self._put(job, began)
        while self._to_send or self._claimed or self._running:
            now = self._now()
            if self._start(now):
                continue
            if now - logged_at >= self._policy.progress_every:
                logged_at = now
                log.info("%s", self._progress(jobs, left_at_first, began, now))
            if self._running:
                for done in wait(self._running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                    self._take(done)
                continue
            next_at = self._limiter.resume_at(len(self._to_send), now) if self._to_send and not waits else None
            if next_at is not None:
                return next_at
            waits_s = [(self._claimed[0][0] - now).total_seconds()] if self._claimed else []
            waits_s += [self._limiter.delay_s(now)] if self._to_send else []
            self._sleep(min(*waits_s, max(1.0, self._policy.progress_every.total_seconds())))
        if waits:
            log.info("%s", self._progress(jobs, left_at_first, began, self._now()))
        return None

    def _put(self, job: SubmitJob, check_at: datetime) -> None:
        if job.has_to_be_sent:
            self._to_send.append(job)
        else:
            heapq.heappush(self._claimed, (check_at, next(self._number), job))

    def _start(self, now: datetime) -> bool:
        """Start one more job, if one may be started."""
        if len(self._running) >= self._policy.concurrency:
            return False
        if self._claimed and self._claimed[0][0] <= now:
            job = heapq.heappop(self._claimed)[2]
            self._running[self._pool.submit(self._worker.check_claim, job)] = job, False
            return True
        if not self._to_send or self._limiter.delay_s(now) > 0:
            return False
        # After a refusal one request at a time finds out whether the service accepts recordings again.
        if self._limiter.refused_since and any(sends for _, sends in self._running.values()):
            return False
        job = self._to_send.popleft()
        self._limiter.send(now)
        self._running[self._pool.submit(self._worker.advance, job)] = job, True
        return True

    def _take(self, done: Future[Requeue | None]) -> None:
        """Take note of what became of a job."""
        job, sends = self._running.pop(done)
        requeue = done.result()
        if requeue is None:
            self._limiter.accepted()
            return
        if sends and (not requeue.sent or isinstance(requeue.error, QuotaExceededError)):
            self._limiter.take_back()
        if requeue.error is not None:
            self._refused(job, requeue.error)
        if job.outcome is not None:
            return
        if requeue.sent:
            self._to_send.append(job)
        else:
            self._put(job, requeue.until or self._now())

    def _refused(self, job: SubmitJob, error: SpeechKitError) -> None:
        now, patience = self._now(), self._policy.patience
        if self._limiter.is_exhausted(patience, now):
            raise error
        if isinstance(error, QuotaExceededError):
            pause_s = self._limiter.pause(now, error.retry_after_s, patience=patience, over_quota=True)
            why = "The quota is used up"
        else:
            job.faults += 1
            if job.faults >= self._policy.attempts:
                if not isinstance(error, ServiceFaultError):
                    raise error
                job.end(SubmitStatus.REFUSED, error=error)
                return
            pause_s = self._limiter.pause(now, patience=patience)
            why = f"The service is in trouble ({type(error).__name__})"
        if pause_s is not None:
            log.warning("%s: the next submission is sent in %.0f seconds", why, pause_s)

    def _progress(self, jobs: Sequence[SubmitJob], left_at_first: int, began: datetime, now: datetime) -> str:
        counts = _counts(jobs)
        left = len(jobs) - counts.total()
        done = f" ({_in_words(counts)})" if counts else ""
        text = f"{counts.total()} of {len(jobs)} recordings done{done}, {left} waiting"
        if not left:
            return text
        worked_off = left_at_first - left
        each_s = (now - began).total_seconds() / worked_off if worked_off else 1.0
        return f"{text}; expected end {self._limiter.expected_end(left, now, each_s):%Y-%m-%d %H:%M} UTC"


def _counts(jobs: Sequence[SubmitJob]) -> Counter[SubmitStatus]:
    return Counter(job.outcome.status for job in jobs if job.outcome is not None and job.outcome.status is not None)


def _in_words(counts: Counter[SubmitStatus]) -> str:
    return ", ".join(f"{counts[status]} {status.value}" for status in SubmitStatus if counts[status])
