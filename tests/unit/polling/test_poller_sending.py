"""What a poller sends, when, and with which client."""

from __future__ import annotations

import asyncio

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.errors import AuthenticationError, UnreachableError
from airflow_speechkit.polling.poller import AT_ONCE, Poller, shared_poller
from airflow_speechkit.polling.rate_limit import RateLimiter
from tests.unit.polling.in_virtual_time import in_virtual_time
from tests.unit.polling.pollers import (
    Service,
    collect,
    done,
    never,
    operation,
    overdue,
    plenty,
)


class Sent:
    """When requests went out."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def now(self) -> None:
        self.at.append(asyncio.get_running_loop().time())

    def most_within(self, seconds: float) -> int:
        return max(sum(first <= at < first + seconds for at in self.at) for first in self.at)


def left(subject: Poller) -> int:
    return subject.scheduler.limiter.left(asyncio.get_running_loop().time())


@in_virtual_time
async def test_a_request_is_allowed_within_the_limit_though_nobody_waits(key: tuple[str, str]) -> None:
    sent = Sent()
    for _ in range(7):
        # Each task that was ended asks for its own.
        await shared_poller(key, Service(done), RateLimiter(3, 100.0)).request_allowed()
        sent.now()
    assert sent.most_within(100.0) == 3
    assert sent.at[-1] - sent.at[0] < 210.0
    subject = shared_poller(key, Service(done), RateLimiter(3, 100.0))
    async with subject.subscribed(overdue("a")):
        assert left(subject) < 3, "the same limiter"


@in_virtual_time
async def test_a_new_triggerers_first_cancels_leave_what_its_predecessor_spent(key: tuple[str, str]) -> None:
    subject = shared_poller(key, Service(done), RateLimiter.for_checks("v2"))
    await subject.request_allowed()
    assert left(subject) <= 200


@in_virtual_time
async def test_requests_beside_the_checks_share_the_limit_and_come_first(key: tuple[str, str]) -> None:
    sent = Sent()

    async def answer(name: str) -> Operation:
        sent.now()
        return await never(name)

    subject = shared_poller(key, Service(answer), RateLimiter(5, 100.0))
    async with subject.subscribed(overdue(*map(str, range(100)), interval_s=1.0)):
        await asyncio.sleep(250.0)
        started = asyncio.get_running_loop().time()
        for _ in range(10):
            await subject.request_allowed()
            sent.now()
        assert asyncio.get_running_loop().time() - started <= 210.0
        await asyncio.sleep(300.0)
    assert sent.most_within(100.0) == 5
    assert len(sent.at) >= 36, "and the checks go on"


@in_virtual_time
async def test_checks_that_had_to_wait_for_a_token_do_not_go_out_together(key: tuple[str, str]) -> None:
    sent, token = Sent(), asyncio.Event()

    async def authorizing() -> None:
        await token.wait()

    async def answer(name: str) -> Operation:
        sent.now()
        return await never(name)

    subject = shared_poller(key, Service(answer, authorizing), RateLimiter.for_checks("v3"))
    async with subject.subscribed(overdue(*map(str, range(50)), interval_s=1.0)):
        for _ in range(3):
            # The first one, or a renewal in the middle.
            token.clear()
            await asyncio.sleep(5.0)
            token.set()
            await asyncio.sleep(10.0)
    assert sent.most_within(1.0) <= 4
    assert len(sent.at) > 80


@in_virtual_time
async def test_no_more_are_under_way_than_there_are_places(key: tuple[str, str]) -> None:
    async def slow(name: str) -> Operation:
        await asyncio.sleep(10.0)
        return operation(name)

    client = Service(slow)
    await collect(shared_poller(key, client, plenty()), overdue(*map(str, range(60))))
    assert client.most_under_way == AT_ONCE


@in_virtual_time
async def test_errors_are_waited_out_for_an_hour_and_then_given_to_all_who_wait(key: tuple[str, str]) -> None:
    async def answer(name: str) -> Operation:
        raise error

    for error, least_s in (
        (UnreachableError("No answer"), 3600.0),
        (AuthenticationError("No", http_status=401), 600.0),
    ):
        started = asyncio.get_running_loop().time()
        results = await collect(shared_poller(key, Service(answer), plenty()), overdue("a", "b", "c"))
        assert [result.error for result in results] == [error] * 3
        assert least_s <= asyncio.get_running_loop().time() - started < least_s + 310.0
