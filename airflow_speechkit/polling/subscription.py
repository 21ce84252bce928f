"""What one task waits for: its results as they come, and a line in its log now and then."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from airflow_speechkit.polling.target import PollResult, PollTarget

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Subscription:
    """The results of what one task waits for: an asynchronous iterator.

    :param targets: what is waited for; the same operation twice is one
    :param log: gets a line now and then
    :param log_every_s: seconds between such lines, at least
    """

    def __init__(self, targets: Iterable[PollTarget], log: Log | None, log_every_s: float) -> None:
        self.targets = {target.operation_id: target for target in targets}
        self.left = set(self.targets)
        self._log = log
        self._log_every_s = log_every_s
        self._logged_at = float("-inf")
        # Airflow finds the task's log by the context, and the poller runs in a context of its own.
        self._context = contextvars.copy_context()
        # Not a queue, a deque or an event, which has one: each is several times as large, and thousands of tasks wait.
        self._ready: list[tuple[PollResult | BaseException, asyncio.Event]] = []
        self._arrived: asyncio.Future[None] | None = None
        #: Of the result that the task handles at present.
        self._handled: asyncio.Event | None = None

    def __aiter__(self) -> AsyncIterator[PollResult]:
        return self

    async def __anext__(self) -> PollResult:
        if self._handled is not None:
            self._handled.set()
        while not self._ready:
            if not self.left:
                raise StopAsyncIteration
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        result, self._handled = self._ready.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    def put(self, result: PollResult | BaseException) -> asyncio.Event:
        """Deliver a result, or an error in place of all that is left; return an event that comes once it is handled."""
        if not isinstance(result, BaseException):
            self.left.discard(result.operation_id)
        handled = asyncio.Event()
        self._ready.append((result, handled))
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
        return handled

    def close(self) -> None:
        """Take all as handled."""
        for handled in (self._handled, *(one for _, one in self._ready)):
            if handled is not None:
                handled.set()
        self._ready.clear()

    def line_is_due(self, now: float) -> bool:
        """Whether the last line in the log is long enough ago."""
        return self._log is not None and now - self._logged_at >= self._log_every_s

    def write_line(self, text: str, now: float) -> None:
        """Write a line into the task's log."""
        if self._log is not None:
            self._logged_at = now
            progress = f"{len(self.left):,} operations left, " if len(self.targets) > 1 else ""
            self._context.run(self._log.info, "%s%s", progress, text)
