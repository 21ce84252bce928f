"""What a poller sends, when, and with which client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.errors import AuthenticationError, ConnectionSettingsError, UnreachableError
from airflow_speechkit.polling.client import Allowed, Check
from airflow_speechkit.polling.poller import AT_ONCE, Poller, shared_poller
from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.target import PollOutcome, PollTarget
from tests.unit.polling.in_virtual_time import in_virtual_time
from tests.unit.polling.pollers import (
    Client,
    Written,
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
async def test_a_request_is_allowed_within_the_limit_though_nobody_waits(key: str) -> None:
    sent = Sent()
    for _ in range(7):
        # Each task that was ended asks for its own.
        await shared_poller(key, Client(done).open, RateLimiter(3, 100.0)).request_allowed()
        sent.now()
    assert sent.most_within(100.0) == 3
    assert sent.at[-1] - sent.at[0] < 210.0
    subject = shared_poller(key, Client(done).open, RateLimiter(3, 100.0))
    async with subject.subscribed(overdue("a")):
        assert left(subject) < 3, "the same limiter"


@in_virtual_time
async def test_a_new_triggerers_first_cancels_leave_what_its_predecessor_spent(key: str) -> None:
    subject = shared_poller(key, Client(done).open, RateLimiter.for_checks("v2"))
    await subject.request_allowed()
    assert left(subject) <= 200


@in_virtual_time
async def test_requests_beside_the_checks_share_the_limit_and_come_first(key: str) -> None:
    sent = Sent()

    async def answer(name: str) -> Operation:
        sent.now()
        return await never(name)

    subject = shared_poller(key, Client(answer).open, RateLimiter(5, 100.0))
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
async def test_checks_that_had_to_wait_for_a_token_do_not_go_out_together(key: str) -> None:
    sent, token = Sent(), asyncio.Event()

    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        async def check(name: str, allowed: Allowed) -> Operation:
            await token.wait()
            await allowed()
            sent.now()
            return await never(name)

        yield check

    subject = shared_poller(key, open_check, RateLimiter.for_checks("v3"))
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
async def test_a_check_that_sends_twice_has_spent_two(key: str) -> None:
    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        async def check(name: str, allowed: Allowed) -> Operation:
            await allowed()
            await allowed()
            return operation(name)

        yield check

    subject = shared_poller(key, open_check, RateLimiter(100, 3600.0))
    await collect(subject, overdue("a"))
    assert left(subject) == 98


@in_virtual_time
async def test_no_more_are_under_way_than_there_are_places(key: str) -> None:
    async def slow(name: str) -> Operation:
        await asyncio.sleep(10.0)
        return operation(name)

    client = Client(slow)
    await collect(shared_poller(key, client.open, plenty()), overdue(*map(str, range(60))))
    assert client.most_under_way == AT_ONCE


# a replaced key


@in_virtual_time
async def test_a_replaced_key_is_picked_up_while_somebody_waits(key: str) -> None:
    keys, closed = ["old", "old", "new"], []
    opened: list[str] = []

    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        mine = keys[min(len(opened), 2)]
        opened.append(mine)

        async def check(name: str, allowed: Allowed) -> Operation:
            assert mine not in closed
            await allowed()
            if mine == "old":
                raise AuthenticationError("No", http_status=401)
            return operation(name)

        yield check
        closed.append(mine)

    results = await collect(shared_poller(key, open_check, plenty()), overdue("a", "b"))
    assert [result.outcome for result in results] == [PollOutcome.ENDED] * 2
    assert opened[-1] == "new"
    assert sorted(closed) == sorted(opened)


@in_virtual_time
async def test_a_connection_that_cannot_be_read_again_ends_nothing(key: str, written: Written) -> None:
    opened = 0

    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        nonlocal opened
        opened += 1
        if opened == 2:
            raise ConnectionSettingsError("Somebody is at it")

        async def check(name: str, allowed: Allowed) -> Operation:
            await allowed()
            if opened < 3:
                raise AuthenticationError("No", http_status=401)
            return operation(name)

        yield check

    [result] = await collect(shared_poller(key, open_check, plenty()), overdue("a"))
    assert result.outcome is PollOutcome.ENDED
    assert opened == 3
    assert [line for _, line in written.lines if "can't be read again" in line and "Somebody" in line]


@in_virtual_time
async def test_a_client_is_not_closed_under_a_check(key: str) -> None:
    slow, is_closed = asyncio.Event(), {0: False, 1: False}

    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        mine = len(opened)
        opened.append(mine)

        async def check(name: str, allowed: Allowed) -> Operation:
            await allowed()
            if name == "slow":
                await slow.wait()
                assert not is_closed[mine]
            elif mine == 0:
                raise AuthenticationError("No", http_status=401)
            else:
                slow.set()
            return operation(name)

        yield check
        is_closed[mine] = True

    opened: list[int] = []
    results = await collect(shared_poller(key, open_check, plenty()), overdue("slow", "a"))
    assert {result.outcome for result in results} == {PollOutcome.ENDED}
    assert is_closed == {0: True, 1: True}


# who waits, and until when


@in_virtual_time
async def test_one_who_leaves_takes_the_interval_along(key: str) -> None:
    sent = Sent()

    async def answer(name: str) -> Operation:
        sent.now()
        return await never(name)

    subject = shared_poller(key, Client(answer).open, plenty())
    loop = asyncio.get_running_loop()
    now, started = time.time(), loop.time()
    async with subject.subscribed([PollTarget("a", now, interval_s=600.0)]):
        async with subject.subscribed([PollTarget("a", now, interval_s=60.0)]):
            await asyncio.sleep(70.0)
        await asyncio.sleep(1000.0)
    assert [round(at - started, -1) for at in sent.at] == [60, 600]


@in_virtual_time
async def test_a_task_that_gives_its_worker_back_knows_when_to_come_again(key: str) -> None:
    subject = shared_poller(key, Client(never).open, RateLimiter(10, 600.0))
    async with subject.subscribed([PollTarget("a", time.time(), interval_s=60.0)]):
        assert 55.0 < subject.next_check_in_s() <= 60.0
        await asyncio.sleep(185.0)
        assert 50.0 < subject.next_check_in_s() <= 60.0
        assert subject.earned_in_s() == 180.0, "three checks, of one a minute"


@in_virtual_time
async def test_errors_are_waited_out_for_an_hour_and_then_told_to_all_who_wait(key: str) -> None:
    async def answer(name: str) -> Operation:
        raise error

    for error, least_s in (
        (UnreachableError("No answer"), 3600.0),
        (AuthenticationError("No", http_status=401), 600.0),
    ):
        started = asyncio.get_running_loop().time()
        results = await collect(shared_poller(key, Client(answer).open, plenty()), overdue("a", "b", "c"))
        assert [(result.outcome, result.error) for result in results] == [(PollOutcome.UNANSWERED, error)] * 3
        assert least_s <= asyncio.get_running_loop().time() - started < least_s + 310.0
