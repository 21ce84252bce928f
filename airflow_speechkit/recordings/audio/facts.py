"""What is read from a recording's own bytes, and how they are read: in few ranges, or from front to back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.settings import AudioEncoding

#: The service's limits. "File in bucket": 1 GB; "Duration": 4 hours, in which a multichannel file's channels add up.
MAX_BYTES = 1024**3
MAX_CHANNEL_MS = 4 * 60 * 60 * 1000

#: A recording up to this size is always read completely if its head and tail don't prove its length.
SMALL_BYTES = 1024 * 1024
_PIECE_BYTES = 2 * 1024 * 1024

#: Hints of several errors.
CONVERT = "Convert it: ffmpeg -i IN -c:a libopus OUT.ogg"
UPLOAD_AGAIN = "Upload the recording again"
WRITE_AGAIN = "Write or upload the recording again"

#: Reads a piece of a recording, which may cost a request: so many bytes from a place on, or fewer at the end.
Read = Callable[[int, int], bytes]


@dataclass(frozen=True, kw_only=True)
class AudioFacts:
    """What a recording is.

    :param encoding: the format
    :param sample_rate_hertz: samples a second and channel (48,000 for Opus, which always decodes to that)
    :param channels: how many channels
    :param duration_ms: its length, rounded up to a millisecond; None if unknown
    :param longest_ms: what an unknown length can't exceed
    :param size_bytes: the whole file's size
    :param data_offset: where the samples begin, after any header (WAV, LPCM)
    :param data_bytes: how many bytes of samples there are (WAV, LPCM)
    :param notes: what is unusual about it, for the log
    """

    encoding: AudioEncoding
    sample_rate_hertz: int
    channels: int
    duration_ms: int | None
    size_bytes: int
    data_offset: int = 0
    data_bytes: int = 0
    longest_ms: int | None = None
    notes: tuple[str, ...] = ()


class Scan:
    """A recording that is read from front to back, a piece at a time.

    :param read: reads the recording
    :param size: its size in bytes
    """

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self._start = 0
        self._piece = b""

    def at(self, place: int, length: int) -> tuple[bytes, int, bool]:
        """Return a piece with `length` bytes from a place on, the place within it, and whether the piece is the last.

        Fewer bytes follow the place where the recording ends.
        """
        end = min(place + length, self._size)
        if not self._start <= place <= end <= self._start + len(self._piece):
            self._start, self._piece = place, self._read(place, max(_PIECE_BYTES, length))
        return self._piece, place - self._start, self._start + len(self._piece) >= self._size


def samples_to_ms(samples: int, rate_hertz: int) -> int:
    """Return the length of so many samples of one channel, rounded up to a millisecond."""
    return -(-samples * 1000 // rate_hertz)
