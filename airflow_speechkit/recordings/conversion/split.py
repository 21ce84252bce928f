"""Converts a recording that is longer than the service takes to several files that it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_speechkit.recordings.audio import facts as limits
from airflow_speechkit.recordings.conversion.convert import (
    OnTruncated,
    check_filters,
    check_flaw,
    decoding_errors,
    progress_log,
    temporary_file,
)
from airflow_speechkit.recordings.conversion.cutting import PIECE_MS, cuts_ms, loudness_of
from airflow_speechkit.recordings.conversion.encoding import Span, write
from airflow_speechkit.recordings.conversion.plan import plan_conversion
from airflow_speechkit.recordings.filters import NO_FILTERS, Filters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from airflow_speechkit.recordings.audio.facts import AudioFacts
    from airflow_speechkit.recordings.conversion.decoding import Source
    from airflow_speechkit.recordings.conversion.joining import JoinedSource
    from airflow_speechkit.recordings.conversion.plan import Conversion
    from airflow_speechkit.settings import ApiVersion

#: What an encoder may add to a part, and more.
_SPARE_MS = 1_000


@dataclass(frozen=True)
class ConvertedPart:
    """A part of a recording, converted.

    :param content: a temporary file, at its beginning; it is gone when the next part is asked for
    :param facts: what is in it
    :param conversion: what was done
    :param start_ms: where it begins in the recording
    :param of: how many parts there are
    """

    content: BinaryIO
    facts: AudioFacts
    conversion: Conversion
    start_ms: int
    of: int


def converted_parts(
    opened: Callable[[], AbstractContextManager[Source | JoinedSource]],
    api_version: ApiVersion,
    *,
    name: str,
    on_truncated: OnTruncated = OnTruncated.FAIL,
    filters: Filters = NO_FILTERS,
    starts_ms: tuple[int, ...] = (),
) -> Iterator[ConvertedPart]:
    """Cut a recording at quiet places into parts that the service takes, and convert each.

    Memory stays flat, and one part at a time is on the disk. The recording is decoded once to find the places, and
    again for each part.

    :param opened: opens the source: several times
    :param api_version: the API that will read the parts
    :param name: the recording's name in messages
    :param on_truncated: what to do where it is cut off or damaged
    :param filters: which recordings are left out
    :param starts_ms: where the parts begin, if it was cut before: another place would make other recordings of them
    :return: the parts, in order; one if it isn't too long after all
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
                facts = write(source, conversion, target, progress, Span(start_ms, end_ms))
                facts = replace(facts, side_ms=source.side_ms)
            target.seek(0)
            yield ConvertedPart(target, facts, conversion, start_ms, len(starts))


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
