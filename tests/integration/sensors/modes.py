"""The modes of a sensor."""

from __future__ import annotations

from typing import Any

from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import AIRFLOW_3, wait_for

#: Before Airflow 3, a rescheduled sensor reads its start from the database.
MODES = ["deferred", "poke", *(["reschedule"] if AIRFLOW_3 else [])]


def sensor(mode: str, operation_id: Any, **kwargs: Any) -> SpeechKitRecognitionSensor:
    how: dict[str, Any] = {"deferrable": True} if mode == "deferred" else {"deferrable": False, "mode": mode}
    return SpeechKitRecognitionSensor(
        task_id="wait", operation_id=operation_id, **{"poke_interval": 0.2, **how, **kwargs}
    )


def wait(mode: str, operation_id: Any, **kwargs: Any) -> Any:
    return wait_for(sensor(mode, operation_id, **kwargs))
