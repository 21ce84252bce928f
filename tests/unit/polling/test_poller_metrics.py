"""The metrics of a poller."""

from __future__ import annotations

import asyncio
import re

import pytest

from airflow_speechkit.polling.poller import shared_poller
from airflow_speechkit.polling.target import PollOutcome
from airflow_speechkit.settings import ApiVersion
from tests.unit.polling.in_virtual_time import in_virtual_time
from tests.unit.polling.pollers import Counting, Defective, Service, collect, done, never, overdue, plenty


@in_virtual_time
async def test_checks_and_delays_are_counted(key: str) -> None:
    stats = Counting()
    subject = shared_poller(key, Service(done), plenty(), stats=stats)
    [result] = await collect(subject, overdue("a"))
    assert result.outcome is PollOutcome.ENDED
    assert stats.counts == {"speechkit.checks": 1, "speechkit.detections": 1}
    assert stats.gauges[f"speechkit.waiting.{key}"] == 0, "nobody waits any more"
    assert stats.gauges[f"speechkit.budget_left.{key}"] == 100_000 - 1
    [delay_ms] = stats.timings["speechkit.detection_delay"]
    assert delay_ms == pytest.approx(5000.0, abs=2000.0)


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
        subject = shared_poller(key, Service(done), plenty(), stats=stats)
        async with subject.subscribed(overdue("a", "b")) as subscription:
            await subscription.next()
    waiting = {name.removeprefix("speechkit.waiting."): value for name, value in stats.gauges.items() if "wait" in name}
    assert set(waiting.values()) == {0}
    assert len(waiting) == len(keys), "look-alikes have names of their own"
    assert "my_conn.v2" in waiting
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,100}\.v[23]", name) for name in waiting)


@in_virtual_time
async def test_gauges_are_written_now_and_then_while_somebody_waits(key: str) -> None:
    stats = Counting()
    async with shared_poller(key, Service(never), plenty(), stats=stats).subscribed(overdue("a", interval_s=60.0)):
        await asyncio.sleep(600.0)
        assert stats.gauges[f"speechkit.waiting.{key}"] == 1
        assert stats.gauges[f"speechkit.budget_left.{key}"] == pytest.approx(100_000 - 10, abs=2)


@in_virtual_time
async def test_nobody_waits_any_more_after_a_defect_either(key: str) -> None:
    stats = Counting()
    with pytest.raises(ZeroDivisionError):
        await collect(shared_poller(key, Defective(ZeroDivisionError()), plenty(), stats=stats), overdue("a"))
    assert stats.gauges[f"speechkit.waiting.{key}"] == 0
