"""Waiting in a worker: the coroutine of the triggers, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class WorkerLoop:
    """An event loop in a thread: what Airflow raises in a task's main thread must not end up in a coroutine.

    Airflow ends a task (SIGTERM, `execution_timeout`) by an exception that it raises wherever the main thread is.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; cancel it where this is interrupted."""

        async def known() -> T:
            self._loop = asyncio.get_running_loop()
            task.append(asyncio.current_task())
            return await coroutine

        task: list[asyncio.Task[Any] | None] = []
        with ThreadPoolExecutor(1, thread_name_prefix="speechkit-wait") as pool:
            running = pool.submit(contextvars.copy_context().run, asyncio.run, known())
            try:
                return running.result()
            except BaseException:
                if not running.done() and self._loop is not None and task[0] is not None:
                    self._loop.call_soon_threadsafe(task[0].cancel)
                raise
            finally:
                self._loop = None

    def run_beside(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T | None:
        """Run another coroutine while `run` is at work, from a signal's handler; None where it is not at work.

        :raises TimeoutError: it takes longer
        """
        if self._loop is None:
            coroutine.close()
            return None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)
