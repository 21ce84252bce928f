"""Finds silent recordings. One with sound is read up to its first sound, a silent one to its end."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.models import FilterReason
from airflow_speechkit.recordings.conversion.decoding import Source, import_av, libav_errors
from airflow_speechkit.recordings.filters import FilteredError
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from airflow_speechkit.recordings.audio.facts import AudioFacts
    from airflow_speechkit.recordings.conversion.joining import JoinedSource

#: The largest absolute value of a silent recording's samples, of 32,768: -50 dB of full scale.
MAX_SILENT_SAMPLE = 103

#: What has to be decoded, and libavformat's names for it.
_DECODED = {AudioEncoding.OGG_OPUS: "ogg", AudioEncoding.MP3: "mp3"}


def check_sound(facts: AudioFacts, content: Generator[bytes, None, None]) -> None:
    """Check that a recording which the service takes isn't silent. Memory stays flat.

    :param facts: what the recording is
    :param content: its bytes; closed afterwards
    :raises FilteredError: it is silent
    :raises SettingsError: it has to be decoded, and the extra `audio` isn't installed
    """
    if is_silent_content(facts, content):
        raise FilteredError(FilterReason.SILENT, facts.duration_ms, facts.channels)


def is_silent_content(facts: AudioFacts, content: Generator[bytes, None, None]) -> bool:
    """Return whether a recording which the service takes is silent, as `check_sound` does."""
    with closing(content):
        return (_is_silent_encoded if facts.encoding in _DECODED else _is_silent_pcm)(facts, content)


def is_silent(source: Source | JoinedSource) -> bool:
    """Return whether an audio stream is silent; False if it can't be decoded: there may be sound in it.

    :param source: read from its beginning
    """
    channels = source.facts.channels
    try:
        frames = source.samples([], channels)
        return all(_is_quiet(memoryview(one.planes[0])[: 2 * one.samples * channels]) for one in frames)
    except _undecodable():
        return False


def _is_silent_encoded(facts: AudioFacts, content: Iterator[bytes]) -> bool:
    av = import_av()
    try:
        with av.open(_Stream(content), format=_DECODED[facts.encoding]) as container:
            source = Source(Path(), container, None)
            return is_silent(source) and not source.damaged_packets
    except _undecodable():
        return False


def _is_silent_pcm(facts: AudioFacts, content: Iterator[bytes]) -> bool:
    skip, left, half = facts.data_offset, facts.data_bytes, b""
    for piece in content:
        found = piece[skip:][:left]
        skip, left = max(0, skip - len(piece)), left - len(found)
        data = half + found
        whole = len(data) // 2 * 2
        half = data[whole:]
        if not _is_quiet(data[:whole]):
            return False
    # It isn't known where the samples of a WAV of unknown length end.
    return facts.duration_ms is not None and facts.data_bytes > 0 and not left


def _undecodable() -> tuple[type[Exception], ...]:
    return RecordingError, *libav_errors()


def _is_quiet(samples: bytes | memoryview) -> bool:
    import numpy as np

    values: Any = np.frombuffer(samples, "<i2")
    # The absolute value of the least one doesn't fit into 16 bits.
    return not values.size or bool(values.min() >= -MAX_SILENT_SAMPLE and values.max() <= MAX_SILENT_SAMPLE)


class _Stream:
    """Pieces of bytes, as a file that is read from front to back."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, length: int) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        piece, self._rest = self._rest[:length], self._rest[length:]
        return bytes(piece)
