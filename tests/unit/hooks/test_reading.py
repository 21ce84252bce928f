"""Triggers that start together read their connection together."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_speechkit.errors import ConnectionSettingsError
from airflow_speechkit.hooks import speechkit
from airflow_speechkit.hooks.speechkit import SpeechKitHook


class CountingHook(SpeechKitHook):
    """Counts how often Airflow reads the connection."""

    lookups = 0

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        cls.lookups += 1
        return super().get_connection(conn_id)


@pytest.fixture
def kind() -> type[CountingHook]:
    return type("CountingHook", (CountingHook,), {})


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def make(password: str) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_SHARED", json.dumps({"conn_type": "speechkit", "password": password}))

    return make


async def gathered(kind: type[CountingHook], count: int) -> list[Any]:
    return await asyncio.gather(*(kind("shared").async_connection() for _ in range(count)), return_exceptions=True)


def test_thousands_that_start_together_ask_airflow_once(
    kind: type[CountingHook], connect: Callable[[str], None]
) -> None:
    connect("key-of-the-service")

    async def both() -> list[Any]:
        return [*await gathered(kind, 2000), *await gathered(kind, 1)]

    found = asyncio.run(both())
    assert len(found) == 2001
    assert all(one is found[0] for one in found)
    assert kind.lookups == 1


def test_another_event_loop_and_another_minute_read_again(
    kind: type[CountingHook], connect: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect("the-first-key-there-was")
    [first] = asyncio.run(gathered(kind, 1))
    connect("the-second-key-there-was")

    async def later() -> list[Any]:
        [second] = await gathered(kind, 1)
        connect("the-third-key-there-was")
        monkeypatch.setattr(speechkit, "READ_AGAIN_AFTER_S", 0.0)
        return [second, *await gathered(kind, 1)]

    keys = [one.credential.key for one in [first, *asyncio.run(later())]]
    assert keys == ["the-first-key-there-was", "the-second-key-there-was", "the-third-key-there-was"]


def test_a_failure_is_raised_for_all_and_not_kept(kind: type[CountingHook], connect: Callable[[str], None]) -> None:
    async def after_a_correction() -> list[Any]:
        failures = await gathered(kind, 3)
        connect("key-of-the-service")
        return [*failures, *await gathered(kind, 1)]

    *failures, found = asyncio.run(after_a_correction())
    assert [type(one) for one in failures] == [ConnectionSettingsError] * 3
    assert found.credential


def test_whoever_began_to_read_may_be_cancelled(kind: type[CountingHook], connect: Callable[[str], None]) -> None:
    connect("key-of-the-service")

    async def one_leaves() -> Any:
        first, second = (asyncio.create_task(kind("shared").async_connection()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(one_leaves()).credential
    assert kind.lookups == 1


class OneAtATime:
    """Answers as Airflow 3.1 does to a worker: two threads that ask at once get each other's answers."""

    def __init__(self) -> None:
        self.pending = 0
        self.mixed_up = False

    async def asend(self, message: object) -> None:
        raise NotImplementedError

    def send(self, message: object) -> None:
        self.pending += 1
        self.mixed_up |= self.pending > 1
        time.sleep(0.02)
        self.pending -= 1


def test_threads_of_a_worker_ask_one_after_the_other(
    connect: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = OneAtATime()
    task_runner = SimpleNamespace(SUPERVISOR_COMMS=supervisor)

    class Hook(SpeechKitHook):
        @classmethod
        def get_connection(cls, conn_id: str) -> Any:
            supervisor.send(conn_id)
            return super().get_connection(conn_id)

    connect("key-of-the-service")
    Hook.get_connection("shared")
    monkeypatch.setitem(sys.modules, "airflow.sdk.execution_time.task_runner", task_runner)  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: Hook("shared").connection, range(8)))
    assert len(found) == 8
    assert not supervisor.mixed_up
