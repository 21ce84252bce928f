"""In which threads the event loop reaches an archive, whatever Airflow looks up its connection."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync

from airflow_speechkit.triggers.result_archiver import WRITTEN_AT_ONCE, use_archive
from tests.fixtures.until import until


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def test_lookups_find_the_event_loop_as_those_of_airflow_3_0_and_3_1_do(tmp_path: Path) -> None:
    found: list[asyncio.AbstractEventLoop] = []
    await use_archive(str(tmp_path), lambda archive: found.append(async_to_sync(running_loop)()))
    assert found == [asyncio.get_running_loop()]


async def test_a_lookup_is_seen_through_when_the_wait_for_it_is_cancelled(tmp_path: Path) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()
    ends: list[str] = []

    async def ask() -> None:
        asked.set()
        try:
            await may_answer.wait()
            ends.append("answered")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    writing = asyncio.create_task(use_archive(str(tmp_path), lambda archive: async_to_sync(ask)()))
    await asked.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    may_answer.set()
    await until(lambda: bool(ends))
    assert ends == ["answered"]


async def test_what_no_task_waits_for_is_not_begun(tmp_path: Path) -> None:
    url, over, written = str(tmp_path), threading.Event(), []
    slow = [asyncio.create_task(use_archive(url, lambda archive: over.wait(600))) for _ in range(WRITTEN_AT_ONCE)]
    given_up = asyncio.create_task(use_archive(url, lambda archive: written.append("given up")))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    over.set()
    await asyncio.gather(*slow)
    await use_archive(url, lambda archive: written.append("wanted"))
    assert written == ["wanted"]
