"""Triggers that wait for operations of the emulator, and their events."""

from __future__ import annotations

import time
from typing import Any

from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger
from airflow_speechkit.triggers.wait import WaitResult
from tests.fixtures.direct import Desk, events_of

#: What the event of a wait has that brought results only, apart from their number.
FINISHED = WaitResult().to_event()


def trigger(desk: Desk, *ids: str, **more: Any) -> SpeechKitRecognitionTrigger:
    waiting = [
        {
            "operation_id": one,
            "submitted_at": time.time(),
            "interval_s": 0.2,
            "api_version": "v3" if one.startswith("f8d") else "v2",
        }
        for one in ids
    ]
    known: dict[str, Any] = {
        "waiting": waiting,
        "speechkit_conn_id": "speechkit_default",
        "archive": desk.archive_url,
        "deadline": time.time() + 3600,
    }
    return SpeechKitRecognitionTrigger(**{**known, **more})


def event(desk: Desk, *ids: str, **more: Any) -> dict[str, Any]:
    (found,) = events_of(trigger(desk, *ids, **more).serialize())
    return found
