"""Recordings become archived answers: submitted, waited for and archived as a stream."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, Context

from airflow_speechkit.archive.layout import read_each
from airflow_speechkit.archive.submit_rules import OnFailure, SubmitStatus
from airflow_speechkit.errors import ArchiveError, SettingsError, SpeechKitError
from airflow_speechkit.hooks.archive import read_submissions, when_reachable
from airflow_speechkit.keywords import Checks, optional, seconds
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.polling.target import PollTarget
from airflow_speechkit.triggers.failures import apply_on_failure, archived_failures, is_sent_again, raise_failed
from airflow_speechkit.triggers.recognition import BACKSTOP, DEFAULT_TIMEOUT, WaitingTask
from airflow_speechkit.triggers.result_archiver import delete_archived_results
from airflow_speechkit.triggers.wait import WaitResult

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_speechkit.operators.visit import SubmitVisit
    from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger


class SpeechKitRecognizeOperator(WaitingTask, SpeechKitSubmitOperator):
    """Submit recordings, wait for their operations, and archive each answer as soon as it is there.

    Returns the operation ids through XCom, like `SpeechKitRecognitionSensor`. What the submit quota doesn't allow yet
    is submitted later, in visits of at least 50 recordings; meanwhile earlier ones are asked for and archived as they
    end. Nothing is paid twice, whenever the task is killed, cleared or tried again. With ``deferrable=True`` the
    triggerer waits, and a worker is used for the submits only.

    What was refused or failed is named at the end, by recording; see `on_failure`. It takes all keywords of
    `SpeechKitSubmitOperator`, and these:

    :param timeout: seconds, or a timedelta, until the task fails, and submits no more; the operations continue, and a
        retry waits for them (templated)
    :param poke_interval: seconds between checks of an operation; by default the checks come when the recording's
        length predicts its end (templated)
    :param cancel_on_kill: cancel the operations when the task is ended by a user. Recognitions that were accepted may
        be charged all the same
    :param delete_after_archiving: API v3: have the service delete each result once it is archived
    """

    template_fields = (*SpeechKitSubmitOperator.template_fields, "timeout", "poke_interval")
    typed_fields: ClassVar[Checks] = {
        **SpeechKitSubmitOperator.typed_fields,
        "timeout": seconds,
        "poke_interval": optional(seconds),
    }

    def __init__(
        self,
        *,
        timeout: timedelta | float | str = DEFAULT_TIMEOUT,
        poke_interval: timedelta | float | str | None = None,
        cancel_on_kill: bool = False,
        delete_after_archiving: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_keywords(locals())
        if self.archive is False:
            raise SettingsError(
                "This operator needs an archive, and `archive` is False: its answers would be nowhere",
                hint="Set an archive, or use SpeechKitSubmitOperator and SpeechKitRecognitionSensor",
            )

    def execute(self, context: Context) -> Any:
        """Submit what the quota allows, wait and archive, until all recordings are done.

        :return: an operation id for one recording, a list for a list, a pattern, or a recording in parts
        :raises SpeechKitError: what went wrong, and with which recordings; a retry continues where this one stopped
        :raises AirflowFailException: an operation ended without a result: a retry would submit and pay for it again
        :raises NotFinishedError: `timeout` is over
        :raises AirflowSkipException: there is nothing to return
        """
        return self._run(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after the deferral.

        :param event: of the wait, see `WaitResult.to_event`
        """
        result = WaitResult.from_event(event)
        if result.error is not None:
            raise result.error
        return self._run(context, is_first=False, not_found=result.not_found)

    def on_kill(self) -> None:
        """Cancel what is left, where that was asked for and the task is really over."""
        if self.cancel_on_kill and self._waiting is None and self._submitter is not None:
            # In the middle of a visit.
            archive = self._submitter.archive
            sent = {one.operation_id for one in self._submitter.done if one.operation_id and one.is_awaited}
            ended = read_each(archive.outcome, sent)
            targets = [PollTarget.of(one, None) for one, outcome in ended.items() if outcome is None]
            self._waiting = self._trigger(archive, targets, 0.0).wait
        super().on_kill()

    def _run(self, context: Context, *, is_first: bool = True, not_found: Collection[str] = ()) -> Any:
        self._task_instance = context.get("ti")
        while True:
            self._waiting = None
            visit = partial(self._visit, context, not_found, is_first=is_first)
            # The first visit finds that it is the wrong archive. Later it can only be unreachable.
            returned, trigger = visit() if is_first else when_reachable(visit)
            if trigger is None:
                return returned
            is_first = False
            until = trigger.resume_at or trigger.deadline
            not_found = self._run_wait(trigger.wait, until).not_found
            if trigger.resume_at is not None:
                time.sleep(max(until - time.time(), 0.0))

    def _visit(
        self, context: Context, not_found: Collection[str], *, is_first: bool
    ) -> tuple[Any, SpeechKitRecognitionTrigger | None]:
        """Submit what the quota allows; return what the task returns, or the next wait, or defer that."""
        from airflow_speechkit.operators.visit import check_time

        with self.visit(context, is_first=is_first, timeout_s=self.timeout) as visit:
            targets = self._targets(visit, not_found, is_first=is_first)
            if not targets and visit.run.next_at is None:
                return self._returned_ids(visit, not_found), None
            check_time(visit.run.began_at, self.timeout, f"{len(targets)} operations have not ended")
            deadline = visit.run.began_at + timedelta(seconds=self.timeout)
            resume_at = None if visit.run.next_at is None else min(visit.run.next_at, deadline).timestamp()
            trigger = self._trigger(visit.archive, targets, deadline.timestamp(), resume_at)
            if self.deferrable:
                timeout = self.time_left(visit.run.began_at, deadline + BACKSTOP)
                self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)
            return None, trigger

    def _targets(self, visit: SubmitVisit, not_found: Collection[str], *, is_first: bool) -> list[PollTarget]:
        """Return what has to be waited for, and log how far the task is."""
        ids = _accepted(visit)
        ended = read_each(visit.archive.outcome, ids)
        if self.delete_after_archiving and is_first:
            delete_archived_results(ended, visit.hook)
        running = [one for one in ids if ended[one] is None and one not in not_found]
        failed = sum(found is not None and found.failure is not None for found in ended.values())
        failed_before = {one.operation_id for one in visit.run.done if one.status is SubmitStatus.FAILED}
        failed += len(failed_before)
        progress = f"ended {len(ids) - len(running) + len(failed_before):,}, failed {failed:,}"
        self.log.info("%s", visit.progress(progress))
        submissions = read_submissions(visit.archive, running)
        return [PollTarget.of(one, submissions[one], interval_s=self.poke_interval) for one in running]

    def _returned_ids(self, visit: SubmitVisit, not_found: Collection[str]) -> Any:
        failures = archived_failures(visit.archive, _accepted(visit), not_found)
        fails = visit.on_failure is OnFailure.FAIL
        try:
            if fails and failures:
                visit.close()
                refused = [one.error for one in visit.run.done if one.error is not None]
                sent = [one for one in visit.run.done if one.status is not SubmitStatus.FILTERED]
                raise_failed([*refused, *failures.values()], of=len(sent))
            ids_on = visit.returned_ids()
        except ArchiveError:
            raise
        except SpeechKitError as error:
            if failures and (fails or any(map(is_sent_again, failures.values()))):
                raise AirflowFailException(
                    f"{error} The task is not tried again: a retry would pay again, or end in the same way. Clear "
                    "it to send again what may end differently."
                ) from error
            raise
        left = apply_on_failure([ids_on] if isinstance(ids_on, str) else ids_on, failures, visit.on_failure)
        return left[0] if isinstance(ids_on, str) else left


def _accepted(visit: SubmitVisit) -> list[str]:
    """Return the operations of the recordings that were submitted without an error."""
    return list(dict.fromkeys(one.operation_id for one in visit.run.done if one.operation_id and one.error is None))
