"""Registered operations without recordings, for benchmarks: thousands of operations, or results of megabytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speechkit_emulator import v2, v3
from speechkit_emulator.bounds import LONGEST_S, BadValueError, fields, number, or_none, text, whole
from speechkit_emulator.operation import Operation, billed_seconds, new_id
from speechkit_emulator.request import Request
from speechkit_emulator.transcript import Failure, Transcript, Utterance, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from speechkit_emulator.bounds import Reader

_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "the",
    "slow",
    "red",
    "hen",
    "looks",
    "on",
    "from",
    "a",
    "little",
    "hill",
]
_WORD_MS = 400
_WORDS_AN_UTTERANCE = 12


@dataclass(frozen=True, kw_only=True)
class StandIns:
    """The operations to register.

    :param count: number of operations
    :param api: "v2" or "v3"
    :param processing_s: service seconds until the first is done
    :param spread_s: service seconds between the first and the last end
    :param result_bytes: approximate size of each result
    :param duration_ms: of the imaginary recordings
    :param channels: of the imaginary recordings
    :param error: their error; None = they have results
    """

    count: int = 1
    api: str = "v2"
    processing_s: float = 0.0
    spread_s: float = 0.0
    result_bytes: int = 2000
    duration_ms: int = 60_000
    channels: int = 1
    error: Failure | None = None

    @property
    def request(self) -> Request:
        """The imaginary request."""
        return Request(
            api=self.api,
            link="https://storage.yandexcloud.net/stand-in/recording.ogg",
            model="general",
            languages=("en-us",),
            encoding="OGG_OPUS",
        )

    def operation(self, now: float, created_by: str) -> Operation:
        """The operation to copy."""
        return Operation(
            id=new_id(self.api),
            request=self.request,
            created_by=created_by,
            created_s=now,
            due_s=now + self.processing_s,
            duration_ms=self.duration_ms,
            channels=self.channels,
            billed_seconds=billed_seconds(self.duration_ms, self.channels),
            settled_s=now,
            failure=self.error,
            stand_in=True,
        )

    def result(self) -> bytes:
        """A result of about `result_bytes`, as it is sent to clients."""
        sample = self._render(8)
        return self._render(max(1, round(self.result_bytes / len(sample) * 8)))

    def _render(self, utterances: int) -> bytes:
        transcript = Transcript(tuple(self._utterance(number) for number in range(utterances)))
        if self.api == "v2":
            return v2.render_response(transcript, self.request)
        return v3.render_recognition(transcript, self.request, "f8dstandin", self.duration_ms)

    def _utterance(self, number: int) -> Utterance:
        start_ms = number * _WORDS_AN_UTTERANCE * _WORD_MS
        words = tuple(
            Word(
                _WORDS[(number + index) % len(_WORDS)],
                start_ms + index * _WORD_MS,
                start_ms + index * _WORD_MS + _WORD_MS - 80,
            )
            for index in range(_WORDS_AN_UTTERANCE)
        )
        text = " ".join(word.word for word in words)
        return Utterance(number % self.channels, words, text, text.capitalize(), words[0].start_ms, words[-1].end_ms)


def _api(value: Any, name: str) -> str:
    if value not in ("v2", "v3"):
        raise BadValueError(f"{name} must be v2 or v3, not {value!r:.60}")
    return str(value)


def _failure(value: Any, name: str) -> Failure:
    if not isinstance(value, dict) or set(value) != {"code", "message"}:
        raise BadValueError(f"{name} must be an object with code and message")
    return Failure(**fields(value, {"code": whole(1, 16), "message": text}))


_READERS: dict[str, Reader[Any]] = {
    "count": whole(1, 1_000_000),
    "api": _api,
    "processing_s": number(0, LONGEST_S),
    "spread_s": number(0, LONGEST_S),
    "result_bytes": whole(0, 1_000_000_000),
    "duration_ms": whole(0, 1_000_000_000),
    "channels": whole(1, 1000),
    "error": or_none(_failure),
}


def read_stand_ins(value: Mapping[str, Any]) -> StandIns:
    """Read a control request to register operations.

    :raises BadValueError: if a field is invalid
    """
    return StandIns(**fields(value, _READERS))
