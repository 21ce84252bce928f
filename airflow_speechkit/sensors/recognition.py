"""Wait until operations have ended, whichever way the task waits."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
    get_current_context,
)

from airflow_speechkit import errors
from airflow_speechkit.archive.layout import REFUSED_PREFIX
from airflow_speechkit.archive.ledger import Stage
from airflow_speechkit.errors import (
    ArchiveError,
    RecognitionFailedError,
    SettingsError,
    SpeechKitError,
    WrongBeforeSendingError,
)
from airflow_speechkit.hooks.archive import read_each
from airflow_speechkit.operation_ids import operation_ids
from airflow_speechkit.polling.blocking import due, next_poke
from airflow_speechkit.polling.dispatcher import LASTING, TRANSIENT
from airflow_speechkit.sensors.checking import Checker, Ending
from airflow_speechkit.sensors.expectation import compact, waiting_for
from airflow_speechkit.sensors.failures import MOST_NAMED, failure_of, failures_together, unknown_operation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.polling.blocking import BlockingAllowance
    from airflow_speechkit.polling.waiting import Waiting
    from airflow_speechkit.submission import Submission

ON_FAILURE = ("fail", "skip", "record")

#: A deferred model may take 24 hours, and by the newest documentation so may any.
DEFAULT_TIMEOUT = timedelta(hours=26)

#: How much later than the trigger's own deadline Airflow may end the deferral by itself.
BACKSTOP = timedelta(minutes=5)


class SpeechKitRecognitionSensor(BaseSensorOperator):
    """Wait until one operation, or each of many, has ended and its answer is archived.

    Returns the operation ids through XCom, never a result. All three ways of waiting (deferred, ``poke``,
    ``reschedule``) give the same: what is asked when is decided by `polling`, what an answer means by `api`.

    An operation that ended in an error fails the task with `RecognitionFailedError`, its code and its recording.
    The failure is archived, so a retry of the task ends at once and asks the service nothing. A result that
    the service has forgotten (three days) fails it with `ResultExpiredError`.

    :param operation_id: an operation id, a list of them, or what a mapped upstream hands on (templated)
    :param speechkit_conn_id: the connection (templated)
    :param archive: URL of the archive; by default the connection's, then ``[speechkit] archive``; ``False``
        waits without one (templated)
    :param deferrable: wait in the triggerer, without a worker; default: ``[operators] default_deferrable``
    :param poke_interval: seconds between checks of an operation; by default the checks come when the
        recording's length predicts its end
    :param timeout: seconds, or a timedelta, until the wait is given up; the operation itself goes on
    :param on_failure: what a failed operation of a list does: ``fail`` the task after all have ended, ``skip``
        it (leave it out of what is handed on), or ``record`` it (hand it on: it becomes a row with its error)
    :param cancel_on_kill: cancel the operations when the task is ended by a user. Recognitions that were
        accepted may be charged all the same
    :param delete_after_archiving: API v3: have the service delete each result once it is archived
    """

    template_fields: Sequence[str] = ("operation_id", "speechkit_conn_id", "archive")
    ui_color = "#fff3d6"

    def __init__(
        self,
        *,
        operation_id: str | Sequence[str],
        speechkit_conn_id: str = "speechkit_default",
        archive: str | bool | None = None,
        deferrable: bool | None = None,
        poke_interval: timedelta | float | None = None,
        timeout: timedelta | float = DEFAULT_TIMEOUT,
        on_failure: str = "fail",
        cancel_on_kill: bool = False,
        delete_after_archiving: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=60 if poke_interval is None else poke_interval, timeout=timeout, **kwargs)
        self.operation_id = operation_id
        self.speechkit_conn_id = speechkit_conn_id
        self.archive = archive
        self.deferrable = (
            conf.getboolean("operators", "default_deferrable", fallback=False) if deferrable is None else deferrable
        )
        self.on_failure = on_failure
        self.cancel_on_kill = cancel_on_kill
        self.delete_after_archiving = delete_after_archiving
        planned = poke_interval is None and not self.exponential_backoff
        self._interval_s = None if planned else self.poke_interval
        self._reset()
        if on_failure not in ON_FAILURE:
            raise SettingsError(f"`on_failure` is {on_failure!r}; it can be {', '.join(map(repr, ON_FAILURE))}")
        if self.deferrable:
            for name in ("exponential_backoff", "max_wait", "silent_fail"):
                if getattr(self, name):
                    raise SettingsError(
                        f"`{name}` means nothing to a deferred wait, which slows down by itself and survives errors",
                        todo="Leave it out, or set deferrable=False",
                    )

    def execute(self, context: Context) -> Any:
        """Wait until every operation has ended.

        :return: the operation ids, in the shape they were given: one, or a list
        :raises RecognitionFailedError: an operation ended in an error, and `on_failure` is ``fail``
        :raises ResultExpiredError: the service has forgotten a result that isn't archived
        :raises AirflowSensorTimeout: `timeout` is over; the operations go on, and a new try waits for them again
        """
        self._reset()
        if not self.deferrable:
            return super().execute(context)
        pending = self._waiting()
        if pending:
            self._defer(pending)
        return self._or_skip(self._handed_on)

    def _reset(self) -> None:
        self._left: list[Waiting] | None = None
        #: How operations ended, as far as this process has seen.
        self._ended: dict[str, Ending] = {}
        #: Those the archive doesn't know and that have not been asked for yet: nobody knows their age.
        self._ageless: set[str] = set()
        self._asked_at: float | None = None
        self._asked = 0
        self._failures = 0
        self._failing_since = 0.0

    def _defer(self, pending: list[Waiting]) -> None:
        from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger

        self.log.info("Waiting for %d operations in the triggerer", len(pending))
        self.defer(
            trigger=SpeechKitRecognitionTrigger(
                waiting=[compact(one) for one in pending],
                speechkit_conn_id=self.speechkit_conn_id,
                archive=self._archive_url,
                deadline=time.time() + self.timeout,
                cancel_on_kill=self.cancel_on_kill,
                delete_after_archiving=self.delete_after_archiving,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + BACKSTOP,
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after the deferral.

        :param event: ``state``: ``finished`` (with the ids that ``failed`` and those that are ``gone``),
            ``timeout`` (with how many are ``left``) or ``error`` (with its ``kind``, its
            ``message``, and whether a ``retry_can_help``)
        """
        self._reset()
        state = event.get("state")
        if state == "finished":
            self._ended = dict.fromkeys(event["failed"], Ending.FAILED) | dict.fromkeys(event["gone"], Ending.GONE)
            return self._or_skip(self._handed_on)
        if state == "timeout":
            raise AirflowSensorTimeout(
                f"{event['left']} of {event['of']} operations have not ended within {self.timeout:g} s. They go on, "
                "and what they cost is spent: run this task again to wait for them"
            )
        kind = getattr(errors, str(event.get("kind")), SpeechKitError)
        error = kind(str(event.get("message")), retry_can_help=event.get("retry_can_help"))
        if self.never_fail:
            raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
        raise error

    def _or_skip(self, hand_on: Callable[[], Any]) -> Any:
        """Do as `never_fail` says, which Airflow itself only does for the poke modes."""
        try:
            return hand_on()
        except SpeechKitError as error:
            if self.never_fail:
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask for what is due, in the modes that wait on a worker; archive what has ended."""
        if self._left is None:
            self._left = self._waiting()
            self._check_reschedule()
        now = time.time()
        asked = [one for one in self._left if one.operation_id in self._ageless][: self._allowance.at_once]
        aged = [one for one in self._left if one.operation_id not in self._ageless]
        asked += due(aged, self._asked_at, now, self._allowance)
        self._asked_at, self._asked = now, len(asked)
        for number, one in enumerate(asked):
            if number:
                time.sleep(self._allowance.pause_s)
            self._ask(one)
        self._left = [one for one in self._left if one.operation_id not in self._ended]
        if self._left:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._handed_on())

    def _check_reschedule(self) -> None:
        if self.reschedule and self._archive_url is None and len(self._left or ()) > 1:
            raise SettingsError(
                "A rescheduled task forgets which operations of its list have ended, unless an archive remembers them",
                todo="Name an archive, or set deferrable=True or mode='poke'",
            )

    def _ask(self, waiting: Waiting) -> None:
        operation_id = waiting.operation_id
        try:
            checked = self._checker.check(operation_id)
        except (ArchiveError, WrongBeforeSendingError):
            raise
        except SpeechKitError as error:
            self._tolerate(error)
            return
        self._failures = 0
        if checked.ending is not None:
            self._ended[operation_id] = checked.ending
        elif operation_id in self._ageless and checked.created_at is not None:
            begun = min(checked.created_at.timestamp(), time.time())
            self._left = [
                replace(one, submitted_at=begun) if one.operation_id == operation_id else one
                for one in self._left or ()
            ]
        self._ageless.discard(operation_id)

    def _tolerate(self, error: SpeechKitError) -> None:
        """Go on after an error, as long as the triggerer's poller would."""
        self._failing_since = self._failing_since if self._failures else time.time()
        self._failures += 1
        patience = TRANSIENT if error.retry_can_help else LASTING
        if patience.is_over(self._failures, time.time() - self._failing_since):
            raise error
        # A rescheduled task has forgotten by then how often it failed: what can't pass by itself ends it here.
        if self.reschedule and not error.retry_can_help:
            raise error
        self.log.warning("Asked for nothing, and will ask again: %s", error)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        if self._interval_s is not None or not self._left:
            return super()._get_next_poke_interval(started_at, run_duration, poke_count)
        now = time.time()
        wait_s = max(next_poke(self._left, self._asked, now, self._allowance) - now, 1.0)
        self.log.info("Waiting for %d operations; the next check is due in %.0f s", len(self._left), wait_s)
        return min(wait_s, max(self.timeout - run_duration(), 1.0))

    def on_kill(self) -> None:
        """Cancel what is left, where that was asked for and the task is really over."""
        if not self.cancel_on_kill or not getattr(self, "_left", None):
            return
        from airflow_speechkit.compat import TERMINAL_TASK_STATES, read_task_state

        try:
            state = read_task_state(get_current_context()["ti"])
        except Exception as error:  # noqa: BLE001 - whatever hides the state, not knowing it forbids to cancel
            self.log.warning("The task's state can't be read (%s): its operations go on", type(error).__name__)
            return
        if state not in TERMINAL_TASK_STATES:
            self.log.info("The task is %s: its operations go on", state)
            return
        for waiting in self._left or ():
            try:
                self._hook.cancel_operation(waiting.operation_id)
            except SpeechKitError as error:
                self.log.warning("Operation %s was not cancelled: %s", waiting.operation_id, error)

    # What is waited for, and what is handed on

    def _waiting(self) -> list[Waiting]:
        """Say what has to be waited for, with what the archive knows about its length."""
        ids = operation_ids(self.operation_id)
        submissions: Mapping[str, Submission | None] = {}
        self._check_refused(ids)
        if self.delete_after_archiving and self._archive_url is None:
            raise SettingsError("`delete_after_archiving` needs an archive, and `archive` is False")
        if self._archive_url is not None:
            outcomes = read_each(self._opened.outcome, ids)
            ids = [one for one in ids if outcomes[one] is None]
            submissions = read_each(self._opened.submission, ids)
        self._ageless = {one for one in ids if submissions.get(one) is None}
        now = time.time()
        return [waiting_for(one, submissions.get(one), now=now, interval_s=self._interval_s) for one in ids]

    def _check_refused(self, ids: Sequence[str]) -> None:
        refused = next((one for one in ids if one.startswith(REFUSED_PREFIX)), None)
        if refused is not None and self._archive_url is None:
            raise SettingsError(
                f"{refused} stands for a recording that was not submitted, and only an archive knows why",
                todo="Name the archive that the submit task used",
            )

    def _handed_on(self) -> str | list[str]:
        """Return the ids as they were given, or say what failed."""
        ids = operation_ids(self.operation_id)
        failures = self._failed(ids)
        if failures and self.on_failure == "fail":
            raise failures_together(failures, of=len(ids))
        for error in list(failures.values())[:MOST_NAMED]:
            self.log.warning("%s: %s", "Skipped" if self.on_failure == "skip" else "On record as failed", error)
        left = [one for one in ids if one not in failures] if self.on_failure == "skip" else ids
        if not left:
            raise AirflowSkipException("Every operation failed, and `on_failure` is 'skip'")
        return left[0] if isinstance(self.operation_id, str) else left

    def _failed(self, ids: Sequence[str]) -> dict[str, SpeechKitError]:
        if self._archive_url is None:
            ended = self._ended.items()
            return {one: self._unarchived_failure(one) for one, how in ended if how is not Ending.DONE}
        failed: dict[str, Outcome] = {}
        for operation_id, found in read_each(self._opened.outcome, ids).items():
            outcome = self._gone(operation_id) if found is None else found
            if outcome.failure is not None and outcome.stage is not Stage.REFUSED:
                failed[operation_id] = outcome
        submissions = read_each(self._opened.submission, failed)
        return {one: failure_of(outcome, submissions[one]) for one, outcome in failed.items()}

    def _gone(self, operation_id: str) -> Outcome:
        """Put on record that the service has forgotten an operation, if it can have."""
        if self._ended.get(operation_id) is Ending.GONE:
            self._opened.expire(operation_id, datetime.now(UTC))
            outcome = self._opened.outcome(operation_id)
            if outcome is None:
                raise unknown_operation(operation_id)
            return outcome
        raise ArchiveError(
            "The archive has no answer of an operation that has ended",
            operation_id=operation_id,
            retry="asks the service for it again",
        )

    def _unarchived_failure(self, operation_id: str) -> SpeechKitError:
        if self._ended[operation_id] is Ending.GONE:
            return unknown_operation(operation_id)
        operation = self._hook.get_operation(operation_id)
        return RecognitionFailedError(
            f"The recognition failed: {operation.error_message} (code {operation.error_code})",
            code=operation.error_code,
            message=operation.error_message,
            operation_id=operation_id,
        )

    @cached_property
    def _hook(self) -> SpeechKitHook:
        from airflow_speechkit.hooks.speechkit import SpeechKitHook

        return SpeechKitHook(self.speechkit_conn_id)

    @cached_property
    def _archive_url(self) -> str | None:
        from airflow_speechkit.hooks.archive import archive_url

        return archive_url(self.archive, self._hook)

    @cached_property
    def _opened(self) -> Archive:
        from airflow_speechkit.hooks.archive import open_archive

        assert self._archive_url is not None  # noqa: S101 - for the type checker: callers have looked
        return open_archive(self._archive_url)

    @cached_property
    def _checker(self) -> Checker:
        return Checker(self._hook, None if self._archive_url is None else self._opened, self.delete_after_archiving)

    @cached_property
    def _allowance(self) -> BlockingAllowance:
        from airflow_speechkit.polling.blocking import BlockingAllowance

        versions = {one.api_version for one in self._left or ()}
        return BlockingAllowance.of(
            # Of a list with both, the scarcer quota.
            "v2" if "v2" in versions or not versions else "v3",
            checks_per_hour=self._hook.checks_per_hour,
            checks_per_second=self._hook.checks_per_second,
        )
