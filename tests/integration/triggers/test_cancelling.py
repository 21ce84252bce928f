"""When a trigger cancels the operations that it waits for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from airflow_speechkit import compat
from airflow_speechkit.polling.poller import Poller
from airflow_speechkit.triggers import recognition
from tests.fixtures.direct import Desk
from tests.integration.triggers.waiting import trigger

TERMINAL = ("failed", "success", "skipped", "removed", "upstream_failed")


LIVING = ("deferred", "running", "scheduled", "queued", "restarting", "up_for_retry", "up_for_reschedule", None)


def until(so: Callable[[], bool]) -> None:
    while not so():
        time.sleep(0.1)


def cancelled(desk: Desk, *ids: str) -> list[str]:
    """Those of the operations that the service was asked to cancel."""
    paths = [one["path"] for one in desk.emulator.request_log() if one["kind"] == "cancel"]
    return [one for one in ids if any(one in path for path in paths)]


def killed(desk: Desk, monkeypatch: pytest.MonkeyPatch, state: str | Exception | None, **more: Any) -> list[str]:
    """End a wait for a running operation with the task in a state; return the cancelled operations."""

    def read(task_instance: Any) -> str | None:
        if isinstance(state, Exception):
            raise state
        return state

    monkeypatch.setattr(compat, "read_task_state", read)
    (operation_id,) = desk.emulator.stand_ins(processing_s=36_000)
    ended, *_ = desk.emulator.stand_ins()

    async def scene() -> None:
        made = trigger(desk, operation_id, ended, **more)
        made.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
        waiting = asyncio.create_task(anext(aiter(made.run())))  # type: ignore[arg-type]
        await asyncio.to_thread(until, lambda: made.wait.left == {operation_id})
        if recognition.TRIGGERS_HAVE_ON_KILL:
            await made.on_kill()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(scene())
    assert not cancelled(desk, ended), "what has ended is left alone"
    return cancelled(desk, operation_id)


@pytest.mark.parametrize("tells", [True, False], ids=["on_kill", "cancelled coroutine"])
@pytest.mark.parametrize("state", [*TERMINAL, *LIVING, LookupError("no such task")], ids=str)
def test_operations_are_cancelled_only_if_requested_and_the_task_is_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, state: Any, tells: bool
) -> None:
    monkeypatch.setattr(recognition, "TRIGGERS_HAVE_ON_KILL", tells)
    assert bool(killed(desk, monkeypatch, state, cancel_on_kill=True)) == (state in TERMINAL)


@pytest.mark.parametrize("tells", [True, False], ids=["on_kill", "cancelled coroutine"])
def test_operations_continue_if_cancelling_was_not_requested(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    monkeypatch.setattr(recognition, "TRIGGERS_HAVE_ON_KILL", tells)
    assert not killed(desk, monkeypatch, "failed")


def test_repeated_cancellation_does_not_interrupt_the_cancel_requests(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (operation_id,) = desk.emulator.stand_ins(processing_s=36_000)
    asked = threading.Event()

    def read(task_instance: Any) -> str:
        asked.set()
        time.sleep(0.5)
        return "failed"

    monkeypatch.setattr(compat, "read_task_state", read)

    async def scene() -> None:
        made = trigger(desk, operation_id, cancel_on_kill=True)
        made.task_instance = None
        killing = asyncio.create_task(made.on_kill())
        await asyncio.to_thread(asked.wait)
        for _ in range(3):
            killing.cancel("user-action")
            await asyncio.sleep(0.01)
        await asyncio.wait([killing])

    asyncio.run(scene())
    assert cancelled(desk, operation_id)


def test_the_task_state_is_read_in_the_event_loop_of_airflow_3_0_and_3_1(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (operation_id,) = desk.emulator.stand_ins(processing_s=36_000)

    async def running_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(
            compat, "read_task_state", lambda task_instance: "failed" if async_to_sync(running_loop)() is loop else None
        )
        made = trigger(desk, operation_id, cancel_on_kill=True)
        made.task_instance = None
        await made.on_kill()

    asyncio.run(scene())
    assert cancelled(desk, operation_id)


def test_a_cancel_that_is_refused_is_only_logged(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.emulator.fault(403, on="cancel", times=None)
    monkeypatch.setattr(recognition, "TRIGGERS_HAVE_ON_KILL", True)
    assert killed(desk, monkeypatch, "failed", cancel_on_kill=True)


def test_cancel_requests_wait_for_their_apis_limit_and_end_at_the_first_429(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    allowed: list[Any] = []
    original = Poller.request_allowed

    async def request_allowed(poller: Poller) -> None:
        allowed.append(poller.key)
        await original(poller)

    monkeypatch.setattr(Poller, "request_allowed", request_allowed)
    monkeypatch.setattr(compat, "read_task_state", lambda task_instance: "failed")
    old = desk.emulator.stand_ins(2, processing_s=36_000)
    new = desk.emulator.stand_ins(2, api="v3", processing_s=36_000)

    async def scene() -> None:
        made = trigger(desk, *old, *new, cancel_on_kill=True)
        made.task_instance = None
        await made.on_kill()

    asyncio.run(scene())
    assert sorted(cancelled(desk, *old, *new)) == sorted([*old, *new])
    assert sorted(key[1] for key in allowed) == ["v2", "v2", "v3", "v3"]

    desk.emulator.fault(429, on="cancel", times=None)
    before = sum(desk.emulator.requests()["cancel"].values())
    asyncio.run(scene())
    assert sum(desk.emulator.requests()["cancel"].values()) == before + 1
    assert "The quota is used up" in caplog.text


@pytest.mark.usefixtures("brief_pauses")
def test_an_ended_operation_without_a_ready_result_is_not_cancelled(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "read_task_state", lambda task_instance: "failed")
    (stuck,) = desk.emulator.stand_ins(api="v3")
    desk.emulator.fault("not_ready", on="recognition", times=None, match=stuck)

    async def scene() -> None:
        made = trigger(desk, stuck, cancel_on_kill=True)
        made.task_instance = None
        waiting = asyncio.create_task(anext(aiter(made.run())))  # type: ignore[arg-type]
        await asyncio.to_thread(until, lambda: not made.wait.running)
        waiting.cancel()
        await asyncio.wait([waiting])
        await made.on_kill()
        assert made.wait.left == {stuck}

    asyncio.run(scene())
    assert not cancelled(desk, stuck)
