"""Which poller is at work for a connection, and what outlives it.

A poller belongs to an event loop: `dags test` runs each trigger in a loop of its own. What it knows (the budget spent,
how fast the service is) belongs to the connection, and is handed on to the next one in this process.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from airflow_speechkit.polling.dispatcher import Dispatcher

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable

    from airflow_speechkit.polling.poller import Poller

_lock = threading.Lock()
_at_work: dict[tuple[asyncio.AbstractEventLoop, Hashable], Poller] = {}
_idle: dict[Hashable, Dispatcher] = {}


def current(loop: asyncio.AbstractEventLoop, key: Hashable) -> Poller | None:
    """Return the poller that is at work for the connection in this loop."""
    with _lock:
        for loop_key in [loop_key for loop_key in _at_work if loop_key[0].is_closed()]:
            # Its loop went away under it.
            del _at_work[loop_key]
        return _at_work.get((loop, key))


def enter(loop: asyncio.AbstractEventLoop, key: Hashable, poller: Poller) -> Dispatcher:
    """Put a poller to work; return the dispatcher it goes on with.

    One that is at work in another loop at the same time keeps its own.
    """
    with _lock:
        _at_work[loop, key] = poller
        return _taken_over(_idle.pop(key, None), poller)


def dispatcher_of(loop: asyncio.AbstractEventLoop, key: Hashable, poller: Poller) -> Dispatcher:
    """Return the dispatcher whose budget holds for the connection in this loop, whether or not anybody waits.

    :param poller: who asks; the limits are its own where no poller is at work
    """
    with _lock:
        if (at_work := _at_work.get((loop, key))) is not None:
            return at_work.dispatcher
        _idle[key] = _taken_over(_idle.get(key), poller)
        return _idle[key]


def leave(loop: asyncio.AbstractEventLoop, key: Hashable, poller: Poller) -> None:
    """Take a poller out; what it knows is kept for the next one."""
    with _lock:
        if _at_work.get((loop, key)) is poller:
            del _at_work[loop, key]
            _idle[key] = poller.dispatcher


def _taken_over(before: Dispatcher | None, poller: Poller) -> Dispatcher:
    if before is None:
        return Dispatcher(poller.budget)
    if before.budget.limits != poller.budget.limits:
        return Dispatcher(poller.budget, before.learned)
    return before
