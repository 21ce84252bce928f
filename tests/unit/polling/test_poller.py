"""The shared poller, on real event loops; its checks are answered by the test."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import re
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

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
from airflow_speechkit.polling.budget import CheckBudget, Limit
from airflow_speechkit.polling.client import Allowed, Check
from airflow_speechkit.polling.poller import Poller, shared_poller
from airflow_speechkit.polling.waiting import Ending, Finished, Gone, Unanswered, Waiting
from airflow_speechkit.settings import ApiVersion

Answering = Callable[[str], Awaitable[Operation]]


def operation(
    name: str, state: OperationState = OperationState.DONE, raw: bytes = b"{}", took_s: float = 5.0
) -> Operation:
    created = datetime.now(UTC) - timedelta(seconds=10.0)
    return Operation(
        id=name,
        state=state,
        api_version=ApiVersion.V2,
        created_at=created,
        modified_at=created + timedelta(seconds=took_s),
        raw=raw,
    )


def overdue(*names: str, **more: object) -> list[Waiting]:
    """Operations that are asked for at once."""
    return [Waiting(name, time.time() - 10.0, 6.0, 1, **more) for name in names]  # type: ignore[arg-type]


class Client:
    """What `open_check` opens; counts how often."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.opened = self.closed = 0
        self.asked: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.entered = asyncio.Semaphore(0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Check]:
        self.opened += 1
        try:
            yield self._check
        finally:
            self.closed += 1

    async def _check(self, name: str, allowed: Allowed) -> Operation:
        await allowed()
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


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return request.node.name


def budget() -> CheckBudget:
    return CheckBudget((Limit(100_000, 3600.0),))


async def collect(subject: Poller, waitings: list[Waiting], **more: object) -> list[Ending]:
    async with subject.waiting(waitings, **more) as endings:  # type: ignore[arg-type]
        return [ending async for ending in endings]


async def done(name: str) -> Operation:
    return operation(name)


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


async def test_a_defect_is_raised_and_not_swallowed(key: str) -> None:
    async def answer(name: str) -> Operation:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await collect(shared_poller(key, Client(answer).open, budget()), overdue("a"))


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


async def test_metrics_and_log_lines(key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stats = Counting()
    subject = shared_poller(key, Client(done).open, budget(), stats=stats)
    [ending] = await collect(subject, overdue("a"), log=logging.getLogger("task"))
    assert isinstance(ending, Finished)
    assert stats.counts == {"speechkit.checks": 1, "speechkit.detections": 1}
    assert stats.gauges[f"speechkit.waiting.{key}"] == 0, "nobody waits any more"
    assert stats.gauges[f"speechkit.budget_left.{key}"] == 100_000 - 1
    [delay_ms] = stats.timings["speechkit.detection_delay"]
    assert delay_ms == pytest.approx(5000.0, abs=2000.0)
    assert [record for record in caplog.records if "next check in" in record.getMessage()]


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


async def never(name: str) -> Operation:
    return operation(name, OperationState.RUNNING)


async def test_a_gauge_has_the_connection_in_its_name_and_goes_down_to_0() -> None:
    stats = Counting()
    for key in (("my conn", ApiVersion.V2), ("my_conn", "v2"), ("other", "v3")):
        async with shared_poller(key, Client(done).open, budget(), stats=stats).waiting(overdue("a", "b")) as endings:
            await anext(endings)
    waiting = {name.removeprefix("speechkit.waiting."): value for name, value in stats.gauges.items() if "wait" in name}
    assert set(waiting.values()) == {0}
    assert {"my_conn.v2", "other.v3"} < set(waiting)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.v[23]", name) for name in waiting)
    assert len(waiting) == 3, "names that look alike once they are safe are told apart"


async def test_nobody_waits_any_more_after_a_defect_either(key: str) -> None:
    async def answer(name: str) -> Operation:
        raise ZeroDivisionError

    stats = Counting()
    with pytest.raises(ZeroDivisionError):
        await collect(shared_poller(key, Client(answer).open, budget(), stats=stats), overdue("a"))
    assert stats.gauges[f"speechkit.waiting.{key}"] == 0


# whose log a line belongs to

TRIGGER: contextvars.ContextVar[str] = contextvars.ContextVar("trigger_id", default="nobody")


class Written(logging.Handler):
    """Lines, each with the context that it was written in, as Airflow routes them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((TRIGGER.get(), record.getMessage()))


@pytest.fixture
def written() -> Iterator[Written]:
    handler = Written()
    logger = logging.getLogger("airflow_speechkit")
    before, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.level = before


LOG = logging.getLogger("airflow_speechkit.task")


async def test_each_tasks_lines_go_into_its_own_log(key: str, written: Written) -> None:
    wanted = asyncio.Event()

    async def answer(name: str) -> Operation:
        logging.getLogger("airflow_speechkit.client").info("asked for %s", name)
        if client.asked.total() >= 30:
            wanted.set()
        return await never(name)

    client = Client(answer)
    subject = shared_poller(key, client.open, budget())

    async def trigger(name: str) -> None:
        TRIGGER.set(name)
        async with subject.waiting(overdue(name, interval_s=0.2), log=LOG, log_every_s=0.0):
            await wanted.wait()

    await asyncio.gather(*(trigger(name) for name in "abc"))
    lines = [(whose, line) for whose, line in written.lines if "next check" in line]
    by_whom = Counter(whose for whose, _ in lines)
    assert all(by_whom[name] >= 5 for name in "abc")
    assert set(by_whom) == set("abc")
    assert {whose for whose, line in written.lines if "asked for" in line} == {"nobody"}


async def test_a_lists_line_names_the_next_check_of_its_own_operations(key: str, written: Written) -> None:
    asked = asyncio.Event()

    async def answer(name: str) -> Operation:
        asked.set()
        return await never(name)

    now = time.time()
    rare = Waiting("rare", now - 7199.5, interval_s=7200.0)
    often = Waiting("often", now, interval_s=300.0)
    subject = shared_poller(key, Client(answer).open, budget())
    async with subject.waiting([Waiting("other", now, interval_s=2.0)]):
        asked.clear()
        async with subject.waiting([rare, often], log=LOG, log_every_s=0.0):
            await asked.wait()
            await asyncio.sleep(0.05)
    last = written.lines[-1][1]
    assert "2 of 2 operations to go; next check in" in last
    assert "every 300 s" in last, "the one of the two that is due first, not the one that was just asked for"


# what goes out


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
