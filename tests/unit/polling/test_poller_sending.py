"""What a poller sends, when, and with which client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from airflow_speechkit.polling.budget import CheckBudget, Limit
from airflow_speechkit.polling.waiting import Finished, Waiting

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.errors import (
    AuthenticationError,
    ConnectionSettingsError,
    UnreachableError,
)
from airflow_speechkit.polling import outage, registry
from airflow_speechkit.polling.client import Allowed, Check
from airflow_speechkit.polling.poller import shared_poller
from tests.unit.polling.pollers import (
    Client,
    Written,
    budget,
    collect,
    done,
    never,
    operation,
    overdue,
)


def stretch(requests: int, seconds: float) -> CheckBudget:
    return CheckBudget((Limit(requests, seconds),))


def most_within(sent: list[float], seconds: float) -> int:
    return max(sum(1 for at in sent if first <= at < first + seconds) for first in sent)


async def test_a_request_is_allowed_within_the_budget_though_nobody_waits(key: str) -> None:
    sent = []
    started = time.monotonic()
    for _ in range(7):
        # Each task that was ended asks for its own.
        await shared_poller(key, Client(done).open, stretch(3, 0.3)).request_allowed()
        sent.append(time.monotonic())
    assert most_within(sent, 0.3) <= 3
    assert sent[-1] - started < 2.0
    subject = shared_poller(key, Client(done).open, stretch(3, 0.3))
    async with subject.waiting(overdue("a")):
        assert subject.dispatcher.budget.left(time.monotonic()) < 3, "the same budget"


async def test_a_new_triggerers_first_cancels_leave_what_its_predecessor_spent(key: str) -> None:
    subject = shared_poller(key, Client(done).open, CheckBudget.of("v2"))
    await subject.request_allowed()
    assert registry.dispatcher_of(asyncio.get_running_loop(), key, subject).budget.left(time.monotonic()) <= 200


async def test_requests_beside_the_checks_share_the_budget_and_come_first(key: str) -> None:
    sent: list[float] = []

    async def answer(name: str) -> Operation:
        sent.append(time.monotonic())
        return await never(name)

    subject = shared_poller(key, Client(answer).open, stretch(5, 0.5))
    started = time.monotonic()
    async with subject.waiting(overdue(*map(str, range(100)), interval_s=1.0)):
        await asyncio.sleep(0.1)
        for _ in range(6):
            await subject.request_allowed()
            sent.append(time.monotonic())
        allowed_by = time.monotonic() - started
        await asyncio.sleep(0.6)
    assert most_within(sent, 0.45) <= 5
    assert allowed_by < 1.5
    assert len(sent) > 11


async def test_checks_that_had_to_wait_for_a_token_do_not_go_out_together(key: str) -> None:
    sent: list[float] = []
    token = asyncio.Event()

    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        async def check(name: str, allowed: Allowed) -> Operation:
            await token.wait()
            await allowed()
            sent.append(time.monotonic())
            return await never(name)

        yield check

    subject = shared_poller(key, open_check, stretch(4, 0.4))
    async with subject.waiting(overdue(*map(str, range(50)), interval_s=1.0)):
        await asyncio.sleep(1.0)
        token.set()
        await asyncio.sleep(0.8)
        # A renewal, in the middle.
        token.clear()
        await asyncio.sleep(1.0)
        token.set()
        await asyncio.sleep(0.8)
    assert len(sent) >= 16
    assert most_within(sent, 0.35) <= 4


async def test_a_check_that_sends_twice_has_spent_two(key: str) -> None:
    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        async def check(name: str, allowed: Allowed) -> Operation:
            await allowed()
            await allowed()
            return operation(name)

        yield check

    subject = shared_poller(key, open_check, stretch(100, 3600.0))
    await collect(subject, overdue("a"))
    assert subject.dispatcher.budget.left(time.monotonic()) == 98


async def test_a_check_that_never_sends_has_spent_nothing(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_FIRST_BACKOFF_S", 0.01)
    tries = 0

    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        async def check(name: str, allowed: Allowed) -> Operation:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise UnreachableError("No token")
            await allowed()
            return operation(name)

        yield check

    subject = shared_poller(key, open_check, stretch(100, 3600.0))
    await collect(subject, overdue("a"))
    assert subject.dispatcher.budget.left(time.monotonic()) == 99


# a replaced key


async def test_a_replaced_key_is_picked_up_while_somebody_waits(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_FIRST_BACKOFF_S", 0.02)
    keys, closed = ["old", "old", "new"], []
    opened: list[str] = []

    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        mine = keys[min(len(opened), 2)]
        opened.append(mine)

        async def check(name: str, allowed: Allowed) -> Operation:
            assert mine not in closed or mine == "old"
            await allowed()
            if mine == "old":
                raise AuthenticationError("No", http_status=401)
            return operation(name)

        yield check
        closed.append(mine)

    endings = await collect(shared_poller(key, open_check, budget()), overdue("a", "b"))
    assert all(isinstance(ending, Finished) for ending in endings)
    assert opened == closed == ["old", "old", "new"]


async def test_a_connection_that_cannot_be_read_again_ends_nothing(
    key: str, monkeypatch: pytest.MonkeyPatch, written: Written
) -> None:
    monkeypatch.setattr(outage, "_FIRST_BACKOFF_S", 0.02)
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

    [ending] = await collect(shared_poller(key, open_check, budget()), overdue("a"))
    assert isinstance(ending, Finished)
    assert opened == 3
    assert [line for _, line in written.lines if "can't be read again" in line and "Somebody" in line]


async def test_a_client_is_closed_only_after_its_last_check(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_FIRST_BACKOFF_S", 0.02)
    slow, events = asyncio.Event(), []

    @asynccontextmanager
    async def open_check() -> AsyncIterator[Check]:
        mine = len([event for event in events if event.startswith("open")])
        events.append(f"open {mine}")

        async def check(name: str, allowed: Allowed) -> Operation:
            await allowed()
            if name == "slow":
                await slow.wait()
                events.append(f"slow answered by {mine}")
            elif mine == 0:
                raise AuthenticationError("No", http_status=401)
            else:
                slow.set()
            return operation(name)

        yield check
        events.append(f"close {mine}")

    await collect(shared_poller(key, open_check, budget()), overdue("slow", "a"))
    assert events == ["open 0", "open 1", "slow answered by 0", "close 0", "close 1"]


async def test_one_who_leaves_takes_the_interval_along(key: str) -> None:
    subject = shared_poller(key, Client(never).open, budget())
    now = time.time()
    async with subject.waiting([Waiting("a", now, interval_s=600.0)]):
        async with subject.waiting([Waiting("a", now, interval_s=60.0)]):
            watch = subject.dispatcher.watches["a"]
            assert watch.due - time.monotonic() == pytest.approx(60.0, abs=2.0)
        assert watch.due - time.monotonic() == pytest.approx(600.0, abs=2.0)


async def test_a_clock_that_is_set_delays_no_new_operation(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = shared_poller(key, Client(never).open, budget())
    async with subject.waiting([Waiting("a", time.time(), 3600.0, 2)]):
        set_to = time.time
        monkeypatch.setattr(time, "time", lambda: set_to() + 3600.0)
        async with subject.waiting([Waiting("b", time.time(), 60.0, 1)]):
            assert subject.dispatcher.watches["b"].due - time.monotonic() < 60.0
