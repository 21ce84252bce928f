"""Answers as the service gives them, made from their words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from airflow_speechkit.models import Answer, Submission
from airflow_speechkit.settings import ApiVersion, RecognitionSettings

V2_TYPE = "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"


def word(text: str, start: Any, end: Any, **more: Any) -> dict[str, Any]:
    return {"startTime": start, "endTime": end, "word": text, "confidence": 1, **more}


def chunk(channel: Any, *words: dict[str, Any], text: str | None = None, **more: Any) -> dict[str, Any]:
    said = text if text is not None else " ".join(word["word"] for word in words)
    return {"alternatives": [{"words": list(words), "text": said, "confidence": 1}], "channelTag": channel, **more}


def operation(*chunks: dict[str, Any], operation_id: str = "e03one", day: str = "2026-11-22", **more: Any) -> dict:
    response: dict[str, Any] = {"@type": V2_TYPE}
    if chunks:
        response["chunks"] = list(chunks)
    moments = {"createdAt": f"{day}T10:00:00Z", "createdBy": "ajeone", "modifiedAt": f"{day}T10:00:11Z"}
    return {"done": True, "response": response, "id": operation_id, **moments, **more}


def v2(*chunks: dict[str, Any], operation_id: str = "e03one", indent: int | None = None, **more: Any) -> Answer:
    return answer(operation(*chunks, operation_id=operation_id, **more), indent=indent)


def answer(said: dict[str, Any], *, indent: int | None = None) -> Answer:
    separators = (",", ":") if indent is None else None
    raw = json.dumps(said, ensure_ascii=False, indent=indent, separators=separators)
    return Answer(said["id"], ApiVersion.V2, raw.encode())


def final(
    channel: str, index: int, *words: tuple[str, int, int], text: str | None = None, frame: int = 0
) -> dict[str, Any]:
    return message(
        channel, index, {"final": {"alternatives": [_alternative(words, text, frame)], "channelTag": channel}}
    )


def refinement(channel: str, index: int, *words: tuple[str, int, int], text: str) -> dict[str, Any]:
    update = {"alternatives": [_alternative(words, text, 0)], "channelTag": channel}
    return message(channel, 0, {"finalRefinement": {"finalIndex": str(index), "normalizedText": update}})


def message(channel: str, index: int, event: dict[str, Any]) -> dict[str, Any]:
    cursors = {"receivedDataMs": "7400", "finalIndex": str(index), "eouTimeMs": "0"}
    session = {"uuid": "24935f24", "userRequestId": "f8done"}
    return {"result": {"sessionUuid": session, "audioCursors": cursors, **event, "channelTag": channel}}


def _alternative(words: tuple[tuple[str, int, int], ...], text: str | None, frame: int) -> dict[str, Any]:
    return {
        "words": [{"text": word, "startTimeMs": str(start), "endTimeMs": str(end)} for word, start, end in words],
        "text": text if text is not None else " ".join(word for word, _, _ in words),
        "startTimeMs": str(frame),
        "endTimeMs": "7400",
        "confidence": 0,
        "languages": [],
    }


def v3(*messages: dict[str, Any], indent: int | None = None, between: str = "\n", **operation: Any) -> Answer:
    moments = {"createdAt": "2026-11-22T10:00:00Z", "modifiedAt": "2026-11-22T10:00:11Z"}
    said = {"done": True, "id": "f8done", "description": "STT v3 async recognition", **moments, **operation}
    recognition = between.join(json.dumps(one, ensure_ascii=False, indent=indent) for one in messages)
    return Answer("f8done", ApiVersion.V3, json.dumps(said).encode(), recognition.encode())


def submission(operation_id: str = "e03one", **more: Any) -> Submission:
    facts: dict[str, Any] = {
        "fingerprint": "abc",
        "audio_uri": "s3://calls/2026-11-22/1.ogg",
        "settings": RecognitionSettings(),
        "submitted_at": datetime(2026, 11, 22, 9, 59, 58, tzinfo=UTC),
        "duration_ms": 61_500,
        "channels": 2,
        "billed_seconds": 62,
        "labels": {"call_id": "17", "агент": "Анна"},
    }
    return Submission(operation_id=operation_id, **(facts | more))
