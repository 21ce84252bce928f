"""Waiting in a worker: the wait of the triggers, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_speechkit.compat import task_is_over
from airflow_speechkit.triggers.recognition import CANCEL_TIMEOUT_S

if TYPE_CHECKING:
    from airflow_speechkit.triggers.wait import OperationWait, WaitResult

log = logging.getLogger(__name__)


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
