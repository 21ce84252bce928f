"""The start of a trigger: its connection, and its time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from airflow_speechkit.hooks import speechkit
from airflow_speechkit.triggers import wait
from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger
from tests.fixtures.direct import Desk, events_of
from tests.fixtures.pauses import shorten
from tests.integration.triggers.waiting import FINISHED


def trigger(operation_id: str, *, age_s: float = 0.0, left_s: float, conn_id: str = "speechkit_default") -> Any:
    now = time.time()
    return SpeechKitRecognitionTrigger(
        waiting=[{"operation_id": operation_id, "submitted_at": now - age_s, "interval_s": 0.2}],
        speechkit_conn_id=conn_id,
        archive=None,
        deadline=now + left_s,
    )


def test_a_key_replaced_during_a_wait_is_used(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, 0.2)
    # The first reading after a refused key may still be the old one.
    monkeypatch.setattr(speechkit, "READ_AGAIN_AFTER_S", 2.5)
    desk.connect("replaced", password="not-the-key-of-the-service")
    [operation_id] = desk.emulator.stand_ins()

    async def scene() -> list[Any]:
        async def replace() -> None:
            await asyncio.sleep(1)
            desk.connect("replaced")

        replacing = asyncio.create_task(replace())
        found = [one.payload async for one in trigger(operation_id, left_s=3600, conn_id="replaced").run()]
        await replacing
        return found

    assert asyncio.run(scene()) == [FINISHED | {"of": 1}]


def test_a_short_timeout_stays_short_for_new_operations(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    [operation_id] = desk.emulator.stand_ins(processing_s=36_000)
    monkeypatch.setattr(wait, "FIRST_ROUND_S", 36_000.0)
    [found] = events_of(trigger(operation_id, left_s=1.0).serialize())
    assert found["left"] == 1
