"""Reaches archives from an event loop, in a few threads for each archive.

An archive that doesn't answer holds each thread that uses it for minutes. In the event loop's own threads that would
stop everything else that the triggers of this process do there.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from airflow_speechkit.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_speechkit.archive.store import Archive

#: Credentials of the archive's storage may change while a triggerer runs.
REOPENED_EVERY_S = 600.0
#: Threads for one archive. Each archive has its own: one that doesn't answer delays no other.
AT_ONCE = 4
#: An archive that has not answered for so long counts as out of reach: its own timeouts add up to many minutes. Enough
#: for the largest answer on a slow line.
ANSWERS_WITHIN_S = 180.0


class ArchiveAccess:
    """One archive, as the event loops of this process reach it.

    :param url: the archive's
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="speechkit-archive")
        #: When a thread finished last, with or without an error.
        self._answered_at = 0.0

    async def run(self, do: Callable[[Archive], object]) -> None:
        """Do something with the archive, in a thread.

        :raises StorageError: it can't be done, or the archive doesn't answer
        """
        from asgiref.sync import sync_to_async

        to_do = [do]

        def work() -> None:
            try:
                # Nothing may wait for it any more.
                if to_do:
                    to_do.pop()(_opened(self.url, int(time.monotonic() // REOPENED_EVERY_S)))
            finally:
                self._answered_at = time.monotonic()

        # By asgiref, since Airflow 3.0 and 3.1 find the triggerer's event loop from no other thread. Shielded, since
        # they lose the triggerer's connection to its supervisor when they are cancelled while they look something up.
        waiting = asyncio.shield(sync_to_async(work, thread_sensitive=False, executor=self._threads)())
        try:
            while not waiting.done():
                began = time.monotonic()
                await asyncio.wait([waiting], timeout=ANSWERS_WITHIN_S)
                # It may be queued behind others, which finish one after the other.
                if not waiting.done() and self._answered_at < began:
                    raise ArchiveError(f"The archive at {self.url} has not answered for {ANSWERS_WITHIN_S:g} s")
            waiting.result()
        finally:
            to_do.clear()
            waiting.cancel()
            # The error's traceback refers to this frame, and this frame to the answer.
            del waiting


#: One for each archive that this process waits for: a few.
archive_access = cache(ArchiveAccess)


@lru_cache(maxsize=64)
def _opened(url: str, age: int) -> Archive:
    """Open an archive once for all: `age` changes now and then, so that new credentials are used."""
    from airflow_speechkit.hooks.archive import open_archive

    return open_archive(url)
