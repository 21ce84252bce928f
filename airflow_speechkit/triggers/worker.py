"""Waiting in a worker, and what the tasks that wait have in common."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

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


class WorkerWait:
    """Runs a wait in an event loop of its own thread: what Airflow raises in a task must not end up in a coroutine.

    Airflow ends a task (SIGTERM, `execution_timeout`) by an exception that it raises wherever the main thread is.

    :param wait: what to run
    """

    def __init__(self, wait: OperationWait) -> None:
        self._wait = wait
        # It can't know who else polls.
        wait.cautious = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_interrupted = False

    def run(self, deadline: float, *, stop_when_idle: bool = False) -> WaitResult:
        """Wait; cancel the wait where this is interrupted.

        :param deadline: when to stop, in seconds since the epoch
        :param stop_when_idle: stop where nothing is due for a while
        :raises SpeechKitError: why the wait was given up
        """

        async def run() -> WaitResult:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            if self._is_interrupted:
                raise asyncio.CancelledError
            return await self._wait.run(deadline, exactly=True, stop_when_idle=stop_when_idle)

        with ThreadPoolExecutor(1, thread_name_prefix="speechkit-wait") as pool:
            running = pool.submit(contextvars.copy_context().run, asyncio.run, run())
            try:
                result = running.result()
            except BaseException:
                self._is_interrupted = True
                if self._loop is not None and self._task is not None:
                    # The loop may have ended.
                    with suppress(RuntimeError):
                        self._loop.call_soon_threadsafe(self._task.cancel)
                raise
            finally:
                self._loop = None
        if result.error is not None:
            raise result.error
        return result

    def cancel_if_over(self, task_instance: Any) -> None:
        """Have the service cancel what runs, from a signal's handler, if the task doesn't go on by itself."""
        if not self._wait.running or not task_is_over(task_instance):
            return
        try:
            if self._loop is None:
                asyncio.run(asyncio.wait_for(self._wait.cancel_running(), CANCEL_TIMEOUT_S))
            else:
                asyncio.run_coroutine_threadsafe(self._wait.cancel_running(), self._loop).result(CANCEL_TIMEOUT_S)
        except TimeoutError:
            log.warning("Not every operation could be cancelled within %g s", CANCEL_TIMEOUT_S)


class WaitingTask:
    """What the sensor and `SpeechKitRecognizeOperator` have in common."""

    speechkit_conn_id: str
    cancel_on_kill: bool
    delete_after_archiving: bool
    _waiting: WorkerWait | None = None
    _task_instance: Any = None

    def on_kill(self) -> None:
        """Cancel what is left, where that was asked for and the task is really over."""
        if self.cancel_on_kill and self._waiting is not None:
            self._waiting.cancel_if_over(self._task_instance)

    def _trigger(
        self, targets: Sequence[PollTarget], archive_url: str | None, deadline: float, resume_at: float | None = None
    ) -> SpeechKitRecognitionTrigger:
        from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger

        return SpeechKitRecognitionTrigger(
            waiting=[one.to_json() for one in targets],
            speechkit_conn_id=self.speechkit_conn_id,
            archive=archive_url,
            deadline=deadline,
            cancel_on_kill=self.cancel_on_kill,
            delete_after_archiving=self.delete_after_archiving,
            resume_at=resume_at,
        )
