"""Reading a recording through, from front to back, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.recordings.audio.settling import MAX_CHANNEL_MS

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

#: A recording up to this long is always read through where its head and tail don't prove its length.
SMALL_BYTES = 1024 * 1024

_PIECE_BYTES = 2 * 1024 * 1024


def worth_scanning(size_bytes: int, least_bytes_per_s: int, *, exact: bool) -> bool:
    """Tell whether to read a recording through whose length its head and tail leave open.

    :param size_bytes: how many bytes of sound there may be
    :param least_bytes_per_s: the least that a second of a channel takes
    :param exact: whether a limit on the cost depends on the length, or the user asks for it
    """
    return exact or size_bytes <= SMALL_BYTES or size_bytes * 1000 > MAX_CHANNEL_MS * least_bytes_per_s


class Scan:
    """A recording that is read front to back, a piece at a time.

    :param reader: the recording
    :param size: its size in bytes
    """

    def __init__(self, reader: RangedReader, size: int) -> None:
        self._reader = reader
        self._size = size
        self._start = 0
        self._piece = b""

    def at(self, place: int, length: int) -> tuple[bytes, int]:
        """Return a piece that holds `length` bytes from a place on, or all that is left, and the place within it."""
        end = min(place + length, self._size)
        if not self._start <= place <= end <= self._start + len(self._piece):
            self._start, self._piece = place, self._reader.read(place, max(_PIECE_BYTES, length))
        return self._piece, place - self._start
