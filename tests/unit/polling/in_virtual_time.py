"""Coroutines for which time passes at once: whenever nothing is left to do, the clock moves to the next timer."""

from __future__ import annotations

import asyncio
import functools
import selectors
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow_speechkit.polling import poller


class _NoWait(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """A selector that is never waited for."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and for nothing that could happen"
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        self._clock = _NoWait()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test of pollers in virtual time, by both the clocks that a poller knows."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            ahead_s = time.time() - loop.time()
            clock = SimpleNamespace(monotonic=loop.time, time=lambda: ahead_s + loop.time())
            with mock.patch.object(poller, "time", clock):
                runner.run(test(*args, **kwargs))

    return run
