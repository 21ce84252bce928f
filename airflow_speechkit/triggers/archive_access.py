"""How an event loop reaches archives: in a few threads for each.

An archive that doesn't answer holds each thread that asks it for minutes. In the event loop's own threads that would
stop whatever else the triggers of this process do there.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from airflow_speechkit.errors import ArchiveError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_speechkit.archive.store import Archive

#: Credentials of the archive's storage may change while a triggerer lives.
REOPENED_EVERY_S = 600.0
#: Threads that reach one archive. Each archive has its own: one that doesn't answer keeps no other waiting.
AT_ONCE = 4
#: An archive that has not answered for so long is taken to be out of reach: its own timeouts add up to many minutes.
#: Enough for the largest answer on a slow line.
ANSWERS_WITHIN_S = 180.0


class ArchiveAccess:
    """One archive, as the event loops of this process reach it.

    :param url: the archive's
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="speechkit-archive")
        #: When a thread came back last, with whatever.
        self._answered_at = 0.0
        #: Looks under way, one in each event loop.
        self._looks: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    async def write(self, write: Callable[[Archive], object]) -> None:
        """Write to the archive, in a thread.

        :raises StorageError: it can't be written, or the archive doesn't answer
        """
        await self._in_thread(lambda: write(self._open()))

    async def look(self, operation_id: str) -> None:
        """See whether the archive is there, in one look with all who ask meanwhile.

        :raises StorageError: it is not
        """
        loop = asyncio.get_running_loop()
        look = self._looks.get(loop)
        if look is None:
            self._looks = {one: task for one, task in self._looks.items() if not one.is_closed()}
            look = self._looks[loop] = loop.create_task(self._in_thread(lambda: self._read(operation_id)))
            look.add_done_callback(lambda look: self._looks.pop(look.get_loop(), None))
        # Others still wait for it when this one is cancelled.
        await asyncio.shield(look)

    def _open(self) -> Archive:
        return _opened(self.url, int(time.monotonic() // REOPENED_EVERY_S))

    def _read(self, operation_id: str) -> None:
        try:
            self._open().outcome(operation_id)
        except StorageError as error:
            # The look is shared: a damaged file of one operation must not end the others' waits.
            if error.retry_can_help:
                raise

    async def _in_thread(self, do: Callable[[], object]) -> None:
        from asgiref.sync import sync_to_async

        to_do = [do]

        def work() -> None:
            try:
                # Nobody may wait for it any more.
                if to_do:
                    to_do.pop()()
            finally:
                self._answered_at = time.monotonic()

        # By asgiref, since Airflow 3.0 and 3.1 find the triggerer's event loop from no other thread. Shielded, since
        # they lose the triggerer's connection to its supervisor when they are cancelled while they look something up.
        waiting = asyncio.shield(sync_to_async(work, thread_sensitive=False, executor=self._threads)())
        try:
            while not waiting.done():
                began = time.monotonic()
                await asyncio.wait([waiting], timeout=ANSWERS_WITHIN_S)
                # It may stand behind others, which come back one after the other.
                if not waiting.done() and self._answered_at < began:
                    raise self._silent()
            waiting.result()
        finally:
            to_do.clear()
            waiting.cancel()
            # It knows the error, whose traceback knows this frame, and with it the answer.
            del waiting

    def _silent(self) -> ArchiveError:
        return ArchiveError(f"The archive at {self.url} has not answered for {ANSWERS_WITHIN_S:g} s")


#: One for each archive that this process waits for: a few.
archive_access = cache(ArchiveAccess)


@lru_cache(maxsize=64)
def _opened(url: str, age: int) -> Archive:
    """Open an archive once for all: `age` changes now and then, so that new credentials get in."""
    from airflow_speechkit.hooks.archive import open_archive

    return open_archive(url)
