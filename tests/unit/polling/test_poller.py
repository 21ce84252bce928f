"""The shared poller, on real event loops; its checks are answered by the test."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref

import pytest

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import (
    ConnectionSettingsError,
    OperationNotFoundError,
    QuotaExceededError,
    UnreachableError,
)
from airflow_speechkit.polling import poller
from airflow_speechkit.polling.poller import shared_poller
from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.schedule import DurationKind
from airflow_speechkit.polling.target import PollResult
from tests.unit.polling.in_virtual_time import in_virtual_time
from tests.unit.polling.pollers import (
    Counting,
    Defective,
    Service,
    collect,
    done,
    never,
    operation,
    overdue,
    plenty,
)


@in_virtual_time
async def test_each_operation_ends_once_with_its_answer(key: tuple[str, str]) -> None:
    client = Service(done)
    results = await collect(shared_poller(key, client, plenty()), overdue("a", "b", "c"))
    assert sorted(result.operation_id for result in results) == ["a", "b", "c"]
    assert all(result.operation is not None and result.operation.raw == b"{}" for result in results)
    assert client.asked == {"a": 1, "b": 1, "c": 1}


@in_virtual_time
async def test_waiting_for_nothing_ends_at_once(key: tuple[str, str]) -> None:
    assert await collect(shared_poller(key, Service(done), plenty()), []) == []


@in_virtual_time
async def test_an_operation_that_failed_has_ended_too(key: tuple[str, str]) -> None:
    async def failed(name: str) -> Operation:
        return operation(name, OperationState.FAILED)

    [result] = await collect(shared_poller(key, Service(failed), plenty()), overdue("a"))
    assert result.operation is not None
    assert result.operation.state is OperationState.FAILED


@in_virtual_time
async def test_all_who_wait_share_one_client_which_is_closed_after_the_last(key: tuple[str, str]) -> None:
    client = Service(done)

    async def wait(name: str) -> list[PollResult]:
        return await collect(shared_poller(key, client, plenty()), overdue(name))

    await asyncio.gather(*(wait(str(number)) for number in range(30)))
    assert (client.opened, client.closed) == (1, 1)
    assert len(asyncio.all_tasks()) == 1


@in_virtual_time
async def test_two_who_wait_for_the_same_operation_cost_one_check(key: tuple[str, str]) -> None:
    client = Service(done)
    subject = shared_poller(key, client, plenty())
    both = await asyncio.gather(collect(subject, overdue("a")), collect(subject, overdue("a")))
    assert [len(results) for results in both] == [1, 1]
    assert client.asked["a"] == 1


@in_virtual_time
async def test_a_404_ends_that_one_and_no_other(key: tuple[str, str]) -> None:
    async def answer(name: str) -> Operation:
        if name == "unknown":
            raise OperationNotFoundError("It is not known", http_status=404)
        return operation(name)

    results = await collect(shared_poller(key, Service(answer), plenty()), overdue("unknown", "there"))
    errors = {result.operation_id: type(result.error) for result in results}
    assert errors == {"unknown": OperationNotFoundError, "there": type(None)}


@in_virtual_time
async def test_errors_are_retried(key: tuple[str, str]) -> None:
    errors = iter([UnreachableError("No answer"), OSError("broken"), TimeoutError(), UnreachableError("Again")])

    async def answer(name: str) -> Operation:
        if (error := next(errors, None)) is not None:
            raise error
        return operation(name)

    stats = Counting()
    subject = shared_poller(key, Service(answer), plenty(), stats=stats)
    [result] = await collect(subject, overdue("a"))
    assert result.operation is not None
    assert stats.counts["speechkit.check_errors"] == 4


@in_virtual_time
async def test_a_429_is_counted_and_all_pause(key: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    refusals = iter([QuotaExceededError("Too many", http_status=429, retry_after_s=900.0)])

    async def answer(name: str) -> Operation:
        if (error := next(refusals, None)) is not None:
            raise error
        return operation(name)

    stats, started = Counting(), asyncio.get_running_loop().time()
    subject = shared_poller(key, Service(answer), RateLimiter(1000, 3600.0), stats=stats)
    rate = subject.scheduler.limiter.rate(started)
    await collect(subject, overdue("a"))
    assert asyncio.get_running_loop().time() - started >= 900.0
    assert "all checks pause for 900 s" in caplog.text
    assert subject.scheduler.limiter.rate(started + 900.0) < rate
    assert stats.counts["speechkit.responses_429"] == 1


@pytest.mark.parametrize(
    "error", [ConnectionSettingsError("No key"), ZeroDivisionError()], ids=["connection", "defect"]
)
@in_virtual_time
async def test_an_error_outside_of_a_check_ends_all_waits(key: tuple[str, str], error: Exception) -> None:
    service = Defective(error)
    subject = shared_poller(key, service, plenty())
    both = await asyncio.gather(collect(subject, overdue("a")), collect(subject, overdue("b")))
    assert [one.error for [one] in both] == [error, error]
    assert len(asyncio.all_tasks()) == 1
    service.error = None
    [result] = await collect(subject, overdue("a"))
    assert result.operation is not None


@in_virtual_time
async def test_a_cancelled_waiter_leaves_the_others_alone(key: tuple[str, str]) -> None:
    release = asyncio.Event()

    async def answer(name: str) -> Operation:
        await release.wait()
        return operation(name)

    client = Service(answer)
    subject = shared_poller(key, client, plenty())
    first = asyncio.create_task(collect(subject, overdue("a")))
    second = asyncio.create_task(collect(subject, overdue("b")))
    await client.entered.acquire()
    await client.entered.acquire()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    release.set()
    assert [result.operation_id for result in await second] == ["b"]
    assert client.closed == 1


@in_virtual_time
async def test_the_last_waiter_cancelled_ends_the_checks_under_way(key: tuple[str, str]) -> None:
    async def answer(name: str) -> Operation:
        await asyncio.Event().wait()
        raise AssertionError

    client = Service(answer)
    waiter = asyncio.create_task(collect(shared_poller(key, client, plenty()), overdue("a")))
    await client.entered.acquire()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert client.under_way == 0
    assert client.closed == 1
    assert len(asyncio.all_tasks()) == 1


@in_virtual_time
async def test_only_so_many_large_answers_are_held_until_they_are_handled(key: tuple[str, str]) -> None:
    async def large(name: str) -> Operation:
        return operation(name, raw=b"x" * poller.LARGE_ANSWER)

    client = Service(large)
    names = [str(number) for number in range(3 * poller.AT_ONCE)]
    async with shared_poller(key, client, plenty()).subscribed(overdue(*names)) as results:
        for handled in range(len(names)):
            await results.get()
            for _ in range(50):
                await asyncio.sleep(0)
            assert sum(client.asked.values()) - handled <= poller.AT_ONCE + 1
            results.task_done()


@in_virtual_time
async def test_places_of_one_who_leaves_early_are_given_back(key: tuple[str, str]) -> None:
    async def large(name: str) -> Operation:
        return operation(name, raw=b"x" * poller.LARGE_ANSWER)

    client = Service(large)
    subject = shared_poller(key, client, plenty())
    async with subject.subscribed(overdue("z", interval_s=3600.0)):
        async with subject.subscribed(overdue(*(str(number) for number in range(2 * poller.AT_ONCE)))) as results:
            await results.get()
            results.task_done()
        assert len(await collect(subject, overdue(*(f"b{number}" for number in range(poller.AT_ONCE))))) == 8


def test_what_was_spent_and_learned_outlives_a_loop_which_itself_is_not_kept(key: tuple[str, str]) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    spent, ended = [], []

    async def one(name: str) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        subject = shared_poller(key, Service(done), plenty())
        await collect(subject, overdue(name))
        spent.append(100_000 - subject.scheduler.limiter.left(time.monotonic()))
        ended.append(subject.scheduler.models[DurationKind.MEASURED].ended)

    for name in "abc":
        asyncio.run(one(name))
    gc.collect()
    assert [loop() for loop in loops[:2]] == [None, None]
    assert spent == [1, 2, 3]
    assert ended == [1, 2, 3]


@in_virtual_time
async def test_a_connections_new_limit_holds_at_once_and_what_was_spent_counts(key: tuple[str, str]) -> None:
    client = Service(never)
    subject = shared_poller(key, client, RateLimiter(10, 3600.0))
    async with subject.subscribed(overdue("a", interval_s=1.0)):
        await asyncio.sleep(60.0)
        assert shared_poller(key, Service(never), RateLimiter(15, 3600.0)) is subject
        now = asyncio.get_running_loop().time()
        assert subject.scheduler.limiter.left(now) == 15 - client.asked.total()


@in_virtual_time
async def test_a_poller_asked_for_before_the_last_one_left_still_works(key: tuple[str, str]) -> None:
    client = Service(done)
    early = shared_poller(key, client, plenty())
    late = shared_poller(key, client, plenty())
    both = await asyncio.gather(collect(early, overdue("a")), collect(late, overdue("b")))
    assert [len(results) for results in both] == [1, 1]
    assert client.opened == 1
    assert len(await collect(early, overdue("c"))) == 1
