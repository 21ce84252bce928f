"""One visit of a submit task: it opens the archive, submits what the quota allows, and returns ids in the end."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_speechkit.archive.layout import ROOT_FILE
from airflow_speechkit.archive.runs import Delivery, delivered_before, read_run, record_delivery, remove_run
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import Origin, SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import ArchiveError, NotFinishedError, SpeechKitError
from airflow_speechkit.hooks.archive import archive_url, open_archive
from airflow_speechkit.operators.collecting import collect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_speechkit.archive.runs import SubmitRun
    from airflow_speechkit.archive.submit import Submitter
    from airflow_speechkit.archive.submit_rules import OnFailure
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.recordings.source import RecordingSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SubmitVisit:
    """What a task has done about its recordings so far. The archive and the service's connection are open.

    :param hook: the service's connection
    :param submitter: what has submitted them, with their archive
    :param run: what became of them
    :param on_failure: what a recording that can't be submitted does to the task
    :param record_scope: the task instance, if another visit may follow
    :param delivery: the run to deliver to, if it gets only what no other one got
    """

    hook: SpeechKitHook
    submitter: Submitter
    run: SubmitRun
    on_failure: OnFailure
    record_scope: str | None = None
    delivery: Delivery | None = None

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
        left = len({(one.audio_uri, one.version) for one in self.run.left})
        refused = sum(one.operation_id is None for one in each)
        numbers = [f"submitted {len(each) - refused:,} of {len(each) + left:,}", ended, f"refused {refused:,}"]
        next_at = "" if self.run.next_at is None else f"the next go out at {self.run.next_at:%H:%M:%S} UTC"
        return ", ".join(filter(None, [*numbers, next_at]))

    def hand_on(self) -> str | list[str]:
        """Return the operation ids: one for one recording, a list for a list or a pattern.

        :raises SpeechKitError: what went wrong, and with which recording
        :raises AirflowFailException: without an archive, a request may have been accepted: a retry could pay again
        :raises AirflowSkipException: there is nothing to return
        """
        outcomes = self.run.done
        if self.delivery is not None:
            reused = [one.operation_id for one in outcomes if one.status is SubmitStatus.REUSED and one.operation_id]
            old = delivered_before(self.archive, self.delivery, reused)
            outcomes = [one for one in outcomes if one.operation_id not in old]
        try:
            ids = self.submitter.hand_on(outcomes, self.on_failure)
        except ArchiveError:
            # Another visit may follow.
            raise
        except SpeechKitError:
            self.close()
            self._collect(outcomes)
            raise
        if self.delivery is not None:
            record_delivery(self.archive, self.delivery, ids, datetime.now(UTC))
        self.close()
        if not ids:
            raise AirflowSkipException("There is nothing new" if self.delivery else "Every recording was skipped")
        return ids if self.run.returns_list else ids[0]

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
    """Return what the visits before this one have come to, with the recordings that are left looked up again.

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
    again = iter(source.resolve_again(run.left))
    outcomes = [SubmitOutcome(recording=next(again)) if one.status is None else one for one in run.outcomes]
    return replace(run, outcomes=outcomes)


@contextmanager
def opened_archive(setting: str | bool | None, hook: SpeechKitHook, *, is_first: bool = True) -> Iterator[Archive]:
    """Open the archive, and check that it excludes a second writer.

    :param setting: the operator's `archive`; with ``False`` it is temporary
    :param is_first: whether the task has not used it before
    """
    url = archive_url(setting, hook)
    if url is None:
        log.warning("Without an archive this pays for every recording, and so does every retry")
        with tempfile.TemporaryDirectory(prefix="speechkit-") as temporary:
            archive = Archive.at(temporary)
            archive.folder.create(ROOT_FILE, b"{}")
            yield archive
        return
    archive = open_archive(url)
    if is_first:
        archive.probe(datetime.now(UTC))
    yield archive


def origin_of(context: Context, speechkit_conn_id: str) -> Origin:
    """Return who submits: the connection, and the task instance where there is one."""
    ti = context.get("ti")
    names = () if ti is None else ("dag_id", "run_id", "task_id", "map_index")
    return Origin(speechkit_conn_id=speechkit_conn_id, **{name: getattr(ti, name) for name in names})


def delivery_to(context: Context) -> Delivery | None:
    """Return the run that operations are delivered to, where there is one."""
    ti = context.get("ti")
    return None if ti is None else Delivery(dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id)


def check_time(began_at: datetime, timeout_s: float | None, left: str) -> None:
    """Fail if the task's own time is over.

    :param began_at: when the first visit began
    :param timeout_s: the task's time in seconds, if it is limited
    :param left: what is left to do, in words
    :raises NotFinishedError: it is over
    """
    if timeout_s is not None and datetime.now(UTC) >= began_at + timedelta(seconds=timeout_s):
        raise NotFinishedError(
            f"Not all recordings are through within {timeout_s:g} s: {left}", retry="continues where this one stopped"
        )
