"""Helpers of the tests of API v3: submit, wait, transform."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow.parquet as pq

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import Desk, wait_for
from tests.fixtures.manifests import paths_of

MODES: dict[str, dict[str, Any]] = {
    "deferred": {"deferrable": True},
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
}

#: What only v3 can be asked for, each with a value other than its default.
ASKED: dict[str, Any] = {
    "languages": ["en-US", "ru-RU"],
    "language_restriction": "WHITELIST",
    "phone_formatting": False,
    "classifiers": {"insult": ["ON_FINAL", "ON_UTTERANCE"]},
    "speaker_analysis": True,
    "conversation_analysis": True,
    "analysis_quantiles": [0.5, 0.95],
    "speaker_silence_threshold_ms": 700,
    "simultaneous_silence_threshold_ms": 1500,
    "simultaneous_speech_threshold_ms": 250,
    "speaker_labeling": True,
    "summarization": {
        "model_uri": "gpt://b1g0/yandexgpt",
        "properties": [
            {"instruction": "What was promised?", "json_schema": {"type": "object"}},
            {"instruction": "Who called?", "json_object": True},
        ],
    },
}

SPOKEN = {
    "channels": [
        {
            "utterances": [
                {"text": "twenty one please", "normalized_text": "21 please", "start_ms": 0, "end_ms": 900,
                 "speaker": "1", "languages": {"de-DE": 0.2, "en-US": 0.8}},
                {"text": "good bye", "start_ms": 3000, "end_ms": 3800, "speaker": "0", "refined": False},
            ]
        }
    ],
    "analyses": [
        {"channel": 0, "classifierUpdate": {"windowType": "LAST_FINAL", "startTimeMs": "3000", "endTimeMs": "3800",
                                            "classifierResult": {"classifier": "formal_farewell"}}},
        {"channel": 0, "speakerAnalysis": {"speakerTag": "1", "speechBoundaries": {"endTimeMs": "900"}}},
        {"conversationAnalysis": {"conversationBoundaries": {"startTimeMs": "0", "endTimeMs": "3800"}}},
        {"summarization": {"results": [{"response": "nothing"}], "contentUsage": {"totalTokens": "7"}}},
    ],
}  # fmt: skip


def submit(audio: Any, **kwargs: Any) -> Any:
    operator = SpeechKitSubmitOperator(task_id="submit", audio=audio, **{"api_version": "v3", **kwargs})
    return operator.execute({})


def wait(operation_id: Any, mode: str = "deferred", **kwargs: Any) -> Any:
    sensor = partial(SpeechKitRecognitionSensor, task_id="wait", poke_interval=0.2, timeout=600)
    return wait_for(sensor(operation_id=operation_id, **MODES[mode], **kwargs))


def transform(desk: Desk, operation_id: Any) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, from the files that the transform operator wrote."""
    target = desk.place / "tables"
    manifest = SpeechKitTransformOperator(task_id="transform", target=str(target), operation_id=operation_id).execute(
        {}
    )
    return {
        name: [row for path in paths_of(manifest, name) for row in pq.ParquetFile(path).read().to_pylist()]
        for name in manifest["rows"]
    }


def pick(rows: list[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]
