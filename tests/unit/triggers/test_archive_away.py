"""What a triggerer does while an archive is away, or doesn't answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_speechkit.archive.keeping import Keep
from airflow_speechkit.triggers.finishing import Finisher

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.archive import keeping
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import ArchiveError, AuthenticationError
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.triggers import archiving
from tests.fixtures.until import until


def ended(number: int, api_version: ApiVersion = ApiVersion.V2) -> Operation:
    return Operation(id=f"e03{number}", state=OperationState.DONE, api_version=api_version, raw=b"{}")


@pytest.fixture
def held_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FIRST_PAUSE_S", 0.3)
    monkeypatch.setattr(keeping, "LONGEST_PAUSE_S", 0.3)
    monkeypatch.setattr(keeping, "HELD_S", 0.5)
    monkeypatch.setattr(archiving, "HELD_S", 0.5)


class Results:
    """A hook, and its client, that has a result for whatever it is asked for."""

    def __init__(self) -> None:
        self.fetched = 0

    def async_client(self) -> Results:
        return self

    async def __aenter__(self) -> Results:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def get_recognition(self, operation_id: str, *, seen_done: bool) -> bytes:
        self.fetched += 1
        return b"{}"


def test_all_triggers_together_hold_few_results(tmp_path: Path) -> None:
    hindrance = tmp_path / "archive"
    hindrance.write_text("")
    results = Results()

    async def scene() -> None:
        finishers = [Finisher(lambda: results, str(hindrance), delete_after_archiving=False) for _ in range(60)]  # type: ignore[arg-type]
        finishing = [
            asyncio.create_task(one.finish(ended(number, ApiVersion.V3))) for number, one in enumerate(finishers)
        ]
        await until(lambda: results.fetched >= archiving.FETCHED_AT_ONCE)
        await asyncio.sleep(0.5)
        for task in finishing:
            task.cancel()
        await asyncio.wait(finishing)

    asyncio.run(scene())
    assert results.fetched == archiving.FETCHED_AT_ONCE


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An archive that doesn't answer."""
    over = threading.Event()

    url = str(tmp_path / "silent")
    opens = archiving._open.__wrapped__

    def hang(which: str, age: int) -> Archive:
        if which != url:
            return opens(which, age)
        over.wait(600)
        raise ArchiveError("timed out")

    monkeypatch.setattr(archiving, "_open", hang)
    yield url
    over.set()


def test_an_archive_that_does_not_answer_leaves_threads_to_others(silent: str) -> None:
    async def scene() -> None:
        finisher = Finisher(lambda: None, silent, delete_after_archiving=False)  # type: ignore[arg-type]
        finishing = [asyncio.create_task(finisher.finish(ended(number))) for number in range(60)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(600):
            await asyncio.to_thread(int)
        for task in finishing:
            task.cancel()
        await asyncio.wait(finishing)

    asyncio.run(scene())


def test_an_archive_that_does_not_answer_counts_as_away_and_for_whoever_has_no_thread(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "ANSWERS_WITHIN_S", 0.5)

    async def scene() -> list[Any]:
        keeps = [archiving.keep(silent, ended(number), Keep()) for number in range(archiving.AT_ONCE + 4)]
        return await asyncio.gather(*keeps, return_exceptions=True)

    found = asyncio.run(scene())
    assert [type(one) for one in found] == [ArchiveError] * len(found)
    assert all("has not answered" in str(one) for one in found)


def test_an_archive_that_does_not_answer_keeps_no_other_waiting(silent: str, tmp_path: Path) -> None:
    async def scene() -> None:
        stuck = [asyncio.create_task(archiving.keep(silent, ended(number), Keep())) for number in range(20)]
        looking = [asyncio.create_task(archiving.reach(silent, f"e03{number}")) for number in range(20)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(600):
            await archiving.reach(str(tmp_path / "there"), "e031")
        for task in [*stuck, *looking]:
            task.cancel()
        await asyncio.wait([*stuck, *looking])

    asyncio.run(scene())


def test_all_who_wait_for_an_archive_share_one_look_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    asked = threading.Event()

    def away(url: str) -> None:
        looks.append(url)
        asked.wait()
        raise ArchiveError("away")

    monkeypatch.setattr("airflow_speechkit.hooks.archive.open_archive", away)

    async def scene() -> list[Any]:
        url = str(tmp_path / "away")
        first = asyncio.create_task(archiving.reach(url, "e031"))
        await asyncio.sleep(0.02)
        others = [archiving.reach(url, f"e03{number}") for number in range(20)]
        first.cancel()
        asyncio.get_running_loop().call_later(0.2, asked.set)
        return await asyncio.gather(*others, return_exceptions=True)

    assert [type(one) for one in asyncio.run(scene())] == [ArchiveError] * 20
    assert len(looks) == 1


@pytest.mark.usefixtures("held_briefly")
def test_no_answer_is_held_for_an_archive_that_has_been_away_until_it_is_there_again(tmp_path: Path) -> None:
    hindrance = tmp_path / "archive"
    hindrance.write_text("")
    results = Results()

    async def scene() -> None:
        finisher = Finisher(lambda: results, str(hindrance), delete_after_archiving=False)  # type: ignore[arg-type,return-value]
        assert not await finisher.finish(ended(1))
        await asyncio.sleep(0.3)
        before = results.fetched
        assert not await finisher.finish(ended(2, ApiVersion.V3))
        assert results.fetched == before, "it is not even fetched"
        hindrance.unlink()
        await finisher.archive_is_back("e032")
        assert await finisher.finish(ended(2, ApiVersion.V3))
        assert results.fetched == before + 1
        assert finisher.errors == []

    asyncio.run(scene())


def test_results_are_fetched_with_the_key_of_the_connection_as_it_is_after_a_401(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "FIRST_PAUSE_S", 0.01)
    keys = ["old"]
    opened = []

    class Keyed(Results):
        def __init__(self) -> None:
            super().__init__()
            self.key = keys[-1]
            opened.append(self.key)

        async def get_recognition(self, operation_id: str, *, seen_done: bool) -> bytes:
            if self.key != keys[-1]:
                raise AuthenticationError("Unauthorized", http_status=401)
            return await super().get_recognition(operation_id, seen_done=seen_done)

    async def scene() -> None:
        async with Finisher(Keyed, str(tmp_path / "archive"), delete_after_archiving=False) as finisher:  # type: ignore[arg-type]
            assert await finisher.finish(ended(1, ApiVersion.V3))
            keys.append("new")
            assert await finisher.finish(ended(2, ApiVersion.V3))
            assert await finisher.finish(ended(3, ApiVersion.V3))
            assert finisher.errors == []

    asyncio.run(scene())
    assert opened == ["old", "new"]
