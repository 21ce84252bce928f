"""What a triggerer does while an archive is out of reach, or doesn't answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.polling.poller import RESULTS_AT_ONCE
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.triggers import result_archiver
from airflow_speechkit.triggers.result_archiver import WRITTEN_AT_ONCE, ResultArchiver, use_archive
from tests.fixtures.pauses import shorten
from tests.fixtures.until import until
from tests.unit.triggers.results import Results, ended


def archiving(url: object, results: Results, *numbers: int) -> list[asyncio.Task[bool]]:
    """Archive v3 results as one task does."""
    archiver = ResultArchiver(str(url), delete_after_archiving=False)
    poller: Any = results
    return [asyncio.create_task(archiver.archive(ended(number, ApiVersion.V3), poller)) for number in numbers]


async def write(url: str, number: int) -> None:
    await use_archive(url, lambda archive: archive.keep_operation(ended(number), None))


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An archive that doesn't answer."""
    over = threading.Event()
    url = str(tmp_path / "silent")
    opens = result_archiver._opened.__wrapped__

    def hang(which: str, age: int) -> Archive:
        if which != url:
            return opens(which, age)
        over.wait(600)
        raise ArchiveError("timed out")

    monkeypatch.setattr(result_archiver, "_opened", hang)
    yield url
    over.set()


async def test_all_triggers_together_hold_few_results(silent: str) -> None:
    results = Results()
    tasks = [task for number in range(60) for task in archiving(silent, results, number)]
    await until(lambda: len(results.fetched) >= RESULTS_AT_ONCE)
    await asyncio.sleep(0.5)
    await cancelled(*tasks)
    assert len(results.fetched) == RESULTS_AT_ONCE


async def test_a_task_fetches_few_results_side_by_side(silent: str) -> None:
    results = Results()
    tasks = archiving(silent, results, *range(30))
    await until(lambda: len(results.fetched) >= result_archiver.FETCHED_AT_ONCE)
    await asyncio.sleep(0.5)
    await cancelled(*tasks)
    assert len(results.fetched) == result_archiver.FETCHED_AT_ONCE


async def test_an_archive_that_does_not_answer_leaves_the_event_loops_own_threads_to_others(silent: str) -> None:
    tasks = archiving(silent, Results(), *range(60))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(600):
        await asyncio.to_thread(int)
    await cancelled(*tasks)


async def test_an_archive_that_does_not_answer_counts_as_out_of_reach_also_for_what_has_no_thread(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_archiver, "ANSWERS_WITHIN_S", 0.5)
    writes = [write(silent, number) for number in range(WRITTEN_AT_ONCE + 4)]
    found = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(one) for one in found] == [ArchiveError] * len(found)
    assert all("has not answered" in str(one) for one in found)


async def test_an_archive_that_does_not_answer_delays_no_other(silent: str, tmp_path: Path) -> None:
    stuck = [asyncio.create_task(write(silent, number)) for number in range(20)]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(600):
        await write(str(tmp_path / "there"), 1)
    await cancelled(*stuck)


async def test_one_operations_damaged_file_says_nothing_about_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_archiver, "DROPPED_S", 0.0)
    url = str(tmp_path / "archive")
    await write(url, 1)
    for file in (tmp_path / "archive").rglob("*e031/*"):
        file.write_bytes(b"{")
    archiver = ResultArchiver(url, delete_after_archiving=False)
    shorten(monkeypatch, 0.0)
    async with asyncio.timeout(600):
        await archiver.until_back("e031", ArchiveError("out of reach"))
    with pytest.raises(ArchiveError):
        await write(url, 1)
    await write(url, 2)
