"""Wait until operations have ended, in any of the three modes."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    Context,
    PokeReturnValue,
    conf,
)

from airflow_speechkit.archive.layout import is_unsent, read_each
from airflow_speechkit.archive.submit_rules import OnFailure
from airflow_speechkit.errors import SettingsError, SpeechKitError
from airflow_speechkit.hooks.archive import read_submissions, task_archive, when_reachable
from airflow_speechkit.keywords import CheckedFields, Checks, optional, seconds
from airflow_speechkit.models import Submission, operation_ids
from airflow_speechkit.polling.target import PollTarget
from airflow_speechkit.settings import member_of
from airflow_speechkit.triggers.failures import apply_on_failure, archived_failures, service_failures
from airflow_speechkit.triggers.recognition import BACKSTOP, DEFAULT_TIMEOUT, WaitingTask
from airflow_speechkit.triggers.result_archiver import delete_archived_results
from airflow_speechkit.triggers.wait import WaitResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook


class SpeechKitRecognitionSensor(WaitingTask, CheckedFields, BaseSensorOperator):
    """Wait until one operation, or each of many, has ended and its answer is archived.

    Returns the operation ids through XCom, never a result. All three ways of waiting (deferred, ``poke``,
    ``reschedule``) run the same code and give the same.

    An operation that ended in an error fails the task with `RecognitionFailedError`, its code and its recording.
    The failure is archived, so a retry of the task ends at once and sends no request. A result that
    the service has deleted (after three days) fails it with `ResultExpiredError`.

    :param operation_id: an operation id, a list of them, or what a mapped upstream returns (templated)
    :param speechkit_conn_id: the connection (templated)
    :param archive: URL of the archive; by default the connection's, then ``[speechkit] archive``; ``False``
        waits without one (templated)
    :param deferrable: wait in the triggerer, without a worker, whatever `mode` says; default:
        ``[operators] default_deferrable``
    :param poke_interval: seconds between checks of an operation; by default the checks come when the
        recording's length predicts its end. Errors and used-up quotas make for longer pauses
        (templated)
    :param timeout: seconds, or a timedelta, until the wait is given up; the operation itself goes on (templated)
    :param on_failure: what a failed operation of a list does: ``fail`` the task after all have ended, ``skip``
        it (leave it out of what is returned), or ``record`` it (return it: it becomes a row with its error).
        An id that the service doesn't know, and whose end is not on record, can't become a row: ``record``
        leaves it out, with a warning in the log, and fails if nothing else is left
    :param cancel_on_kill: cancel the operations when the task is ended by a user. Recognitions that were
        accepted may be charged all the same. Not for ``mode="reschedule"``, which has no process between its checks
    :param delete_after_archiving: API v3: have the service delete each result once it is archived, also one
        that was archived before
    """

    template_fields: Sequence[str] = ("operation_id", "speechkit_conn_id", "archive", "poke_interval", "timeout")
    address_fields = ("archive",)
    typed_fields: ClassVar[Checks] = {"poke_interval": optional(seconds), "timeout": seconds}
    ui_color = "#fff3d6"

    def __init__(
        self,
        *,
        operation_id: str | Sequence[str],
        speechkit_conn_id: str = "speechkit_default",
        archive: str | bool | None = None,
        deferrable: bool | None = None,
        poke_interval: timedelta | float | str | None = None,
        timeout: timedelta | float | str = DEFAULT_TIMEOUT,
        on_failure: str = "fail",
        cancel_on_kill: bool = False,
        delete_after_archiving: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_keywords(locals())
        self.on_failure = member_of(OnFailure, on_failure, "on_failure").value
        if deferrable is None:
            self.deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self._next_check_s = 0.0
        self._check_mode()

    def _check_mode(self) -> None:
        for name in ("exponential_backoff", "max_wait", "silent_fail"):
            if getattr(self, name):
                raise SettingsError(
                    f"`{name}` has no effect on this sensor: its checks come when the recording's length predicts the "
                    "end, and errors make it slow down",
                    hint="Remove it",
                )
        if self.cancel_on_kill and self.reschedule and not self.deferrable:
            raise SettingsError(
                "`cancel_on_kill` doesn't work with mode='reschedule': between the checks the task has no process",
                hint="Remove it, or set deferrable=True or mode='poke'",
            )

    def execute(self, context: Context) -> Any:
        """Wait until every operation has ended.

        :return: the operation ids, in the shape they were given: one, or a list
        :raises RecognitionFailedError: an operation ended in an error, and `on_failure` is ``fail``
        :raises ResultExpiredError: the service no longer has a result that isn't archived
        :raises AirflowSensorTimeout: `timeout` is over; the operations go on, and a new try waits for them again
        """
        if not self.deferrable:
            return super().execute(context)
        targets = self._targets()
        if targets:
            trigger = self._trigger(self._archive, targets, time.time() + self.timeout)
            timeout = timedelta(seconds=self.timeout) + BACKSTOP
            self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)
        return self._complete(WaitResult())

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Resume after the deferral.

        :param event: see `WaitResult.to_event`
        """
        return self._complete(WaitResult.from_event(event))

    def _complete(self, result: WaitResult) -> Any:
        """Return the ids after the deferral. Airflow applies `never_fail` in the poke modes only."""
        try:
            if result.error is not None:
                raise result.error
            return self._returned_ids(result)
        except SpeechKitError as error:
            if self.never_fail:
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        """Wait in the worker: until all have ended, or in reschedule mode until nothing is due for a while."""
        from airflow_speechkit.compat import first_start

        self._task_instance = context.get("ti")
        before = first_start(context, retries=self.retries or 0) if self.reschedule else None
        # An archive that isn't the right one is found out at once; it can only be out of reach later.
        targets = self._targets() if before is None else when_reachable(self._targets)
        result = WaitResult()
        if targets:
            if self.reschedule and self._archive is None and len(targets) > 1:
                raise SettingsError(
                    "Without an archive a rescheduled task can't tell which operations of its list have ended",
                    hint="Name an archive, or set deferrable=True or mode='poke'",
                )
            deadline = (before.timestamp() if before else time.time()) + self.timeout
            wait = self._trigger(self._archive, targets, deadline).wait
            result = self._run_wait(wait, deadline, stop_when_idle=self.reschedule)
            if result.next_check_s is not None:
                self._next_check_s = result.next_check_s
                self.log.info("%d operations left; the next check is due in %.0f s", result.left, result.next_check_s)
                return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=when_reachable(lambda: self._returned_ids(result)))

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        return min(max(self._next_check_s, 1.0), max(self.timeout - run_duration(), 1.0))

    def _targets(self) -> list[PollTarget]:
        """Return what has to be waited for, with what the archive knows about its length."""
        ids = left = operation_ids(self.operation_id)
        submissions: Mapping[str, Submission | None] = {}
        if self._archive is not None:
            outcomes = read_each(self._archive.outcome, ids)
            if self.delete_after_archiving:
                delete_archived_results(outcomes, self._hook)
            left = [one for one in ids if outcomes[one] is None]
            submissions = read_submissions(self._archive, left)
        elif self.delete_after_archiving:
            raise SettingsError("`delete_after_archiving` needs an archive, and `archive` is False")
        unsent = next((one for one in left if is_unsent(one)), None)
        if unsent is not None:
            raise SettingsError(
                f"{unsent} is the id of a recording that was not submitted, and only an archive knows why",
                hint="Name the archive that the submit task used",
            )
        where = "in the triggerer" if self.deferrable else "in this worker"
        self.log.info("Waiting %s for %s of %s operations", where, f"{len(left):,}", f"{len(ids):,}")
        return [PollTarget.of(one, submissions.get(one), interval_s=self.poke_interval) for one in left]

    def _returned_ids(self, result: WaitResult) -> str | list[str]:
        """Return the ids as they were given, or raise what failed.

        :param result: what came of the wait
        """
        if result.left:
            raise AirflowSensorTimeout(
                f"{result.left} of {result.of} operations have not ended, or could not be archived, within "
                f"{self.timeout:g} s. They go on, and what they cost is spent: run this task again to wait for them"
            )
        ids = operation_ids(self.operation_id)
        if self._archive is not None:
            failures = archived_failures(self._archive, ids, result.not_found)
        else:
            failures = service_failures(self._hook, result.failed, result.not_found)
        self.log.info("All of %s operations have ended; %s failed", f"{len(ids):,}", f"{len(failures):,}")
        left = apply_on_failure(ids, failures, OnFailure(self.on_failure))
        return left[0] if isinstance(self.operation_id, str) else left

    @cached_property
    def _hook(self) -> SpeechKitHook:
        from airflow_speechkit.hooks.speechkit import SpeechKitHook

        return SpeechKitHook(self.speechkit_conn_id)

    @cached_property
    def _archive(self) -> Archive | None:
        return task_archive(self.archive, self._hook)
