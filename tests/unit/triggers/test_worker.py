"""A wait in a worker's thread, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from airflow_speechkit import compat
from airflow_speechkit.errors import UnreachableError
from airflow_speechkit.triggers import recognition
from airflow_speechkit.triggers.recognition import WaitingTask
from airflow_speechkit.triggers.wait import WaitResult


class Waiting:
    """In place of an `OperationWait`: it goes on until it is cancelled, or gives a result."""

    def __init__(self, result: WaitResult | None = None) -> None:
        self.result = result
        self.began, self.was_cancelled = threading.Event(), threading.Event()
        self.cancels = 0
        self.running = {"e03a"}
        self.end: Callable[[], object] = lambda: None

    async def run(self, deadline: float, **how: bool) -> WaitResult:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self.end = lambda: loop.call_soon_threadsafe(task.cancel)
        self.began.set()
        try:
            return self.result or await asyncio.Future()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise

    async def cancel_running(self) -> None:
        self.cancels += 1


class Task(WaitingTask):
    """A task that cancels on kill."""

    cancel_on_kill = True

    def run(self, waiting: Waiting) -> WaitResult:
        return self._run_wait(waiting, 0.0)  # type: ignore[arg-type]


def test_a_result_is_returned_and_an_error_is_raised() -> None:
    assert Task().run(Waiting(WaitResult(left=1))).left == 1
    with pytest.raises(UnreachableError):
        Task().run(Waiting(WaitResult(error=UnreachableError("No answer"))))


class Interrupted(ThreadPoolExecutor):
    """Whoever waits for it is interrupted, `at_once` before its thread has begun."""

    at_once = False
    waiting: Waiting

    def submit(self, do: Any, /, *args: Any, **more: Any) -> Future[Any]:
        may_begin = threading.Event()

        def begin() -> Any:
            may_begin.wait(60)
            return do(*args, **more)

        running = super().submit(begin)

        def interrupted(timeout: float | None = None) -> Any:
            if self.at_once:
                threading.Timer(0.2, may_begin.set).start()
            else:
                may_begin.set()
                self.waiting.began.wait(60)
            raise KeyboardInterrupt

        running.result = interrupted  # type: ignore[method-assign]
        return running


@pytest.mark.parametrize("at_once", [False, True], ids=["meanwhile", "before it has begun"])
def test_a_wait_that_is_interrupted_is_cancelled(monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    waiting = Waiting()
    monkeypatch.setattr(recognition, "ThreadPoolExecutor", Interrupted)
    monkeypatch.setattr(Interrupted, "at_once", at_once)
    monkeypatch.setattr(Interrupted, "waiting", waiting, raising=False)
    with pytest.raises(KeyboardInterrupt):
        Task().run(waiting)
    assert waiting.was_cancelled.is_set() or at_once


@pytest.mark.parametrize(("state", "cancels"), [("failed", 1), ("running", 0), (None, 0)])
def test_what_runs_is_cancelled_where_the_task_is_over(
    monkeypatch: pytest.MonkeyPatch, state: str | None, cancels: int
) -> None:
    monkeypatch.setattr(compat, "read_task_state", lambda task_instance: state)
    waiting, subject = Waiting(), Task()
    subject.on_kill()

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            subject.run(waiting)

    thread = threading.Thread(target=run)
    thread.start()
    waiting.began.wait(60)
    subject.on_kill()
    assert waiting.cancels == cancels, "while it is waited for"
    waiting.end()
    thread.join()
    subject.on_kill()
    assert waiting.cancels == 2 * cancels, "after the wait"
    waiting.running = set()
    subject.on_kill()
    assert waiting.cancels == 2 * cancels, "nothing runs"
