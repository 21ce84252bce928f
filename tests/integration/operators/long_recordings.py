"""Long recordings with words at known times, and what the service says about a part of them."""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from airflow.exceptions import AirflowException

from airflow_speechkit.errors import CostLimitExceededError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import Desk

Word = tuple[str, int, int]

#: A pause ends an utterance.
_PAUSE_MS = 900


def words_of(seconds: float, channels: int = 1) -> list[list[Word]]:
    """Words every few seconds, with pauses between them, for each channel."""
    random = np.random.default_rng(11)
    spoken: list[list[Word]] = [[] for _ in range(channels)]
    for channel, words in enumerate(spoken):
        at_ms = 100 + 50 * channel
        while at_ms < seconds * 1000 - 2_000:
            length_ms = int(random.integers(120, 600))
            words.append((f"w{len(words)}c{channel}", at_ms, at_ms + length_ms))
            at_ms += length_ms + int(random.choice([60, 100, 900, 1_500]))
    return spoken


def wav_of(spoken: Sequence[Sequence[Word]], seconds: float, rate: int = 8_000) -> bytes:
    """Noise for each word, and silence between them."""
    channels = len(spoken)
    samples = np.zeros((round(seconds * rate), channels), np.int16)
    noise = np.random.default_rng(5).integers(-8_000, 8_000, rate, np.int16)
    for channel, words in enumerate(spoken):
        for _, start_ms, end_ms in words:
            begin, end = start_ms * rate // 1000, end_ms * rate // 1000
            samples[begin:end, channel] = noise[: end - begin]
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(channels)
        output.setsampwidth(2)
        output.setframerate(rate)
        output.writeframes(samples.tobytes())
    return file.getvalue()


def transcript(spoken: Sequence[Sequence[Word]], start_ms: int = 0, end_ms: int | None = None) -> dict[str, Any]:
    """What the service says about a part: the words in it, in its own time."""
    said = []
    for words in spoken:
        inside = [one for one in words if one[1] >= start_ms and (end_ms is None or one[2] <= end_ms)]
        utterances = []
        pauses = [place for place in range(1, len(inside)) if inside[place][1] - inside[place - 1][2] >= _PAUSE_MS]
        for begin_at, end_at in pairwise([0, *pauses, len(inside)]):
            between = [
                {"word": text, "start_ms": begin - start_ms, "end_ms": end - start_ms}
                for text, begin, end in inside[begin_at:end_at]
            ]
            utterances.append({"text": " ".join(one["word"] for one in between), "words": between})
        said.append({"utterances": utterances})
    return {"channels": said, "processing_s": 0}


def submit(desk: Desk, audio: Any, **keywords: Any) -> Any:
    given = {"language": "en-US", "upload_to": f"s3://{desk.bucket}/{desk.prefix}-copies/", "split": True}
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, **{**given, **keywords}).execute({})


def wait(ids: Any, **keywords: Any) -> Any:
    return SpeechKitRecognitionSensor(
        task_id="wait", operation_id=ids, poke_interval=0.1, deferrable=False, **keywords
    ).execute({})


def tables(desk: Desk, ids: Any, name: str) -> dict[str, list[dict[str, Any]]]:
    target = str(desk.place / name)
    SpeechKitTransformOperator(task_id="transform", operation_id=ids, target=target).execute({})
    return {
        table: pq.read_table(f"{target}/{table}").to_pylist()
        for table in ("recognitions", "utterances", "words")
        if os.path.isdir(f"{target}/{table}")
    }


def said(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The words with their places and times, and without the ids."""
    left = ("channel", "word", "start_ms", "end_ms", "utterance", "alternative", "word_index")
    return sorted(tuple(row[name] for name in left) for row in rows)


def seed_parts(
    desk: Desk,
    client: Any,
    audio: str,
    spoken: Sequence[Sequence[Word]],
    failing: int | None = None,
    **keywords: Any,
) -> list[int]:
    """Have the parts of a recording made, and tell the emulator what is said in each; return where they begin."""
    with pytest.raises((CostLimitExceededError, AirflowException)):
        submit(desk, audio, max_billed_seconds=1, **keywords)
    listed = client.list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}-copies/")["Contents"]
    keys = sorted(one["Key"] for one in listed if "-part" in one["Key"])
    facts = [client.head_object(Bucket=desk.bucket, Key=key)["Metadata"] for key in keys]
    starts = [int(one["start-ms"]) for one in facts]
    assert {one["of"] for one in facts} == {str(len(keys))}
    for number, key in enumerate(keys):
        end_ms = starts[number + 1] if number + 1 < len(keys) else None
        answer = transcript(spoken, starts[number], end_ms)
        if number + 1 == failing:
            answer = {"error": {"code": 3, "message": "bad"}, "processing_s": 0}
        desk.emulator.seed(answer, key=key)
    return starts


def keys_of(desk: Desk, client: Any) -> list[str]:
    """The keys of the copies."""
    listed = client.list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}-copies/")
    return [one["Key"] for one in listed.get("Contents", ())]
