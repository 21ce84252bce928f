"""How connections are read: once for all triggers that start together.

In a triggerer each reading is several questions to its main process, which answers them one at a time, between its
other work: two thousand triggers that each asked for themselves had to wait for minutes before their first check.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from contextlib import AbstractContextManager

    from airflow_speechkit.hooks.connection import SpeechKitConnection

#: A changed connection is noticed after so long by triggers that start then.
READ_AGAIN_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class _Reading:
    loop: asyncio.AbstractEventLoop
    begun_at: float
    task: asyncio.Task[SpeechKitConnection]

    def serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        if self.loop is not loop or loop.time() >= self.begun_at + READ_AGAIN_AFTER_S:
            return False
        return not self.task.done() or not (self.task.cancelled() or self.task.exception())


_readings: dict[Hashable, _Reading] = {}


async def read_together(
    key: Hashable, read: Callable[[], Coroutine[None, None, SpeechKitConnection]]
) -> SpeechKitConnection:
    """Return what another in this event loop has read within the last minute, or is just reading, or read it.

    :param key: what is read, and how
    :param read: reads it; a failure is told to all who wait for it, and the next one reads again
    """
    loop = asyncio.get_running_loop()
    reading = _readings.get(key)
    if reading is None or not reading.serves(loop):
        reading = _readings[key] = _Reading(loop, loop.time(), loop.create_task(read()))
    # Whoever began may be cancelled; the others still wait.
    return await asyncio.shield(reading.task)


_one_lookup = threading.RLock()


def lookup_lock() -> AbstractContextManager[object]:
    """Return the lock to hold while a thread looks up Airflow connections.

    Airflow 3.2 and later have a lock of their own where a supervisor in another process is asked. Before, answers to
    two threads of a worker are mixed up; and the supervisor of `dag.test()`, `airflow dags test` and `airflow tasks
    test` serves one thread: during its lookup the others find no connection. Airflow 2.11 has no supervisor.
    """
    task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    if task_runner is None or hasattr(getattr(task_runner, "SUPERVISOR_COMMS", None), "_thread_lock"):
        return nullcontext()
    return _one_lookup
