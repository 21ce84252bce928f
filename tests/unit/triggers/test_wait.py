"""One task's wait, with a service in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import OperationNotFoundError, PermissionDeniedError
from airflow_speechkit.polling.poller import Poller
from airflow_speechkit.polling.target import PollTarget
from airflow_speechkit.triggers import result_archiver
from airflow_speechkit.triggers.wait import OperationWait
from tests.fixtures.pauses import shorten
from tests.fixtures.until import until
from tests.unit.triggers.service import Service


def wait_for(service: Service, archive: Path | None, *names: str, age_s: float = 1000.0) -> OperationWait:
    targets = [PollTarget(name, time.time() - age_s, 6.0, 1, interval_s=0.1) for name in names]
    return OperationWait(targets, speechkit_conn_id=service.conn_id, archive=str(archive) if archive else None)


async def test_all_that_end_are_archived(service: Service, tmp_path: Path) -> None:
    names = [f"e03{number}" for number in range(30)]
    result = await wait_for(service, tmp_path, *names).run(time.time() + 600.0)
    assert not result.left
    assert not result.failed
    assert sorted(Archive.at(str(tmp_path)).operations()) == sorted(names)
    assert sorted(service.asked) == sorted(names)


async def test_without_an_archive_nothing_is_kept(service: Service) -> None:
    result = await wait_for(service, None, "e03a").run(time.time() + 600.0)
    assert not result.left


async def test_those_that_the_service_does_not_know_are_named(service: Service, tmp_path: Path) -> None:
    service.errors["e03a"] = OperationNotFoundError("Unknown", http_status=404)
    result = await wait_for(service, tmp_path, "e03a", "e03b").run(time.time() + 600.0)
    assert (result.gone, result.left, result.error) == (["e03a"], [], None)


async def test_it_ends_when_its_time_is_over_and_says_what_is_left(service: Service, tmp_path: Path) -> None:
    service.running = {"e03a"}
    wait = wait_for(service, tmp_path, "e03a", "e03b")
    result = await wait.run(time.time() + 1.0, exactly=True)
    assert (result.left, result.error) == (["e03a"], None)
    assert wait.running == {"e03a"}


async def test_one_that_starts_late_asks_for_each_old_operation_once(service: Service, tmp_path: Path) -> None:
    result = await wait_for(service, tmp_path, "e03a", "e03b").run(time.time() - 10.0)
    assert not result.left
    result = await wait_for(service, tmp_path, "e03c").run(time.time() - 10.0, exactly=True)
    assert result.left == ["e03c"]


async def test_a_short_time_is_short_for_operations_that_are_new(service: Service, tmp_path: Path) -> None:
    service.running = {"e03a"}
    async with asyncio.timeout(60.0):
        result = await wait_for(service, tmp_path, "e03a", age_s=0.0).run(time.time() + 5.0)
    assert result.left == ["e03a"]


async def test_it_stops_where_nothing_is_due_and_says_when_to_come_back(service: Service, tmp_path: Path) -> None:
    service.running = {"e03a"}
    targets = [PollTarget("e03a", time.time() - 5000.0, interval_s=3600.0)]
    wait = OperationWait(targets, speechkit_conn_id=service.conn_id, archive=str(tmp_path))
    result = await wait.run(time.time() + 600.0, exactly=True, stop_when_idle=True)
    assert result.left == ["e03a"]
    assert result.next_check_s == pytest.approx(2200.0, abs=60.0)


async def test_the_error_that_ended_a_wait_is_what_it_says(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, 0.05, failures=3, seconds=0.1)
    service.errors["e03a"] = PermissionDeniedError("No right", http_status=403)
    result = await wait_for(service, tmp_path, "e03a", "e03b").run(time.time() + 600.0)
    assert isinstance(result.error, PermissionDeniedError)
    assert list(Archive.at(str(tmp_path)).operations()) == ["e03b"]


async def test_answers_that_were_dropped_are_asked_for_together_and_as_one_task(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, 0.1, failures=10_000)
    monkeypatch.setattr(result_archiver, "DROPPED_S", 0.3)
    subscribed: list[int] = []
    original = Poller.subscribed

    @asynccontextmanager
    async def noted(self: Poller, targets: Any, **more: Any) -> AsyncIterator[Any]:
        subscribed.append(len(targets))
        async with original(self, targets, **more) as results:
            yield results

    monkeypatch.setattr(Poller, "subscribed", noted)
    hindrance = tmp_path / "archive"
    hindrance.write_text("")
    names = [f"e03{number}" for number in range(200)]
    waiting = asyncio.create_task(wait_for(service, hindrance, *names).run(time.time() + 600.0))
    await until(lambda: set(service.asked) >= set(names))
    hindrance.unlink()
    result = await waiting
    assert not result.left
    assert sorted(Archive.at(str(hindrance)).operations()) == sorted(names)
    assert len(subscribed) < 10
