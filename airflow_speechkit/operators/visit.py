"""One visit of a submit task: what it opens, what it returns in the end, and what happens if it fails."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, Context

from airflow_speechkit.archive.identity import recognition_id
from airflow_speechkit.archive.layout import ROOT_FILE, read_each, unsent_id
from airflow_speechkit.archive.ledger import RESULTS_KEPT
from airflow_speechkit.archive.runs import SubmitRun, delivered_before, read_run, record_delivery, remove_run
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import OnFailure, Origin, SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import ArchiveError, NotFinishedError, QuotaExceededError, SpeechKitError
from airflow_speechkit.hooks.archive import read_submissions, task_archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_speechkit.archive.submit import Submitter
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.models import Recording
    from airflow_speechkit.recordings.source import RecordingSource

log = logging.getLogger(__name__)

#: Nothing more comes of these: another run of the task may have got all there is.
_ENDED = frozenset({SubmitStatus.REUSED, SubmitStatus.FILTERED})

#: Younger ones may well run, and a check of one that runs is a check for nothing.
OLD = timedelta(hours=1)

#: The folder has 2,500 checks an hour (v2), and others wait too. A retry continues with the next ones.
MOST = 1000


@dataclass(frozen=True, kw_only=True)
class SubmitVisit:
    """What a task has done about its recordings so far. The archive and the service's connection are open.

    :param hook: the service's connection
    :param submitter: what has submitted them, with their archive
    :param run: their outcomes
    :param on_failure: what a recording that can't be submitted does to the task
    :param record_scope: the task instance, if another visit may follow
    :param delivery: the task instance to deliver to, if it gets only what no other one got
    """

    hook: SpeechKitHook
    submitter: Submitter
    run: SubmitRun
    on_failure: OnFailure
    record_scope: str | None = None
    delivery: Origin | None = None

    @property
    def archive(self) -> Archive:
        """Where submissions and answers are kept."""
        return self.submitter.archive

    def progress(self, ended: str = "") -> str:
        """Return how far the task is, in words.

        :param ended: what to say about operations that have ended
        """
        # A recording that is listed twice is one.
        each = {one.fingerprint: one for one in self.run.done}.values()
        left = len({(one.audio_uri, one.version, one.variant) for one in self.run.left})
        filtered = sum(one.status is SubmitStatus.FILTERED for one in each)
        refused = sum(one.operation_id is None for one in each) - filtered
        numbers = [f"submitted {len(each) - refused - filtered:,} of {len(each) + left:,}", ended]
        numbers += [f"refused {refused:,}", f"left out {filtered:,}" if filtered else ""]
        next_at = "" if self.run.next_at is None else f"the next go out at {self.run.next_at:%H:%M:%S} UTC"
        return ", ".join(filter(None, [*numbers, next_at]))

    def returned_ids(self) -> str | list[str]:
        """Return the operation ids: one for one recording, a list for a list, a pattern, or a recording in parts.

        :raises SpeechKitError: what went wrong, and with which recording
        :raises AirflowFailException: without an archive, a request may have been accepted: a retry could pay again
        :raises AirflowSkipException: there is nothing to return
        """
        outcomes, recognitions = self.run.done, {}
        if self.delivery is not None:
            both = list(zip(outcomes, recognitions_of(self.archive, outcomes), strict=True))
            ended = [known for one, known in both if one.status in _ENDED and known]
            old = delivered_before(self.archive, self.delivery, ended)
            both = [(one, known) for one, known in both if known not in old]
            outcomes = [one for one, _ in both]
            recognitions = {known: _operation_id(one) for one, known in both if known}
        try:
            ids = self.submitter.returned_ids(outcomes, self.on_failure)
        except ArchiveError:
            # Another visit may follow.
            raise
        except SpeechKitError:
            self.close()
            self._collect(outcomes)
            raise
        if self.delivery is not None:
            returned, operations = set(ids), set(recognitions.values())
            delivered = [known for known, operation_id in recognitions.items() if operation_id in returned]
            refused = [one for one in ids if one not in operations]
            record_delivery(self.archive, self.delivery, [*delivered, *refused], datetime.now(UTC))
        self.close()
        if not ids:
            raise AirflowSkipException("There is nothing new" if self.delivery else "Every recording was skipped")
        # A recording in parts has several.
        return ids if self.run.returns_list or len(ids) > 1 else ids[0]

    def close(self) -> None:
        """Remove the record of the visits: no other one follows."""
        if self.record_scope is not None:
            remove_run(self.archive, self.record_scope)

    def _collect(self, outcomes: Sequence[SubmitOutcome]) -> None:
        """Archive the answers of ended operations that nobody waits for while the task fails."""
        if self.submitter.policy.without_archive:
            return
        try:
            collect(self.archive, self.hook, outcomes, datetime.now(UTC))
        except SpeechKitError as error:
            log.warning("Ended operations of this task can't be archived: %s", error)


def resumed_run(archive: Archive, scope: str | None, source: RecordingSource, timeout_s: float | None) -> SubmitRun:
    """Return the result of the visits before this one, with the recordings that are left looked up again.

    :param scope: the task instance
    :param timeout_s: how long after the first visit began nothing more is sent, in seconds
    :raises NotFinishedError: that time is over
    :raises AirflowFailException: the record isn't there: this may be another archive, in which nothing is paid for yet
    """
    run = None if scope is None else read_run(archive, scope, source.settings)
    if run is None:
        raise AirflowFailException(
            f"The archive at {archive.url} does not have the record that this task wrote before it was deferred, so "
            "nothing more is submitted. Is the disk mounted, and is it the same archive? Clear the task when it is back"
        )
    if run.left:
        check_time(run.began_at, timeout_s, f"{len(run.left)} recordings are not submitted")
    return with_left(run, source.resolve_again(run.left))


def with_left(run: SubmitRun, recordings: Iterable[Recording]) -> SubmitRun:
    """Return a run with others in place of the recordings that are left."""
    left = iter(recordings)
    outcomes = [replace(one, recording=next(left)) if one.status is None else one for one in run.outcomes]
    return replace(run, outcomes=outcomes)


def recognitions_of(archive: Archive, outcomes: Sequence[SubmitOutcome]) -> list[str | None]:
    """Return the id in the tables of each recording, None where it has no operation and isn't left out.

    A recording that shares another one's operation is new to a run, although that operation may be an old one.

    :raises ArchiveError: the archive can't be read
    """
    by_content = {known for one in outcomes if one.recording.content_hash and (known := _operation_id(one))}
    submitted = read_submissions(archive, by_content)

    def id_of(one: SubmitOutcome) -> str | None:
        operation_id = _operation_id(one)
        known = submitted.get(operation_id or "")
        if operation_id is None or known is None or known.audio_uri == one.recording.audio_uri:
            return operation_id
        return recognition_id(operation_id, one.recording.audio_uri)

    return [id_of(one) for one in outcomes]


def _operation_id(outcome: SubmitOutcome) -> str | None:
    """Return the id that a recording has if it is returned; None if that is the id of an error."""
    if outcome.status is SubmitStatus.FILTERED:
        return unsent_id(outcome.fingerprint, outcome.recording.filter_reason)
    return outcome.operation_id


@contextmanager
def opened_archive(setting: str | bool | None, hook: SpeechKitHook, *, is_first: bool = True) -> Iterator[Archive]:
    """Open the archive, and check that it excludes a second writer.

    :param setting: the operator's `archive`; with ``False`` it is temporary
    :param is_first: whether the task has not used it before
    """
    archive = task_archive(setting, hook)
    if archive is None:
        log.warning("Without an archive this pays for every recording, and so does every retry")
        with tempfile.TemporaryDirectory(prefix="speechkit-") as temporary:
            archive = Archive.at(temporary)
            archive.folder.create(ROOT_FILE, b"{}")
            yield archive
        return
    if is_first:
        archive.probe(datetime.now(UTC))
    yield archive


def origin_of(context: Context, speechkit_conn_id: str) -> Origin:
    """Return who submits: the connection, and the task instance where there is one."""
    ti = context.get("ti")
    names = () if ti is None else ("dag_id", "run_id", "task_id", "map_index")
    return Origin(speechkit_conn_id=speechkit_conn_id, **{name: getattr(ti, name) for name in names})


def check_time(began_at: datetime, timeout_s: float | None, left: str) -> None:
    """Fail if the task's own time is over.

    :param began_at: when the first visit began
    :param timeout_s: the task's time in seconds, if it is limited
    :param left: what is left to do, in words
    :raises NotFinishedError: it is over
    """
    if timeout_s is not None and datetime.now(UTC) >= began_at + timedelta(seconds=timeout_s):
        raise NotFinishedError(
            f"Not all recordings are done within {timeout_s:g} s: {left}", retry="continues where this one stopped"
        )


def collect(archive: Archive, hook: SpeechKitHook, outcomes: Iterable[SubmitOutcome], now: datetime) -> None:
    """Archive the answers of older operations that have ended, and log until when the others are kept.

    With one bad recording among them a nightly run fails each night, before anything waits: after three days all the
    others would have to be paid for again. This way the next run finds their answers.

    :param outcomes: of the recordings
    :param now: UTC
    """
    awaited = [one for one, ended in read_each(archive.outcome, _awaited(outcomes)).items() if ended is None]
    submissions = read_submissions(archive, awaited)
    submitted_at = {one: known.submitted_at for one, known in submissions.items() if known is not None}
    old = sorted((one for one, at in submitted_at.items() if now - at >= OLD), key=submitted_at.__getitem__)
    kept = set()
    for operation_id in old[:MOST]:
        try:
            if _archive_if_ended(archive, hook, operation_id):
                kept.add(operation_id)
        except SpeechKitError as error:
            # It must not hide the task's own error.
            log.warning("Operation %s is not archived: %s", operation_id, error)
            if isinstance(error, QuotaExceededError):
                break
    if kept:
        log.info("%d operations that were submitted before have ended; their answers are archived now", len(kept))
    left = [at for one, at in submitted_at.items() if one not in kept]
    if left:
        log.warning(
            "%d accepted operations have no archived answer, and nobody waits for them while this task fails. Run it "
            "again, or wait for them otherwise, before %s UTC: then the service deletes their results",
            len(left),
            f"{min(left) + RESULTS_KEPT:%Y-%m-%d %H:%M}",
        )


def fail_without_archive(error: SpeechKitError, outcomes: Iterable[SubmitOutcome]) -> None:
    """Log the operation ids of a failing task that has no archive, and prevent a retry that could pay twice.

    :param error: what it fails with
    :param outcomes: of its recordings until then
    :raises AirflowFailException: a submission was lost. With an archive the retry would find it there, and send nothing
    """
    known = list(outcomes)
    if ids := _awaited(known):
        log.warning(
            "Without an archive nothing records the accepted operations. Give their ids to a sensor: %s",
            ", ".join(ids),
        )
    if lost := [one.recording.audio_uri for one in known if one.status is SubmitStatus.LOST]:
        raise AirflowFailException(
            f"{error} The task is not tried again: that could pay twice for what may have been accepted: "
            f"{', '.join(lost)}"
        ) from error


def _awaited(outcomes: Iterable[SubmitOutcome]) -> list[str]:
    return list(dict.fromkeys(one.operation_id for one in outcomes if one.is_awaited and one.operation_id))


def _archive_if_ended(archive: Archive, hook: SpeechKitHook, operation_id: str) -> bool:
    from airflow_speechkit.api.operation import OperationState

    operation = hook.get_operation(operation_id, attempts=1)
    if operation.state is OperationState.RUNNING:
        return False
    recognition = hook.get_recognition(operation_id, seen_done=True) if operation.is_fetched_apart else None
    archive.keep_operation(operation, recognition)
    return True
