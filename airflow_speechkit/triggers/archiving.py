"""How a triggerer reaches archives: aside of its event loop, in a few threads that all triggers share.

An archive that doesn't answer holds each thread that asks it for minutes. In the event loop's own threads that would
stop whatever else the triggers of this process do there.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_speechkit.archive.keeping import HELD_S, Keep, keep_operation
from airflow_speechkit.errors import ArchiveError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.store import Archive

#: Credentials of the archive's storage may change while a triggerer lives.
REOPENED_EVERY_S = 600.0

#: Threads that reach archives.
AT_ONCE = 8

#: An archive that has not answered for so long is taken to be away: its own timeouts add up to many minutes. Enough for
#: the largest answer on a slow line.
ANSWERS_WITHIN_S = 180.0

#: Results of v3 that all triggers together fetch and hold side by side: each may be of megabytes.
FETCHED_AT_ONCE = 16


class PlacesOfLoop:
    """So many places in each event loop: a semaphore belongs to one.

    :param number: how many
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._places: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    def get(self) -> asyncio.Semaphore:
        """Return those of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._places:
            # `dags test` runs each trigger in a loop of its own.
            self._places = {one: places for one, places in self._places.items() if not one.is_closed()}
            self._places[loop] = asyncio.Semaphore(self._number)
        return self._places[loop]


#: For results that are being fetched or held.
fetching_places = PlacesOfLoop(FETCHED_AT_ONCE)

_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="speechkit-archive")
#: Nothing queues for the threads: what queues there can't be dropped.
_free_threads = PlacesOfLoop(AT_ONCE)
#: Since when each archive could not be written, by a clock that nobody sets.
_away_since: dict[str, float] = {}
#: When a thread came back last, with whatever.
_answered_at = 0.0


def may_hold(url: str) -> bool:
    """Tell whether an answer may be held for an archive: not where it has been away for as long as one is held."""
    since = _away_since.get(url)
    return since is None or time.monotonic() - since <= HELD_S


async def keep(url: str, operation: Operation, step: Keep) -> None:
    """Archive an answer.

    :raises StorageError: it can't be written, or the archive doesn't answer
    """
    try:
        await _aside(url, lambda: _keep_at(url, operation, step))
    except StorageError:
        _away_since.setdefault(url, time.monotonic())
        raise
    _away_since.pop(url, None)


async def reach(url: str, operation_id: str) -> None:
    """See whether an archive is there.

    :raises StorageError: it is not
    """
    await _aside(url, lambda: _look_at(url, operation_id))


async def _aside(url: str, do: Callable[[], None]) -> None:
    await _have_thread(url)
    loop, free = asyncio.get_running_loop(), _free_threads.get()

    def came_back(_: Future[None]) -> None:
        global _answered_at
        _answered_at = time.monotonic()
        # Nobody is left to be told where the loop has ended.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(free.release)

    try:
        at_work = _threads.submit(do)
    except BaseException:
        free.release()
        raise
    # Only once the thread is back: whoever waits for it may go before.
    at_work.add_done_callback(came_back)
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            await asyncio.wrap_future(at_work)
    except TimeoutError:
        raise _silent(url) from None
    finally:
        # It knows the error, whose traceback knows this frame, and with it the answer.
        del at_work


async def _have_thread(url: str) -> None:
    """Wait for a thread as long as any comes back."""
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await _free_threads.get().acquire()
        except TimeoutError:
            if _answered_at < began:
                raise _silent(url) from None
        else:
            return


def _silent(url: str) -> ArchiveError:
    return ArchiveError(f"The archive at {url} has not answered for {ANSWERS_WITHIN_S:g} s")


def _keep_at(url: str, operation: Operation, step: Keep) -> None:
    keep_operation(_open(url, _age()), operation, step.recognition, step.broken)


def _look_at(url: str, operation_id: str) -> None:
    _open(url, _age()).outcome(operation_id)


def _age() -> int:
    return int(time.monotonic() // REOPENED_EVERY_S)


@lru_cache(maxsize=64)
def _open(url: str, age: int) -> Archive:
    """Open an archive once for all triggers: `age` changes now and then, so that new credentials get in."""
    from airflow_speechkit.hooks.archive import open_archive

    return open_archive(url)
