"""Which keywords the sensor takes, and which it refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_speechkit.errors import (
    SettingsError,
)
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"on_failure": "ignore"}, "on_failure"),
        *(
            (how | {name: value}, name)
            for how in ({"deferrable": True}, {"mode": "poke"}, {"mode": "reschedule"})
            for name, value in (("exponential_backoff", True), ("max_wait", 60), ("silent_fail", True))
        ),
        ({"poke_interval": 0}, "poke_interval"),
        ({"poke_interval": -1}, "poke_interval"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"poke_interval": timedelta(0), "deferrable": True}, "poke_interval"),
        ({"cancel_on_kill": True, "mode": "reschedule", "deferrable": False}, "cancel_on_kill"),
    ],
)
def test_a_keyword_that_would_not_be_honoured_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        SpeechKitRecognitionSensor(task_id="wait", operation_id="e03", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"cancel_on_kill": True},
        {"cancel_on_kill": True, "mode": "reschedule", "deferrable": True},
        {"poke_interval": timedelta(seconds=0.5)},
    ],
    ids=str,
)
def test_a_keyword_that_is_honoured_is_taken(given: dict[str, Any]) -> None:
    assert SpeechKitRecognitionSensor(task_id="wait", operation_id="e03", **given)
