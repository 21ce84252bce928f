"""What a poller tells: metrics, and lines in the log of the task that waits."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter

import pytest
from airflow_speechkit.polling.waiting import Finished, Waiting

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.polling.poller import shared_poller
from airflow_speechkit.settings import ApiVersion
from tests.unit.polling.pollers import (
    TRIGGER,
    Client,
    Counting,
    Written,
    budget,
    collect,
    defective,
    done,
    never,
    overdue,
)


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
    stats = Counting()
    with pytest.raises(ZeroDivisionError):
        await collect(shared_poller(key, defective, budget(), stats=stats), overdue("a"))
    assert stats.gauges[f"speechkit.waiting.{key}"] == 0


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
