"""The metrics of a poller."""

from __future__ import annotations

import asyncio

import pytest

from airflow_speechkit.polling.poller import shared_poller
from tests.unit.polling.in_virtual_time import in_virtual_time
from tests.unit.polling.pollers import Counting, Defective, Service, collect, done, never, overdue, plenty


@in_virtual_time
async def test_checks_and_delays_are_counted(key: tuple[str, str]) -> None:
    stats = Counting()
    subject = shared_poller(key, Service(done), plenty(), stats=stats)
    [result] = await collect(subject, overdue("a"))
    assert result.operation is not None
    assert stats.counts == {"speechkit.checks": 1, "speechkit.detections": 1}
    assert stats.gauges[f"speechkit.waiting.{key[0]}.v2"] == 0, "nobody waits any more"
    assert stats.gauges[f"speechkit.budget_left.{key[0]}.v2"] == 100_000 - 1
    [delay_ms] = stats.timings["speechkit.detection_delay"]
    assert delay_ms == pytest.approx(5000.0, abs=2000.0)


@in_virtual_time
async def test_a_gauge_has_the_connection_in_its_name_and_goes_down_to_0() -> None:
    stats = Counting()
    for conn_id in ("my conn", "c" * 250):
        subject = shared_poller((conn_id, "v3"), Service(done), plenty(), stats=stats)
        await collect(subject, overdue("a", "b"))
    waiting = {name: value for name, value in stats.gauges.items() if "waiting" in name}
    assert waiting == {"speechkit.waiting.my_conn.v3": 0, f"speechkit.waiting.{'c' * 100}.v3": 0}


@in_virtual_time
async def test_gauges_are_written_now_and_then_while_somebody_waits(key: tuple[str, str]) -> None:
    stats = Counting()
    async with shared_poller(key, Service(never), plenty(), stats=stats).subscribed(overdue("a", interval_s=60.0)):
        await asyncio.sleep(600.0)
        assert stats.gauges[f"speechkit.waiting.{key[0]}.v2"] == 1
        assert stats.gauges[f"speechkit.budget_left.{key[0]}.v2"] == pytest.approx(100_000 - 10, abs=2)


@in_virtual_time
async def test_nobody_waits_any_more_after_a_defect_either(key: tuple[str, str]) -> None:
    stats = Counting()
    await collect(shared_poller(key, Defective(ZeroDivisionError()), plenty(), stats=stats), overdue("a"))
    assert stats.gauges[f"speechkit.waiting.{key[0]}.v2"] == 0
