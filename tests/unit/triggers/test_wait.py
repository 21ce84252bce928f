"""One task's wait, with a service in this process."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from pathlib import Path

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import OperationNotFoundError, PermissionDeniedError
from airflow_speechkit.polling.target import PollTarget
from airflow_speechkit.triggers import result_archiver, wait
from airflow_speechkit.triggers.wait import OperationWait, WaitResult
from tests.fixtures.pauses import shorten
from tests.fixtures.until import until
from tests.unit.triggers.service import Service


def wait_for(service: Service, archive: Path | None, *names: str) -> OperationWait:
    targets = [PollTarget(name, time.time() - 1000.0, 6.0, 1, interval_s=0.1) for name in names]
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
    assert (result.not_found, result.left, result.error) == (["e03a"], 0, None)


async def test_it_ends_when_its_time_is_over_and_says_what_is_left(service: Service, tmp_path: Path) -> None:
    service.running = {"e03a"}
    wait = wait_for(service, tmp_path, "e03a", "e03b")
    result = await wait.run(time.time() + 1.0, exactly=True)
    assert (result.left, result.error) == (1, None)
    assert wait.running == {"e03a"}


async def test_one_that_starts_late_asks_for_each_old_operation_once(service: Service, tmp_path: Path) -> None:
    result = await wait_for(service, tmp_path, "e03a", "e03b").run(time.time() - 10.0)
    assert not result.left
    result = await wait_for(service, tmp_path, "e03c").run(time.time() - 10.0, exactly=True)
    assert result.left == 1


async def test_it_stops_where_nothing_is_due_and_says_when_to_come_back(service: Service, tmp_path: Path) -> None:
    service.running = {"e03a"}
    targets = [PollTarget("e03a", time.time() - 5000.0, interval_s=3600.0)]
    wait = OperationWait(targets, speechkit_conn_id=service.conn_id, archive=str(tmp_path))
    result = await wait.run(time.time() + 600.0, exactly=True, stop_when_idle=True)
    assert result.left == 1
    assert result.next_check_s == pytest.approx(2200.0, abs=60.0)


async def test_the_error_that_ended_a_wait_is_what_it_says(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, 0.05, failures=3, seconds=0.1)
    service.errors["e03a"] = PermissionDeniedError("No right", http_status=403)
    result = await wait_for(service, tmp_path, "e03a", "e03b").run(time.time() + 600.0)
    assert isinstance(result.error, PermissionDeniedError)
    assert list(Archive.at(str(tmp_path)).operations()) == ["e03b"]


async def test_nothing_is_asked_for_while_the_archive_cannot_be_written(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, 0.1, failures=10_000)
    monkeypatch.setattr(result_archiver, "DROPPED_S", 0.3)
    hindrance = tmp_path / "archive"
    hindrance.write_text("")
    names = [f"e03{number}" for number in range(200)]
    waiting = asyncio.create_task(wait_for(service, hindrance, *names).run(time.time() + 600.0))
    await until(lambda: bool(service.asked))
    await asyncio.sleep(1.0)
    asked = len(service.asked)
    await asyncio.sleep(1.0)
    assert len(service.asked) == asked
    hindrance.unlink()
    result = await waiting
    assert not result.left
    assert sorted(Archive.at(str(hindrance)).operations()) == sorted(names)


async def test_the_log_says_now_and_then_how_far_the_wait_is(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wait, "LOG_EVERY_S", 1.0)
    service.running = {"e03a"}
    with caplog.at_level(logging.INFO):
        await wait_for(service, None, "e03a", "e03b").run(time.time() + 4.0, exactly=True)
    lines = [one.getMessage() for one in caplog.records if "next check in" in one.getMessage()]
    assert lines[0].startswith("2 of 2 operations left, next check in ")
    assert lines[-1].startswith("1 of 2 operations left, next check in ")
    assert 3 <= len(lines) <= 5


class Logged(logging.Handler):
    """Lines, each with the task in whose context it was written: Airflow finds the task's log by that."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((TASK.get(), record.getMessage()))


TASK: contextvars.ContextVar[str] = contextvars.ContextVar("task", default="none")


async def test_each_tasks_lines_go_into_its_own_log(service: Service) -> None:
    async def task(name: str) -> None:
        TASK.set(name)
        await wait_for(service, None, name).run(time.time() + 600.0)

    handler, logger = Logged(), logging.getLogger("airflow_speechkit")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        await asyncio.gather(*(task(f"e03{number}") for number in range(3)))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert {task for task, line in handler.lines if "next check in" in line} == {"e030", "e031", "e032"}
    assert {task for task, line in handler.lines if line.startswith("asked for")} == {"none"}


@pytest.mark.parametrize(
    "result",
    [
        WaitResult(failed=["e03a"], not_found=["e03b"], of=3),
        WaitResult(left=2, of=3),
        WaitResult(error=PermissionDeniedError("No right", http_status=403)),
    ],
    ids=["finished", "timeout", "error"],
)
def test_a_result_is_read_from_its_event(result: WaitResult) -> None:
    read = WaitResult.from_event(json.loads(json.dumps(result.to_event())))
    assert (read.failed, read.not_found, read.left, read.of) == (
        result.failed,
        result.not_found,
        result.left,
        result.of,
    )
    assert str(read.error) == str(result.error)


def test_an_event_of_the_version_before_is_read() -> None:
    error = PermissionDeniedError("No right", http_status=403)
    about = {"failed": ["e03a"], "gone": ["e03b"], "left": 0, "of": 3}
    ended = WaitResult.from_event({"state": "finished", **about, "error": None})
    assert (ended.failed, ended.not_found, ended.of, ended.error) == (["e03a"], ["e03b"], 3, None)
    failed = WaitResult.from_event({"state": "error", **about, "error": error.to_json()})
    assert str(failed.error) == str(error)


async def test_a_connection_that_times_out_ends_the_wait(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_client() -> Service:
        raise TimeoutError

    monkeypatch.setattr(service, "async_client", no_client)
    with pytest.raises(ExceptionGroup):
        await wait_for(service, None, "e03a").run(time.time() + 600.0)
