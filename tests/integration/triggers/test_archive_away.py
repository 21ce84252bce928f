"""Triggers with an archive that is unreachable for a while, and other triggers."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.triggers import result_archiver
from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger
from tests.fixtures.direct import Desk
from tests.fixtures.pauses import shorten
from tests.fixtures.until import until
from tests.integration.triggers.waiting import FINISHED

_conn_ids = (f"away_{number}" for number in count())


def trigger(conn_id: str, ids: list[str], archive: str | None, **more: Any) -> SpeechKitRecognitionTrigger:
    known = {"submitted_at": time.time(), "interval_s": 0.2, **more}
    return SpeechKitRecognitionTrigger(
        waiting=[{"operation_id": one, "api_version": "v3" if one.startswith("f8d") else "v2", **known} for one in ids],
        speechkit_conn_id=conn_id,
        archive=archive,
        deadline=time.time() + 3600,
    )


async def event(made: SpeechKitRecognitionTrigger) -> Any:
    [found] = [one.payload async for one in made.run()]
    return found


@pytest.fixture
def conn_id(desk: Desk) -> str:
    """A connection with a separate rate limit."""
    name = next(_conn_ids)
    desk.connect(name, extra={"checks_per_hour": 72_000})
    return name


@pytest.fixture
def back_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, 0.3)
    monkeypatch.setattr(result_archiver, "DROPPED_S", 0.3)


@pytest.mark.usefixtures("back_soon")
@pytest.mark.parametrize("api", ["v2", "v3"])
def test_an_archive_that_is_unreachable_for_long_delays_no_other_wait(desk: Desk, conn_id: str, api: str) -> None:
    large = desk.emulator.stand_ins(12, api=api, result_bytes=100_000)
    [healthy] = desk.emulator.stand_ins(api=api)
    hindrance = Path(desk.archive_url)
    hindrance.write_text("")

    async def scene() -> list[Any]:
        away = asyncio.create_task(event(trigger(conn_id, large, desk.archive_url)))
        await asyncio.sleep(1.5)
        async with asyncio.timeout(600):
            other = await event(trigger(conn_id, [healthy], str(desk.place / "another archive")))
        assert not away.done()
        await asyncio.to_thread(hindrance.unlink)
        return [other, await away]

    assert asyncio.run(scene()) == [FINISHED | {"of": of} for of in (1, 12)]
    assert all(desk.archive.answer(one) for one in large)


@pytest.mark.usefixtures("back_soon")
def test_no_check_is_spent_while_the_archive_is_unreachable(
    desk: Desk, conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(url: str) -> None:
        raise ArchiveError(f"{url} is unreachable")

    ids = desk.emulator.stand_ins(3)
    before = desk.checks()

    async def scene() -> Any:
        with monkeypatch.context() as unreachable:
            unreachable.setattr("airflow_speechkit.hooks.archive.open_archive", away)
            waiting = asyncio.create_task(event(trigger(conn_id, ids, desk.archive_url)))
            await until(lambda: desk.checks() > before)
            await asyncio.sleep(1)
            asked = await asyncio.to_thread(desk.checks)
            await asyncio.sleep(2)
            assert not waiting.done()
            assert await asyncio.to_thread(desk.checks) == asked
        return await waiting

    assert asyncio.run(scene()) == FINISHED | {"of": 3}
    assert desk.checks() <= before + 6
    assert all(desk.archive.answer(one) for one in ids)
