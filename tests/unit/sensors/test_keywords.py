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
        ({"deferrable": True, "exponential_backoff": True}, "exponential_backoff"),
        ({"deferrable": True, "max_wait": 60}, "max_wait"),
        ({"deferrable": True, "silent_fail": True}, "silent_fail"),
        ({"max_wait": 60}, "max_wait"),
        ({"max_wait": 60, "poke_interval": 30}, "max_wait"),
        ({"poke_interval": 0}, "poke_interval"),
        ({"poke_interval": -1}, "poke_interval"),
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
        {"max_wait": 60, "exponential_backoff": True},
        {"cancel_on_kill": True},
        {"cancel_on_kill": True, "mode": "reschedule", "deferrable": True},
        {"poke_interval": timedelta(seconds=0.5)},
    ],
    ids=str,
)
def test_a_keyword_that_is_honoured_is_taken(given: dict[str, Any]) -> None:
    assert SpeechKitRecognitionSensor(task_id="wait", operation_id="e03", **given)
