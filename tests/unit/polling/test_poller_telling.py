"""What a poller tells: metrics, and lines in the log of the task that waits."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter

import pytest

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.errors import QuotaExceededError, UnreachableError
from airflow_speechkit.polling.poller import shared_poller
from airflow_speechkit.polling.target import PollOutcome, PollTarget
from airflow_speechkit.settings import ApiVersion
from tests.unit.polling.in_virtual_time import in_virtual_time
from tests.unit.polling.pollers import (
    TRIGGER,
    Client,
    Counting,
    Written,
    collect,
    defective,
    done,
    never,
    overdue,
    plenty,
)


@in_virtual_time
async def test_metrics_and_log_lines(key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stats = Counting()
    subject = shared_poller(key, Client(done).open, plenty(), stats=stats)
    [result] = await collect(subject, overdue("a"), log=logging.getLogger("task"))
    assert result.outcome is PollOutcome.ENDED
    assert stats.counts == {"speechkit.checks": 1, "speechkit.detections": 1}
    assert stats.gauges[f"speechkit.waiting.{key}"] == 0, "nobody waits any more"
    assert stats.gauges[f"speechkit.budget_left.{key}"] == 100_000 - 1
    [delay_ms] = stats.timings["speechkit.detection_delay"]
    assert delay_ms == pytest.approx(5000.0, abs=2000.0)
    assert [record for record in caplog.records if "next check in" in record.getMessage()]


@in_virtual_time
async def test_a_gauge_has_the_connection_in_its_name_and_goes_down_to_0() -> None:
    stats = Counting()
    keys = [
        ("my conn", ApiVersion.V2),
        ("my.conn", ApiVersion.V2),
        ("my_conn", "v2"),
        ("c" * 250, "v3"),
        ("c" * 249, "v3"),
    ]
    for key in keys:
        subject = shared_poller(key, Client(done).open, plenty(), stats=stats)
        async with subject.subscribed(overdue("a", "b")) as results:
            await anext(results)
    waiting = {name.removeprefix("speechkit.waiting."): value for name, value in stats.gauges.items() if "wait" in name}
    assert set(waiting.values()) == {0}
    assert len(waiting) == len(keys), "look-alikes have names of their own"
    assert "my_conn.v2" in waiting
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,100}\.v[23]", name) for name in waiting)


@in_virtual_time
async def test_gauges_are_written_now_and_then_while_somebody_waits(key: str) -> None:
    stats = Counting()
    async with shared_poller(key, Client(never).open, plenty(), stats=stats).subscribed(overdue("a", interval_s=60.0)):
        await asyncio.sleep(600.0)
        assert stats.gauges[f"speechkit.waiting.{key}"] == 1
        assert stats.gauges[f"speechkit.budget_left.{key}"] == pytest.approx(100_000 - 10, abs=2)


@in_virtual_time
async def test_nobody_waits_any_more_after_a_defect_either(key: str) -> None:
    stats = Counting()
    with pytest.raises(ZeroDivisionError):
        await collect(shared_poller(key, defective, plenty(), stats=stats), overdue("a"))
    assert stats.gauges[f"speechkit.waiting.{key}"] == 0


LOG = logging.getLogger("airflow_speechkit.task")


@in_virtual_time
async def test_each_tasks_lines_go_into_its_own_log(key: str, written: Written) -> None:
    wanted = asyncio.Event()

    async def answer(name: str) -> Operation:
        logging.getLogger("airflow_speechkit.client").info("asked for %s", name)
        if client.asked.total() >= 30:
            wanted.set()
        return await never(name)

    client = Client(answer)
    subject = shared_poller(key, client.open, plenty())

    async def trigger(name: str) -> None:
        TRIGGER.set(name)
        async with subject.subscribed(overdue(name, interval_s=0.2), log=LOG, log_every_s=0.0):
            await wanted.wait()

    await asyncio.gather(*(trigger(name) for name in "abc"))
    lines = [(whose, line) for whose, line in written.lines if "next check" in line]
    by_whom = Counter(whose for whose, _ in lines)
    assert all(by_whom[name] >= 5 for name in "abc")
    assert set(by_whom) == set("abc")
    assert {whose for whose, line in written.lines if "asked for" in line} == {"nobody"}


@in_virtual_time
async def test_a_lists_line_names_the_next_check_of_its_own_operations(key: str, written: Written) -> None:
    asked = asyncio.Event()

    async def answer(name: str) -> Operation:
        asked.set()
        return await never(name)

    now = time.time()
    rare = PollTarget("rare", now - 7199.5, interval_s=7200.0)
    often = PollTarget("often", now, interval_s=300.0)
    subject = shared_poller(key, Client(answer).open, plenty())
    async with subject.subscribed([PollTarget("other", now, interval_s=2.0)]):
        asked.clear()
        async with subject.subscribed([rare, often], log=LOG, log_every_s=0.0):
            await asked.wait()
            await asyncio.sleep(0.05)
    last = written.lines[-1][1]
    assert "2 operations left, next check in" in last
    assert "every 300 s" in last, "the one of the two that is due first, not the one that was just asked for"


@in_virtual_time
async def test_a_line_comes_now_and_then_and_says_how_far_it_is(key: str, written: Written) -> None:
    async def answer(name: str) -> Operation:
        return await (done if name == "a" else never)(name)

    subject = shared_poller(key, Client(answer).open, plenty())
    async with subject.subscribed(overdue("a", "b", interval_s=10.0), log=LOG, log_every_s=300.0):
        await asyncio.sleep(1000.0)
    lines = [line for _, line in written.lines]
    assert 3 <= len(lines) <= 5
    assert lines[0].startswith("2 operations left, next check in")
    assert lines[-1].startswith("1 operations left, next check in")


@in_virtual_time
async def test_a_line_says_that_the_quota_is_used_up_and_what_failed(key: str, written: Written) -> None:
    errors = iter([QuotaExceededError("Too many", http_status=429), UnreachableError("The host is away")])

    async def answer(name: str) -> Operation:
        if (error := next(errors, None)) is not None:
            raise error
        return await done(name)

    subject = shared_poller(key, Client(answer).open, plenty())
    await collect(subject, overdue("a"), log=LOG, log_every_s=0.0)
    lines = [line for _, line in written.lines]
    assert any("used up (429): all checks pause for 120 s" in line for line in lines)
    assert any("The host is away" in line and "1 check in a row failed" in line for line in lines)
