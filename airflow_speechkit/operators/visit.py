"""One visit of a task to its recordings: what has been sent, what is left, and what is handed on in the end."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_speechkit.archive.batch import How, Origin
from airflow_speechkit.archive.handing_on import Receiver, old_ones, put_on_record
from airflow_speechkit.archive.layout import ROOT_FILE
from airflow_speechkit.archive.run import read_run, remove_run
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import (
    ArchiveError,
    NotFinishedError,
    OperationNotFoundError,
    SpeechKitError,
    StorageError,
)
from airflow_speechkit.hooks.archive import archive_url, open_archive
from airflow_speechkit.operators.collecting import archive_if_ended, collect, fail_without_archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_speechkit.archive.batch import OnFailure, SubmitOutcome, Visit
    from airflow_speechkit.archive.run import RunRecord
    from airflow_speechkit.archive.submitting import Submitter
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.models import Recording
    from airflow_speechkit.settings import RecognitionSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SubmitVisit:
    """What a task has done about its recordings so far. Their archive and the service's connection are open.

    :param hook: the service's connection
    :param submitter: what has submitted them, with their archive
    :param done: what became of them
    :param began_at: when the first visit of this try began
    :param many: whether a list is handed on, of whatever length
    :param on_failure: what becomes of the task when a recording can't be submitted
    :param record_scope: the task instance, if another visit may follow and finds what this one has put on record
    :param receiver: the run that is to be handed only what no other one was
    """

    hook: SpeechKitHook
    submitter: Submitter
    done: Visit
    began_at: datetime
    many: bool
    on_failure: OnFailure
    record_scope: str | None = None
    receiver: Receiver | None = None

    @property
    def archive(self) -> Archive:
        """Where submissions and answers are kept."""
        return self.submitter.archive

    @property
    def outcomes(self) -> Sequence[SubmitOutcome]:
        """What became of each, with its operation id, in the order of the recordings, but for those that are left."""
        return self.done.outcomes

    @property
    def left(self) -> int:
        """How many are left to send."""
        return self.done.left

    @property
    def next_at(self) -> datetime | None:
        """When to send the next, in another visit; None where none is left."""
        return self.done.next_at

    def progress(self, ended: str = "") -> str:
        """Return how far the task is, in words.

        :param ended: what to say about operations that have ended
        """
        # A recording that is listed twice is one.
        each = {one.fingerprint: one for one in self.outcomes}.values()
        refused = sum(one.operation_id is None for one in each)
        numbers = [f"submitted {len(each) - refused:,} of {len(each) + self.left:,}", ended, f"refused {refused:,}"]
        next_at = "" if self.next_at is None else f"the next go out at {self.next_at:%H:%M:%S} UTC"
        return ", ".join(filter(None, [*numbers, next_at]))

    def hand_on(self) -> str | list[str]:
        """Return the operation ids: one for one recording, a list for a list or a pattern.

        :raises SpeechKitError: what went wrong, and with which recording
        :raises AirflowFailException: without an archive, a request may have been taken: a retry could pay again
        :raises AirflowSkipException: there is nothing to hand on
        """
        outcomes = self.outcomes
        if self.receiver is not None:
            outcomes = _new(self.archive, outcomes, self.receiver)
        try:
            ids = self.submitter.hand_on(outcomes, self.on_failure)
        except ArchiveError:
            # Another visit may follow.
            raise
        except SpeechKitError as error:
            self.close()
            self._look_after(outcomes, error)
            raise
        if self.receiver is not None:
            put_on_record(self.archive, self.receiver, ids, datetime.now(UTC))
        self.close()
        if not ids:
            raise AirflowSkipException("There is nothing new" if self.receiver else "Every recording was skipped")
        return ids if self.many else ids[0]

    def close(self) -> None:
        """Remove the record of the visits: no other one follows."""
        if self.record_scope is None:
            return
        try:
            remove_run(self.archive, self.record_scope)
        except StorageError as error:
            # The task's next try replaces it.
            log.warning("The record of this task's visits stays in the archive: %s", error)

    def _look_after(self, outcomes: Sequence[SubmitOutcome], error: SpeechKitError) -> None:
        """Archive what has ended of operations that nobody waits for while the task fails."""
        if self.submitter.policy.without_archive:
            fail_without_archive(error, outcomes)
            return
        try:
            collect(
                self.archive, outcomes, lambda one: archive_if_ended(self.hook, self.archive, one), datetime.now(UTC)
            )
        except SpeechKitError as trouble:
            log.warning("What was submitted before can't be looked after: %s", trouble)


def submit(submitter: Submitter, items: Sequence[Recording], *, waits: bool) -> Visit:
    """Submit recordings: all of them, or those for which the quota needn't be waited for.

    :param waits: whether to wait for it
    :raises SpeechKitError: nothing more could be sent
    :raises AirflowFailException: without an archive, a request may have been taken: a retry could pay again
    """
    try:
        return submitter.visit(items, waits=waits)
    except SpeechKitError as error:
        if submitter.policy.without_archive:
            fail_without_archive(error, submitter.concluded)
        raise


def known_run(archive: Archive, scope: str | None, settings: RecognitionSettings) -> RunRecord:
    """Return what the visits before this one have come to.

    :param scope: the task instance
    :param settings: those of its recordings
    :raises AirflowFailException: it isn't there: this may be another archive, in which nothing is paid for yet
    """
    run = None if scope is None else read_run(archive, scope, settings)
    if run is None:
        raise AirflowFailException(
            f"The archive at {archive.url} does not have what this task put there before it was deferred, so nothing "
            "more is submitted. Is the disk mounted, and is it the same archive? Clear the task when it is back"
        )
    return run


@contextmanager
def opened_archive(setting: str | bool | None, hook: SpeechKitHook, *, is_first: bool = True) -> Iterator[Archive]:
    """Open the archive, and see that it can be relied on.

    :param setting: the operator's `archive`; with ``False`` it is one that is thrown away afterwards
    :param is_first: whether the task has not used it before
    """
    url = archive_url(setting, hook)
    if url is None:
        log.warning("Without an archive this pays for every recording, and so does every retry")
        with tempfile.TemporaryDirectory(prefix="speechkit-") as forgotten:
            archive = Archive.at(forgotten)
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
    if ti is None:
        return Origin(speechkit_conn_id=speechkit_conn_id)
    return Origin(
        speechkit_conn_id=speechkit_conn_id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
    )


def receiver_of(context: Context) -> Receiver | None:
    """Return the run that operations are handed to, where there is one."""
    ti = context.get("ti")
    return None if ti is None else Receiver(dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id)


def check_time(began_at: datetime, timeout_s: float | None, left: str) -> None:
    """Fail where the task's own time is over.

    :param began_at: when the first visit began
    :param timeout_s: the task's time in seconds, if it is limited
    :param left: what is left to do, in words
    :raises NotFinishedError: it is over
    """
    if timeout_s is not None and datetime.now(UTC) >= began_at + timedelta(seconds=timeout_s):
        raise NotFinishedError(
            f"Not all recordings are through within {timeout_s:g} s: {left}", retry="goes on where this one stopped"
        )


def still_known(hook: SpeechKitHook, operation_id: str) -> bool:
    """Ask whether the service still has an operation."""
    try:
        hook.get_operation(operation_id)
    except OperationNotFoundError:
        return False
    return True


def _new(archive: Archive, outcomes: Sequence[SubmitOutcome], receiver: Receiver) -> list[SubmitOutcome]:
    """Leave out what another run was handed, and whose answer is archived."""
    reused = [one.operation_id for one in outcomes if one.how is How.REUSED and one.operation_id]
    old = old_ones(archive, receiver, reused)
    return [one for one in outcomes if one.operation_id not in old]
