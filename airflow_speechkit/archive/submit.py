"""Recordings become operations, each paid for once: one after the other, or thousands side by side."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airflow_speechkit.archive.identity import record_cut
from airflow_speechkit.archive.ledger import fingerprint
from airflow_speechkit.archive.runs import SubmitRun
from airflow_speechkit.archive.submit_queue import SubmitQueue, SubmitRateLimiter, count_outcomes, in_words
from airflow_speechkit.archive.submit_rules import (
    OnFailure,
    OnFiltered,
    SubmitJob,
    SubmitOutcome,
    SubmitStatus,
    error_of,
    failure_of,
)
from airflow_speechkit.archive.submit_worker import SubmitWorker
from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.cost import CostLimit, describe_cost, describe_savings
from airflow_speechkit.recordings.parts import starts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_speechkit.models import Recording

log = logging.getLogger(__name__)

#: How many failed recordings are named one by one in the log.
_MAX_NAMED = 1000


@dataclass
class Submitter(SubmitWorker):
    """Makes operations of all recordings of a task: joins, reuses or submits, as the archive's ledger decides."""

    _jobs: list[SubmitJob] = field(default_factory=list, init=False)

    @property
    def done(self) -> list[SubmitOutcome]:
        """The outcomes that the last `submit` or `visit` has come to, also where it has not ended or failed."""
        return [job.outcome for job in self._jobs if job.outcome is not None]

    def submit(self, recordings: Iterable[Recording]) -> list[SubmitOutcome]:
        """Get every recording its operation. Killed at any point and started again, it continues there.

        A recording that can't be submitted doesn't hold up the others; its outcome has the error. What concerns all of
        them is raised: the archive, the credentials, the cost limit, a quota that stays used up, a service that can't
        be reached.

        :param recordings: one that is there twice is paid for once
        :return: one outcome for each, in the same order
        :raises SpeechKitError: nothing more could be sent; a retry continues there
        """
        outcomes = [SubmitOutcome(recording=one) for one in recordings]
        return self.visit(SubmitRun(began_at=self.now(), outcomes=outcomes), waits=True).done

    def visit(self, run: SubmitRun, *, waits: bool = False) -> SubmitRun:
        """Submit what has no outcome yet, as far as the quota allows now.

        The first visit of a run reads all recordings before it sends any, to check what they cost together.

        :param run: what the visits before have come to
        :param waits: wait for the quota, until nothing is left
        :return: what the run has come to now
        :raises SpeechKitError: nothing more could be sent; a retry continues there
        """
        asked = list(zip(run.outcomes, self._make_jobs(run.outcomes), strict=True))
        jobs = self._jobs = _each_once(asked)
        self.request = replace(self.request, since=run.began_at if run.is_resumed else None)
        self.cost_limit = CostLimit(self.policy.max_billed_seconds, run.billed_seconds)
        limiter = SubmitRateLimiter(self.policy.submits_per_hour, self.policy.patience, run.refused_since)
        with ThreadPoolExecutor(self.policy.concurrency, thread_name_prefix="speechkit-submit") as pool:
            try:
                undecided = [job for job in jobs if job.outcome is None]
                list(pool.map(lambda job: self.decide(job, probe=not run.is_resumed), undecided))
                parts = {job: self._parts(job) for job in jobs if job.recording.parts}
                if parts:
                    asked = [pair for one, job in asked for pair in parts.get(job, [(one, job)])]
                    jobs = self._jobs = _each_once(asked)
                    list(pool.map(self.decide, [job for made in parts.values() for _, job in made]))
                if run.is_resumed:
                    limiter.add_sent(run.sent_at, self.now())
                else:
                    sent = (one.submitted_at for job in jobs for one in job.attempts)
                    limiter.add_sent((at for at in sent if at is not None), self.now())
                    self._check_cost(jobs)
                next_at = SubmitQueue(self, limiter, pool).run(jobs, waits=waits)
            except BaseException:
                # Requests under way still get put on record; no other one goes out.
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            finally:
                self.labels.log()
        self._log_filtered(undecided)
        return replace(
            run,
            outcomes=[job.outcome_of(one.recording) or one for one, job in asked],
            is_resumed=True,
            refused_since=limiter.refused_since,
            sent_at=list(limiter.sent_at),
            next_at=next_at,
        )

    def _parts(self, whole: SubmitJob) -> list[tuple[SubmitOutcome, SubmitJob]]:
        """Return the parts of a recording that is too long, each as a recording and a job of its own."""
        parts = whole.recording.parts
        record_cut(self.archive, whole.fingerprint, starts_of(parts[0]))
        # As in a later visit, which knows no more about a part than about the whole.
        settings = whole.recording.settings
        fingerprints = tuple(fingerprint(replace(one, settings=settings)) for one in parts)
        made = []
        for own, recording in zip(fingerprints, parts, strict=True):
            part = recording.part and replace(recording.part, fingerprints=fingerprints)
            recording = replace(recording, labels=whole.recording.labels, part=part)
            made.append((SubmitOutcome(recording=recording), SubmitJob(own, recording)))
        return made

    def _make_jobs(self, outcomes: Sequence[SubmitOutcome]) -> Iterator[SubmitJob]:
        """Return the job of each recording. One that is there twice has one job, and so have the same bytes."""
        jobs: dict[str, SubmitJob] = {}
        for outcome in outcomes:
            is_done, recording = outcome.status is not None, outcome.recording
            key = outcome.fingerprint or fingerprint(recording)
            if key in jobs:
                job = jobs[key]
                if recording.audio_uri == job.recording.audio_uri:
                    job.recording = self.labels.joined(job.recording, recording)
                else:
                    other = job.others.get(recording.audio_uri, recording)
                    job.others[recording.audio_uri] = self.labels.joined(other, recording)
                yield job
                continue
            job = jobs[key] = SubmitJob(key, recording, outcome=outcome if is_done else None)
            error = recording.error
            if error is None and not recording.is_versioned and not self.policy.allow_unversioned:
                error = RecordingError(
                    "The bucket gives this recording no ETag, so a replacement can't be detected",
                    recording=recording.audio_uri,
                    hint="Set `allow_unversioned=True` if recordings under one address never change",
                )
            if error is not None and not is_done:
                job.end(SubmitStatus.REFUSED, error=error)
            yield job

    def _check_cost(self, jobs: Sequence[SubmitJob]) -> None:
        """Check what all recordings that have to be sent cost together, and log what there is."""
        new = [job for job in jobs if job.has_to_be_sent]
        recordings = [job.recording for job in new]
        self.cost_limit.spend(recordings)
        for job in new:
            job.is_paid = True
        known = count_outcomes(jobs)
        log.info(
            "%d recordings: %d known%s, %d are being submitted elsewhere, %d new, which will be billed %s",
            len(jobs),
            known.total(),
            in_words(known),
            len(jobs) - len(new) - known.total(),
            len(new),
            describe_cost(recordings),
        )
        if savings := describe_savings(recordings):
            log.info("%s", savings)

    def _log_filtered(self, jobs: Sequence[SubmitJob]) -> None:
        # What has its operation is returned, although it would be left out now.
        filtered = [job for job in jobs if job.outcome and job.outcome.status is SubmitStatus.FILTERED]
        found = [one for job in filtered for _ in job.recordings if (one := job.recording.filter_reason)]
        if reasons := Counter(found):
            log.info("%s", self.source.filters.describe(reasons))

    def returned_ids(self, outcomes: Sequence[SubmitOutcome], on_failure: OnFailure) -> list[str]:
        """Return the operation ids for whatever waits for the results, in the order of the recordings.

        :param outcomes: what `submit` gave
        :param on_failure: see `OnFailure`
        :raises SpeechKitError: the error itself where there is one, `SubmissionsFailedError` where there are several
        """
        error = error_of(outcomes, on_failure, without_archive=self.policy.without_archive)
        if error is not None:
            raise error
        failed = [one.error for one in outcomes if one.error is not None]
        for each in failed[:_MAX_NAMED]:
            log.warning("%s: %s", "Skipped" if on_failure == OnFailure.SKIP else "On record as failed", each)
        returned = [one for one in outcomes if self._is_returned(one, on_failure)]
        ids = [one.operation_id or self._record_unsent(one) for one in returned]
        self.labels.log()
        return ids

    def _is_returned(self, outcome: SubmitOutcome, on_failure: OnFailure) -> bool:
        if outcome.status is SubmitStatus.FILTERED:
            return self.policy.on_filtered == OnFiltered.RECORD
        return outcome.error is None or on_failure != OnFailure.SKIP

    def _record_unsent(self, outcome: SubmitOutcome) -> str:
        now, failure = self.now(), None if outcome.error is None else failure_of(outcome.error)
        submission = self.origin.submission(outcome.recording, outcome.fingerprint, now)
        operation_id = self.archive.refuse(submission, failure, now)
        self.put_on_record(outcome.recording, outcome.fingerprint, operation_id)
        return operation_id


def _each_once(asked: Sequence[tuple[SubmitOutcome, SubmitJob]]) -> list[SubmitJob]:
    return list(dict.fromkeys(job for _, job in asked))
