"""Long recordings with words at known times, and what the service says about a part of them."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

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
