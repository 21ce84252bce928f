"""What is read from a recording's own bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airflow_speechkit.settings import AudioEncoding


class ProbeMode(StrEnum):
    """How much of a recording is read before it is submitted."""

    AUTO = "auto"  #: head and tail, and all of it where these don't prove its length and a limit depends on that
    FULL = "full"  #: all of it, unless its head proves its length


@dataclass(frozen=True, kw_only=True)
class AudioFacts:
    """What a recording is.

    :param encoding: the format
    :param sample_rate_hertz: samples a second and channel (48,000 for Opus, which always decodes to that)
    :param channels: how many channels
    :param duration_ms: how long it is, rounded up to a millisecond; None where that is unknown
    :param longest_ms: where the length is unknown: what it can't exceed
    :param size_bytes: the whole file's size
    :param data_offset: where the samples begin, behind any header (WAV, LPCM)
    :param data_bytes: how many bytes of samples there are (WAV, LPCM)
    :param notes: what is odd about it, for the log
    """

    encoding: AudioEncoding
    sample_rate_hertz: int
    channels: int
    duration_ms: int | None
    size_bytes: int
    data_offset: int = 0
    data_bytes: int | None = None
    longest_ms: int | None = None
    notes: tuple[str, ...] = ()


class RangedReader(Protocol):
    """Something that can be read in pieces, each of which may cost a request."""

    def read(self, start: int, length: int) -> bytes:
        """Return the bytes from `start` on: `length` of them, or fewer where the end comes first."""


def samples_to_ms(samples: int, rate_hertz: int) -> int:
    """Return the length of so many samples of one channel, rounded up to a millisecond."""
    return -(-samples * 1000 // rate_hertz)
