"""Converts a recording that is longer than the service takes to several files that it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_speechkit.recordings.audio import facts as limits
from airflow_speechkit.recordings.conversion.convert import (
    Converted,
    OnTruncated,
    check_filters,
    check_flaw,
    decoding_errors,
    progress_log,
    temporary_file,
)
from airflow_speechkit.recordings.conversion.encoding import write
from airflow_speechkit.recordings.conversion.plan import plan_conversion
from airflow_speechkit.recordings.filters import NO_FILTERS, Filters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from airflow_speechkit.recordings.conversion.decoding import Source
    from airflow_speechkit.recordings.conversion.joining import JoinedSource, Opened
    from airflow_speechkit.settings import ApiVersion

    Loudness = NDArray[np.float64]

#: What an encoder may add to a part, and more.
_SPARE_MS = 1_000
#: How finely loudness is measured. A cut is at the edge of such a piece.
PIECE_MS = 20
#: How long before the limit a cut may be. In so much speech there are pauses.
_WINDOW_MS = 10 * 60 * 1000
#: A cut is in the middle of the quietest stretch of this length.
_STRETCH_MS = 500


def converted_parts(
    opened: Opened,
    api_version: ApiVersion,
    *,
    name: str,
    on_truncated: OnTruncated = OnTruncated.FAIL,
    filters: Filters = NO_FILTERS,
    starts_ms: tuple[int, ...] = (),
) -> Iterator[Converted]:
    """Cut a recording at quiet places into parts that the service takes, and convert each.

    Memory stays flat, and one part at a time is on the disk. The recording is decoded once to find the places, and
    again for each part.

    :param opened: opens the source: several times
    :param api_version: the API that will read the parts
    :param name: the recording's name in messages
    :param on_truncated: what to do where it is cut off or damaged
    :param filters: which recordings are left out
    :param starts_ms: where the parts begin, if it was cut before: another place would make other recordings of them
    :return: the parts, in order, one if it isn't too long after all; the file of each is gone when the next one is
        asked for
    :raises RecordingError: it can't be decoded, or is cut off
    :raises FilteredError: it is left out
    :raises SettingsError: it has no such audio stream, or the extra `audio` isn't installed
    :raises StorageError: the disk is full
    """
    check_filters(opened, filters)
    with opened() as source, decoding_errors():
        channels = source.facts.channels
        most_ms = limits.MAX_CHANNEL_MS // channels - _SPARE_MS
        plan = plan_conversion(replace(source.facts, duration_ms=most_ms), api_version)
        conversion = replace(plan, copies_packets=False)
        starts = starts_ms or _starts_ms(source, conversion.sample_rate_hertz, most_ms, name, on_truncated, filters)
    for start_ms, end_ms in zip(starts, [*starts[1:], None], strict=True):
        with temporary_file(name) as target:
            with opened() as source, decoding_errors():
                progress = progress_log(name, end_ms)
                facts = write(source, conversion, target, progress, start_ms, end_ms)
                facts = replace(facts, side_ms=source.side_ms)
            target.seek(0)
            yield Converted(target, facts, start_ms, len(starts))


def _starts_ms(
    source: Source | JoinedSource,
    rate_hertz: int,
    most_ms: int,
    name: str,
    on_truncated: OnTruncated,
    filters: Filters,
) -> tuple[int, ...]:
    """Read a recording to its end, and return where its parts begin."""
    channels = source.facts.channels
    second = [("aresample", str(rate_hertz)), ("asetnsamples", f"n={rate_hertz}:p=0")]
    loudness = loudness_of(source.samples(second, channels), channels, rate_hertz)
    length_ms = len(loudness) * PIECE_MS
    check_flaw(source.flaw(), name, length_ms, on_truncated)
    filters.check(length_ms, channels)
    return (0, *cuts_ms(loudness, most_ms))


def cuts_ms(loudness: Loudness, most_ms: int) -> list[int]:
    """Return where to cut, so that no part is longer than a limit, and none begins or ends within a word.

    :param loudness: of each 20 ms, in order
    :param most_ms: the longest part, in milliseconds
    :return: the places, in milliseconds from the beginning; none for what is short enough
    """
    import numpy as np

    stretch = _STRETCH_MS // PIECE_MS
    cuts: list[int] = []
    start = 0
    while len(loudness) * PIECE_MS - start > most_ms:
        end = (start + most_ms) // PIECE_MS
        first = end - min(_WINDOW_MS, most_ms // 4) // PIECE_MS
        sums = np.convolve(loudness[first:end], np.ones(stretch), "valid")
        # Of equally quiet ones the last, so that there are few parts.
        quietest = len(sums) - 1 - int(np.argmin(sums[::-1]))
        start = (first + quietest + stretch // 2) * PIECE_MS
        cuts.append(start)
    return cuts


def loudness_of(frames: Iterable[Any], channels: int, rate_hertz: int) -> Loudness:
    """Measure how loud each 20 ms are: the mean square of their samples, all channels together.

    :param frames: PyAV's frames of 16-bit samples, each of whole pieces but for the last one
    :param channels: how many channels they have
    :param rate_hertz: samples a second and channel
    """
    import numpy as np

    per_piece = rate_hertz * PIECE_MS // 1000 * channels
    measured = [np.zeros(0)]
    for frame in frames:
        samples = np.frombuffer(frame.planes[0], np.int16, frame.samples * channels).astype(np.float64)
        samples = np.append(samples, np.zeros(-len(samples) % per_piece))
        measured.append(np.square(samples).reshape(-1, per_piece).mean(axis=1))
    return np.concatenate(measured)
