"""What one task waits for and is handed: each ending as it comes, and a line in its log now and then."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from airflow_speechkit.polling.waiting import Ending, Waiting

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Place:
    """One of the places for checks under way, given back when all who were handed the answer have handled it."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self.holders = 1

    def leave(self) -> None:
        """Hold it no longer."""
        self.holders -= 1
        if self.holders == 0:
            self._places.release()


class Endings:
    """The endings of what one task waits for, each as it comes: an asynchronous iterator.

    :param waitings: what is waited for; the same operation twice is one
    :param log: gets a line now and then
    :param log_every_s: seconds between such lines, at least
    """

    def __init__(self, waitings: Iterable[Waiting], log: Log | None, log_every_s: float) -> None:
        self.waitings = {waiting.operation_id: waiting for waiting in waitings}
        self.left = set(self.waitings)
        self._log = log
        self._log_every_s = log_every_s
        self._logged_at = float("-inf")
        # Airflow tells by the context which task's log a line belongs to, and the poller runs in nobody's.
        self._context = contextvars.copy_context()
        self._ready: deque[tuple[Ending | BaseException, Place | None]] = deque()
        self._arrived = asyncio.Event()
        self._handling: Place | None = None

    def __aiter__(self) -> AsyncIterator[Ending]:
        return self

    async def __anext__(self) -> Ending:
        self._handled()
        while not self._ready:
            if not self.left:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        ending, self._handling = self._ready.popleft()
        if isinstance(ending, BaseException):
            raise ending
        return ending

    def put(self, ending: Ending, place: Place | None) -> None:
        """Hand on an ending, with the place that it holds until it is handled."""
        self.left.discard(ending.operation_id)
        self._ready.append((ending, place))
        self._arrived.set()

    def fail(self, error: BaseException) -> None:
        """Hand on that nothing more will come."""
        self._ready.append((error, None))
        self._arrived.set()

    def close(self) -> None:
        """Give back all places."""
        self._handled()
        for _, place in self._ready:
            if place is not None:
                place.leave()
        self._ready.clear()

    def line_is_due(self, now: float) -> bool:
        """Whether the last line in the log is long enough ago."""
        return self._log is not None and now - self._logged_at >= self._log_every_s

    def say(self, what: str, now: float) -> None:
        """Log a line about the wait, in the task's own log."""
        if self._log is not None:
            self._logged_at = now
            of = f"{len(self.left)} of {len(self.waitings)} operations to go; " if len(self.waitings) > 1 else ""
            self._context.run(self._log.info, "%s%s", of, what)

    def _handled(self) -> None:
        if self._handling is not None:
            self._handling.leave()
            self._handling = None
