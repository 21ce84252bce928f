"""Pollers to be tested: what they open, and what they answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.polling.poller import Poller
from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.target import PollResult, PollTarget
from airflow_speechkit.settings import ApiVersion

Answering = Callable[[str], Awaitable[Operation]]


def operation(
    name: str, state: OperationState = OperationState.DONE, raw: bytes = b"{}", took_s: float = 995.0
) -> Operation:
    created = datetime.now(UTC) - timedelta(seconds=1000.0)
    return Operation(
        id=name,
        state=state,
        api_version=ApiVersion.V2,
        created_at=created,
        modified_at=created + timedelta(seconds=took_s),
        raw=raw,
    )


def overdue(*names: str, **more: object) -> list[PollTarget]:
    """Operations that are asked for at once."""
    about = {"submitted_at": time.time() - 1000.0, "audio_s": 6.0, "channels": 1, **more}
    return [PollTarget(name, **about) for name in names]  # type: ignore[arg-type]


class Service:
    """A connection's hook, and the client that it opens; counts how often.

    :param answer: answers each check
    :param authorizing: fetches a token
    """

    def __init__(self, answer: Answering, authorizing: Callable[[], Awaitable[None]] | None = None) -> None:
        self.answer = answer
        self.authorizing = authorizing
        self.opened = self.closed = 0
        self.asked: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.entered = asyncio.Semaphore(0)

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[Service]:
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    async def authorize(self) -> None:
        if self.authorizing is not None:
            await self.authorizing()

    async def get_operation(self, name: str) -> Operation:
        self.asked[name] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.entered.release()
        try:
            return await self.answer(name)
        finally:
            self.under_way -= 1


class Counting:
    """Airflow's `Stats`, as far as it is used."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.timings: dict[str, list[float]] = {}

    def incr(self, stat: str, count: int = 1) -> None:
        self.counts[stat] += count

    def gauge(self, stat: str, value: float) -> None:
        self.gauges[stat] = value

    def timing(self, stat: str, dt: float) -> None:
        self.timings.setdefault(stat, []).append(dt)


def plenty() -> RateLimiter:
    return RateLimiter(100_000, 3600.0)


async def collect(subject: Poller, targets: list[PollTarget]) -> list[PollResult]:
    results = []
    async with subject.subscribed(targets) as coming:
        for _ in targets:
            results.append(await coming.get())
            coming.task_done()
    return results


async def done(name: str) -> Operation:
    return operation(name)


async def never(name: str) -> Operation:
    return operation(name, OperationState.RUNNING)


class Defective(Service):
    """A connection whose client can't be opened.

    :param error: why
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(done)
        self.error: Exception | None = error

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[Service]:
        if self.error is not None:
            raise self.error
        yield self
