"""Recordings become archived answers: submitted, waited for and archived as a stream."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_speechkit.errors import NotFinishedError, SettingsError, SpeechKitError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.providers.common.compat.sdk import Context

    from airflow_speechkit.operators.visit import SubmitVisit
    from airflow_speechkit.polling.target import PollTarget
    from airflow_speechkit.triggers.worker import WorkerWait

#: A deferred model may take 24 hours, and by the newest documentation so may any.
DEFAULT_TIMEOUT = timedelta(hours=26)
#: How much later than the wait's own deadline Airflow may end the deferral by itself.
BACKSTOP = timedelta(minutes=5)


class SpeechKitRecognizeOperator(SpeechKitSubmitOperator):
    """Submit recordings, wait for their operations, and archive each answer as soon as it is there.

    Returns the operation ids through XCom, like `SpeechKitRecognitionSensor`. What the submit quota doesn't allow yet
    is submitted later, in visits of at least 50 recordings; meanwhile earlier ones are asked for and archived as they
    end. Nothing is paid twice, whenever the task is killed, cleared or tried again. With ``deferrable=True`` the
    triggerer waits, and a worker is used for the submits only.

    What was refused or failed is named at the end, by recording; see `on_failure`. It takes all keywords of
    `SpeechKitSubmitOperator`, and these:

    :param timeout: seconds, or a timedelta, until the task gives up; the operations go on, and a retry waits for them
    :param poke_interval: seconds between checks of an operation; by default the checks come when the recording's
        length predicts its end
    :param cancel_on_kill: cancel the operations when the task is ended by a user. Recognitions that were accepted may
        be charged all the same
    :param delete_after_archiving: API v3: have the service delete each result once it is archived
    """

    def __init__(
        self,
        *,
        timeout: timedelta | float = DEFAULT_TIMEOUT,
        poke_interval: timedelta | float | None = None,
        cancel_on_kill: bool = False,
        delete_after_archiving: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.timeout = _seconds(timeout)
        self.poke_interval = None if poke_interval is None else _seconds(poke_interval)
        if self.poke_interval is not None and self.poke_interval <= 0:
            raise SettingsError(f"`poke_interval` is {poke_interval}; it has to be more than 0")
        if self.archive is False:
            raise SettingsError(
                "This operator needs an archive, and `archive` is False: its answers would be nowhere",
                todo="Name an archive, or use SpeechKitSubmitOperator and SpeechKitRecognitionSensor",
            )
        self.cancel_on_kill = cancel_on_kill
        self.delete_after_archiving = delete_after_archiving
        self._waiting: WorkerWait | None = None
        self._task_instance: Any = None

    def execute(self, context: Context) -> Any:
        """Submit what the quota allows, wait, archive, and go on until all recordings are through.

        :return: an operation id for one recording, a list for a list or a pattern
        :raises SpeechKitError: what went wrong, and with which recordings; a retry goes on where this one stopped
        :raises AirflowFailException: an operation ended without a result: a retry would submit and pay for it again
        :raises NotFinishedError: `timeout` is over
        :raises AirflowSkipException: there is nothing to hand on
        """
        return self._run(context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after the deferral.

        :param event: of the wait, see `wait_event`; of the time trigger, whatever it is
        """
        from airflow_speechkit.triggers.recognition import event_error

        event = event if isinstance(event, dict) else {"state": "timeout"}
        if (error := event_error(event)) is not None:
            raise error
        return self._run(context, is_first=False, gone=event.get("gone", ()))

    def on_kill(self) -> None:
        """Cancel what is left, where that was asked for and the task is really over."""
        if self.cancel_on_kill and self._waiting is not None:
            self._waiting.cancel_if_over(self._task_instance)

    def _run(self, context: Context, *, is_first: bool = True, gone: Collection[str] = ()) -> Any:
        self._task_instance = context.get("ti")
        while True:
            with self.visit(context, is_first=is_first) as visit:
                targets = self._targets(visit, gone)
                if not targets and visit.next_at is None:
                    return self._hand_on(visit, gone)
                deadline = visit.began_at.timestamp() + self.timeout
                self._check_time(deadline, len(targets) + visit.left)
                if self.deferrable:
                    self._defer(visit, targets, deadline)
                archive_url, is_first = visit.archive.url, False
            resume_at = deadline if visit.next_at is None else min(visit.next_at.timestamp(), deadline)
            gone = self._wait_in_worker(targets, archive_url, resume_at)
            if visit.next_at is not None:
                time.sleep(max(resume_at - time.time(), 0.0))

    def _targets(self, visit: SubmitVisit, gone: Collection[str]) -> list[PollTarget]:
        """Return what has to be waited for, and log how far the task is."""
        from airflow_speechkit.archive.batch import How
        from airflow_speechkit.hooks.archive import read_each
        from airflow_speechkit.triggers.progress import ended_so_far
        from airflow_speechkit.triggers.targets import poll_target

        ids = list(dict.fromkeys(one.operation_id for one in visit.outcomes if one.operation_id and one.error is None))
        ended = read_each(visit.archive.outcome, ids)
        running = [one for one in ids if ended[one] is None and one not in gone]
        failed = sum(found is not None and found.failure is not None for found in ended.values())
        before = {one.operation_id: one.how for one in visit.outcomes if one.how in (How.REUSED, How.FAILED)}
        failed_before = sum(how is How.FAILED for how in before.values())
        progress = ended_so_far(
            len(ids) - len(running) + failed_before, failed=failed + failed_before, archived_before=len(before)
        )
        self.log.info("%s", visit.progress(progress))
        submissions = read_each(visit.archive.submission, running)
        return [poll_target(one, submissions[one], interval_s=self.poke_interval) for one in running]

    def _defer(self, visit: SubmitVisit, targets: list[PollTarget], deadline: float) -> None:
        from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger

        if not targets:
            self.go_on(visit)
        timeout = timedelta(seconds=deadline - time.time()) + BACKSTOP
        self.defer(
            trigger=SpeechKitRecognitionTrigger(
                waiting=[one.to_json() for one in targets],
                speechkit_conn_id=self.speechkit_conn_id,
                archive=visit.archive.url,
                deadline=deadline,
                cancel_on_kill=self.cancel_on_kill,
                delete_after_archiving=self.delete_after_archiving,
                resume_at=None if visit.next_at is None else visit.next_at.timestamp(),
            ),
            method_name="execute_complete",
            timeout=timeout if self.execution_timeout is None else min(timeout, self.execution_timeout),
        )

    def _wait_in_worker(self, targets: list[PollTarget], archive_url: str, until: float) -> list[str]:
        from airflow_speechkit.triggers.wait import OperationWait
        from airflow_speechkit.triggers.worker import WorkerWait

        if not targets:
            return []
        self._waiting = WorkerWait(
            OperationWait(
                targets,
                speechkit_conn_id=self.speechkit_conn_id,
                archive=archive_url,
                delete_after_archiving=self.delete_after_archiving,
                cautious=True,
            )
        )
        return self._waiting.run(until).gone

    def _check_time(self, deadline: float, left: int) -> None:
        if time.time() >= deadline:
            raise NotFinishedError(
                f"{left} recordings are not through within {self.timeout:g} s",
                retry="goes on where this one stopped, and pays for nothing again",
            )

    def _hand_on(self, visit: SubmitVisit, gone: Collection[str]) -> Any:
        from airflow_speechkit.archive.batch import OnFailure
        from airflow_speechkit.triggers.failures import archived_failures, raise_failed, without_failed

        ids = [one.operation_id for one in visit.outcomes if one.operation_id and one.error is None]
        failures = archived_failures(visit.archive, list(dict.fromkeys(ids)), gone, now=datetime.now(UTC))
        if visit.on_failure is OnFailure.FAIL and failures:
            visit.close()
            refused = [one.error for one in visit.outcomes if one.error is not None]
            try:
                raise_failed([*refused, *failures.values()], of=len(visit.outcomes))
            except SpeechKitError as error:
                raise AirflowFailException(
                    f"{error} The task is not tried again: a retry would pay again, or end in the same way. Clear "
                    "it to send again what may end differently."
                ) from error
        handed_on = visit.hand_on()
        left = without_failed([handed_on] if isinstance(handed_on, str) else handed_on, failures, visit.on_failure)
        return left[0] if isinstance(handed_on, str) else left


def _seconds(given: timedelta | float) -> float:
    return given.total_seconds() if isinstance(given, timedelta) else float(given)
