"""The shared poller, on real event loops; its checks are answered by the test."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from airflow_speechkit.polling.budget import CheckBudget, Limit
from airflow_speechkit.polling.waiting import Ending, Finished, Gone, Unanswered

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import (
    AuthenticationError,
    ConnectionSettingsError,
    OperationNotFoundError,
    QuotaExceededError,
    UnreachableError,
)
from airflow_speechkit.polling import budget as budgeting
from airflow_speechkit.polling import outage, poller, registry
from airflow_speechkit.polling.client import Check
from airflow_speechkit.polling.poller import shared_poller
from tests.unit.polling.pollers import (
    Client,
    Counting,
    budget,
    collect,
    defective,
    done,
    operation,
    overdue,
)


async def test_each_operation_ends_once_with_its_answer(key: str) -> None:
    client = Client(done)
    endings = await collect(shared_poller(key, client.open, budget()), overdue("a", "b", "c", "a"))
    assert sorted(ending.operation_id for ending in endings) == ["a", "b", "c"]
    assert all(isinstance(ending, Finished) and ending.operation.raw == b"{}" for ending in endings)
    assert client.asked == {"a": 1, "b": 1, "c": 1}


async def test_waiting_for_nothing_ends_at_once(key: str) -> None:
    assert await collect(shared_poller(key, Client(done).open, budget()), []) == []


async def test_an_operation_that_failed_is_an_ending_too(key: str) -> None:
    async def failed(name: str) -> Operation:
        return operation(name, OperationState.FAILED)

    [ending] = await collect(shared_poller(key, Client(failed).open, budget()), overdue("a"))
    assert isinstance(ending, Finished)
    assert ending.operation.state is OperationState.FAILED


async def test_all_who_wait_share_one_client_which_is_closed_after_the_last(key: str) -> None:
    client = Client(done)

    async def wait(name: str) -> list[Ending]:
        return await collect(shared_poller(key, client.open, budget()), overdue(name))

    await asyncio.gather(*(wait(str(number)) for number in range(30)))
    assert (client.opened, client.closed) == (1, 1)
    assert registry.current(asyncio.get_running_loop(), key) is None


async def test_two_who_wait_for_the_same_operation_cost_one_check(key: str) -> None:
    client = Client(done)
    subject = shared_poller(key, client.open, budget())
    both = await asyncio.gather(collect(subject, overdue("a")), collect(subject, overdue("a")))
    assert [len(endings) for endings in both] == [1, 1]
    assert client.asked["a"] == 1


async def test_a_404_ends_that_one_and_no_other(key: str) -> None:
    async def answer(name: str) -> Operation:
        if name == "gone":
            raise OperationNotFoundError("It is not known", http_status=404)
        return operation(name)

    endings = await collect(shared_poller(key, Client(answer).open, budget()), overdue("gone", "there"))
    kinds = {ending.operation_id: type(ending) for ending in endings}
    assert kinds == {"gone": Gone, "there": Finished}


async def test_errors_are_survived(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_FIRST_BACKOFF_S", 0.01)
    errors = iter([UnreachableError("No answer"), OSError("broken"), TimeoutError(), UnreachableError("Again")])

    async def answer(name: str) -> Operation:
        if (error := next(errors, None)) is not None:
            raise error
        return operation(name)

    stats = Counting()
    subject = shared_poller(key, Client(answer).open, budget(), stats=stats)
    [ending] = await collect(subject, overdue("a"))
    assert isinstance(ending, Finished)
    assert stats.counts["speechkit.check_errors"] == 4


@pytest.mark.parametrize("error", [UnreachableError("No answer"), AuthenticationError("No", http_status=401)])
async def test_errors_that_do_not_end_are_told_to_all_who_wait(
    key: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(outage, "_FIRST_BACKOFF_S", 0.01)
    short = outage.Patience(3, 0.02)
    monkeypatch.setattr(poller, "TRANSIENT", short)
    monkeypatch.setattr(poller, "LASTING", short)

    async def answer(name: str) -> Operation:
        raise error

    endings = await collect(shared_poller(key, Client(answer).open, budget()), overdue("a", "b", "c"))
    assert len(endings) == 3
    assert all(isinstance(ending, Unanswered) and ending.error is error for ending in endings)


async def test_a_429_is_counted_and_survived(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgeting, "_FIRST_PAUSE_S", 0.01)
    refusals = iter([QuotaExceededError("Too many", http_status=429, retry_after_s=None)])

    async def answer(name: str) -> Operation:
        if (error := next(refusals, None)) is not None:
            raise error
        return operation(name)

    stats = Counting()
    subject = shared_poller(key, Client(answer).open, budget(), stats=stats)
    async with subject.waiting(overdue("a", "b")) as endings:
        await anext(endings)
        assert subject.dispatcher.budget.per_second < budget().per_second
    assert stats.counts["speechkit.responses_429"] == 1


async def test_a_connection_that_cannot_be_opened_is_raised_to_all_who_wait(key: str) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[Check]:
        raise ConnectionSettingsError("No key")
        yield Client(done)._check

    subject = shared_poller(key, broken, budget())
    both = await asyncio.gather(collect(subject, overdue("a")), collect(subject, overdue("b")), return_exceptions=True)
    assert all(isinstance(error, ConnectionSettingsError) for error in both)
    assert registry.current(asyncio.get_running_loop(), key) is None
    assert await collect(shared_poller(key, Client(done).open, budget()), overdue("a"))


async def test_a_defect_outside_of_a_check_is_raised_and_not_swallowed(key: str) -> None:
    with pytest.raises(ZeroDivisionError):
        await collect(shared_poller(key, defective, budget()), overdue("a"))


async def test_a_cancelled_waiter_leaves_the_others_alone(key: str) -> None:
    release = asyncio.Event()

    async def answer(name: str) -> Operation:
        await release.wait()
        return operation(name)

    client = Client(answer)
    subject = shared_poller(key, client.open, budget())
    first = asyncio.create_task(collect(subject, overdue("a")))
    second = asyncio.create_task(collect(subject, overdue("b")))
    await client.entered.acquire()
    await client.entered.acquire()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    release.set()
    assert [ending.operation_id for ending in await second] == ["b"]
    assert client.closed == 1


async def test_the_last_waiter_cancelled_ends_the_checks_under_way(key: str) -> None:
    async def answer(name: str) -> Operation:
        await asyncio.Event().wait()
        raise AssertionError

    client = Client(answer)
    waiter = asyncio.create_task(collect(shared_poller(key, client.open, budget()), overdue("a")))
    await client.entered.acquire()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert client.under_way == 0
    assert client.closed == 1
    assert len(asyncio.all_tasks()) == 1


async def test_only_so_many_large_answers_are_held_until_they_are_handled(key: str) -> None:
    async def large(name: str) -> Operation:
        return operation(name, raw=b"x" * poller.LARGE_ANSWER)

    client = Client(large)
    names = [str(number) for number in range(3 * poller.AT_ONCE)]
    async with shared_poller(key, client.open, budget()).waiting(overdue(*names)) as endings:
        handled = 0
        async for _ in endings:
            for _ in range(50):
                await asyncio.sleep(0)
            assert sum(client.asked.values()) - handled <= poller.AT_ONCE + 1
            handled += 1
    assert handled == len(names)


async def test_places_of_one_who_leaves_early_are_given_back(key: str) -> None:
    async def large(name: str) -> Operation:
        return operation(name, raw=b"x" * poller.LARGE_ANSWER)

    client = Client(large)
    subject = shared_poller(key, client.open, budget())
    async with subject.waiting(overdue("z", interval_s=3600.0)):
        async with subject.waiting(overdue(*(str(number) for number in range(2 * poller.AT_ONCE)))) as endings:
            await anext(endings)
        assert len(await collect(subject, overdue(*(f"b{number}" for number in range(poller.AT_ONCE))))) == 8


async def test_no_more_than_so_many_checks_at_once(key: str) -> None:
    async def slow(name: str) -> Operation:
        await asyncio.sleep(0.01)
        return operation(name)

    client = Client(slow)
    await collect(shared_poller(key, client.open, budget()), overdue(*(str(number) for number in range(60))))
    assert client.most_under_way <= poller.AT_ONCE


def test_each_loop_has_its_own_poller_and_no_loop_is_kept(key: str) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    spent = []
    shared = CheckBudget((Limit(100_000, 3600.0),))

    async def one(name: str) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        subject = shared_poller(key, Client(done).open, shared)
        await collect(subject, overdue(name))
        spent.append(100_000 - subject.dispatcher.budget.left(time.monotonic()))

    for name in "abc":
        asyncio.run(one(name))
    gc.collect()
    assert [loop() for loop in loops] == [None, None, None]
    assert spent == [1, 2, 3], "what was spent is remembered from loop to loop"


async def test_what_was_learned_outlives_the_last_waiter(key: str) -> None:
    for number in range(3):
        subject = shared_poller(key, Client(done).open, budget())
        await collect(subject, overdue(f"{number}"))
        await asyncio.sleep(0.11)
    [learned] = subject.dispatcher.learned.values()
    assert learned.endings == 3


async def test_a_poller_asked_for_before_the_last_one_left_still_works(key: str) -> None:
    client = Client(done)
    early = shared_poller(key, client.open, budget())
    late = shared_poller(key, client.open, budget())
    both = await asyncio.gather(collect(early, overdue("a")), collect(late, overdue("b")))
    assert [len(endings) for endings in both] == [1, 1]
    assert client.opened == 1
    assert len(await collect(early, overdue("c"))) == 1
