"""What the tasks that wait have in common: the sensor, and the operator that submits and waits."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_speechkit.compat import CANCEL_TIMEOUT_S, task_is_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.polling.target import PollTarget
    from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger
    from airflow_speechkit.triggers.wait import OperationWait, WaitResult

log = logging.getLogger(__name__)

#: A deferred model may take 24 hours, and by the newest documentation so may any.
DEFAULT_TIMEOUT = timedelta(hours=26)
#: How much later than the wait's own deadline Airflow may end the deferral by itself.
BACKSTOP = timedelta(minutes=5)


class WaitingTask:
    """What the sensor and `SpeechKitRecognizeOperator` have in common."""

    speechkit_conn_id: str
    cancel_on_kill: bool
    delete_after_archiving: bool
    _waiting: OperationWait | None = None
    _task_instance: Any = None

    def on_kill(self) -> None:
        """Have the service cancel what runs, where that was asked for and the task doesn't go on by itself."""
        if not self.cancel_on_kill or self._waiting is None or not self._waiting.running:
            return
        if task_is_over(self._task_instance):
            try:
                asyncio.run(asyncio.wait_for(self._waiting.cancel_running(), CANCEL_TIMEOUT_S))
            except TimeoutError:
                log.warning("Not every operation could be cancelled within %g s", CANCEL_TIMEOUT_S)

    def _run_wait(self, wait: OperationWait, deadline: float, *, stop_when_idle: bool = False) -> WaitResult:
        """Wait in an event loop in a thread of its own.

        Airflow ends a task (SIGTERM, `execution_timeout`) by an exception that it raises wherever the main thread is:
        that must not be in a coroutine.

        :param deadline: when to stop, in seconds since the epoch
        :param stop_when_idle: stop where nothing is due for a while
        :raises SpeechKitError: why the wait was given up
        """
        # It can't know who else polls.
        wait.cautious = True
        self._waiting = wait
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            loop = runner.get_loop()
            task = loop.create_task(wait.run(deadline, exactly=True, stop_when_idle=stop_when_idle))
            with ThreadPoolExecutor(1, thread_name_prefix="speechkit-wait") as pool:
                running = pool.submit(loop.run_until_complete, task)
                try:
                    result: WaitResult = running.result()
                except BaseException:
                    loop.call_soon_threadsafe(task.cancel)
                    raise
        if result.error is not None:
            raise result.error
        return result

    def _trigger(
        self, targets: Sequence[PollTarget], archive_url: str | None, deadline: float, resume_at: float | None = None
    ) -> SpeechKitRecognitionTrigger:
        from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger

        return SpeechKitRecognitionTrigger(
            waiting=[msgspec.to_builtins(one) for one in targets],
            speechkit_conn_id=self.speechkit_conn_id,
            archive=archive_url,
            deadline=deadline,
            cancel_on_kill=self.cancel_on_kill,
            delete_after_archiving=self.delete_after_archiving,
            resume_at=resume_at,
        )
