"""Converts a recording to what the service takes: a file, or several if it is longer than that."""

from __future__ import annotations

import logging
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import (
    InvalidRequestError,
    RecordingError,
    StorageError,
    TooLongError,
    TruncatedError,
    UnsupportedFormatError,
)
from airflow_speechkit.models import FilterReason
from airflow_speechkit.recordings.audio import facts as audio_facts
from airflow_speechkit.recordings.audio.facts import (
    CONVERT,
    SPLIT,
    UPLOAD_AGAIN,
    AudioFacts,
    check_length,
    check_limits,
    samples_to_ms,
)
from airflow_speechkit.recordings.conversion.decoding import import_av, open_source
from airflow_speechkit.recordings.conversion.encoding import DoesNotFitError, write
from airflow_speechkit.recordings.conversion.plan import plan_conversion
from airflow_speechkit.recordings.conversion.silence import is_silent
from airflow_speechkit.recordings.filters import NO_FILTERS, FilteredError, Filters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Any, BinaryIO

    import numpy as np
    from numpy.typing import NDArray

    from airflow_speechkit.recordings.conversion.decoding import Source
    from airflow_speechkit.recordings.conversion.joining import JoinedSource, Opened
    from airflow_speechkit.recordings.conversion.plan import AudioStream
    from airflow_speechkit.settings import ApiVersion

    Loudness = NDArray[np.float64]

log = logging.getLogger(__name__)

#: How often the log says how far a conversion is.
_PROGRESS_S = 30.0
#: How much shorter a recording may be than its container says.
_ROUNDING_MS = 1_000
#: What an encoder may add to a part, and more.
_SPARE_MS = 1_000
#: How finely loudness is measured. A cut is at the edge of such a piece.
PIECE_MS = 20
#: How long before the limit a cut may be. In so much speech there are pauses.
_WINDOW_MS = 10 * 60 * 1000
#: A cut is in the middle of the quietest stretch of this length.
_STRETCH_MS = 500


class OnTruncated(StrEnum):
    """What is done with a recording that is cut off or damaged in the middle."""

    FAIL = "fail"  #: it isn't converted
    CONVERT = "convert"  #: what can be decoded is converted, with a warning

    def takes(self, error: UnsupportedFormatError) -> bool:
        """Return whether a recording that the API doesn't take is to be converted."""
        if isinstance(error, TooLongError):
            return False
        return not isinstance(error, TruncatedError) or self is OnTruncated.CONVERT


@dataclass(frozen=True)
class Converted:
    """A recording, or a part of it, converted.

    :param content: a temporary file, at its beginning
    :param facts: what is in it
    :param start_ms: where it begins in the recording
    :param of: how many parts there are
    """

    content: BinaryIO
    facts: AudioFacts
    start_ms: int = 0
    of: int = 1


@dataclass(frozen=True)
class Converter:
    """Converts a recording to what the service takes. Memory stays flat, however long it is.

    :param opened: opens the source, perhaps more than once
    :param api_version: the API that will read the copy
    :param name: the recording's name in messages
    :param on_truncated: what to do where it is cut off or damaged
    :param filters: which recordings are left out; what is certainly too long, or silent, isn't converted first
    """

    opened: Opened
    api_version: ApiVersion
    name: str
    on_truncated: OnTruncated = OnTruncated.FAIL
    filters: Filters = NO_FILTERS

    @contextmanager
    def whole(self) -> Iterator[Converted]:
        """Convert it, into a temporary file that is gone afterwards.

        :raises RecordingError: it can't be decoded, is cut off, or is longer than the service takes
        :raises FilteredError: it is left out
        :raises SettingsError: it has no such audio stream, or the extra `audio` isn't installed
        :raises StorageError: the disk is full
        """
        with temporary_file(self.name) as target:
            self._check_filters()
            facts, flaw = self._convert(target)
            self._check_flaw(flaw, facts.duration_ms or 0)
            self.filters.check(facts.duration_ms, facts.channels)
            check_limits(facts)
            target.seek(0)
            yield Converted(target, facts)

    def parts(self, starts_ms: tuple[int, ...] = ()) -> Iterator[Converted]:
        """Cut it at quiet places into parts that the service takes, and convert each.

        One part at a time is on the disk. The recording is decoded once to find the places, and again for each part.

        :param starts_ms: where the parts begin, if it was cut before: another place would make other recordings of them
        :return: the parts, in order, one if it isn't too long after all; the file of each is gone when the next one is
            asked for
        :raises RecordingError: it can't be decoded, or is cut off
        :raises FilteredError: it is left out
        :raises SettingsError: it has no such audio stream, or the extra `audio` isn't installed
        :raises StorageError: the disk is full
        """
        self._check_filters()
        with self.opened() as source, _decoding_errors():
            most_ms = audio_facts.MAX_CHANNEL_MS // source.facts.channels - _SPARE_MS
            plan = plan_conversion(replace(source.facts, duration_ms=most_ms), self.api_version)
            conversion = replace(plan, copies_packets=False)
            starts = starts_ms or self._starts_ms(source, conversion.sample_rate_hertz, most_ms)
        for start_ms, end_ms in zip(starts, [*starts[1:], None], strict=True):
            with temporary_file(self.name) as target:
                with self.opened() as source, _decoding_errors():
                    progress = _progress_log(self.name, end_ms)
                    facts = write(source, conversion, target, progress, start_ms, end_ms)
                    facts = replace(facts, side_ms=source.side_ms)
                target.seek(0)
                yield Converted(target, facts, start_ms, len(starts))

    def _convert(self, target: BinaryIO) -> tuple[AudioFacts, TruncatedError | None]:
        for small in (False, True):
            with suppress(DoesNotFitError), self.opened() as source, _decoding_errors():
                check_length(source.declared_ms, source.facts.channels)
                conversion = plan_conversion(source.facts, self.api_version, small=small)
                facts = write(source, conversion, target, _progress_log(self.name, source.facts.duration_ms))
                if source.gaps_s >= 1:
                    log.info("%s: its timestamps leave gaps of %.1f s, which are silent", self.name, source.gaps_s)
                return replace(facts, side_ms=source.side_ms), source.flaw()
            target.seek(0)
            target.truncate()
        raise TooLongError("The recording has more than 1 GB, also as OggOpus", hint=SPLIT)

    def _starts_ms(self, source: Source | JoinedSource, rate_hertz: int, most_ms: int) -> tuple[int, ...]:
        """Read a recording to its end, and return where its parts begin."""
        channels = source.facts.channels
        second = [("aresample", str(rate_hertz)), ("asetnsamples", f"n={rate_hertz}:p=0")]
        loudness = loudness_of(source.samples(second, channels), channels, rate_hertz)
        length_ms = len(loudness) * PIECE_MS
        self._check_flaw(source.flaw(), length_ms)
        self.filters.check(length_ms, channels)
        return (0, *cuts_ms(loudness, most_ms))

    def _check_flaw(self, flaw: TruncatedError | None, decoded_ms: int) -> None:
        """Refuse a recording that is cut off or damaged, or warn about it."""
        if flaw is None:
            return
        if self.on_truncated is OnTruncated.FAIL:
            raise flaw
        length_s = decoded_ms / 1000
        log.warning("%s: %s. What can be decoded is taken: %.1f s", flaw.recording or self.name, flaw.what, length_s)

    def _check_filters(self) -> None:
        """Check whether a recording is to be left out, as far as that is known before it is converted."""
        if self.filters == NO_FILTERS:
            return
        with self.opened() as source:
            declared_ms, channels = source.declared_ms, source.facts.channels
            if declared_ms is not None and self.filters.reason(declared_ms - _ROUNDING_MS) is FilterReason.TOO_LONG:
                source.read_through()
                if source.flaw() is None:
                    raise FilteredError(FilterReason.TOO_LONG, declared_ms, channels)
                # The header is mistaken: the conversion finds how long it is.
                return
            # What is missing of a file that is cut off or damaged may be speech.
            if self.filters.skip_silent and is_silent(source) and source.flaw() is None:
                self.filters.check(source.read_ms, channels)
                raise FilteredError(FilterReason.SILENT, source.read_ms, channels)


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


@contextmanager
def undecodable(reason: UnsupportedFormatError | None, name: str) -> Iterator[None]:
    """Add to the error about what nothing decodes why it is to be converted.

    :param reason: why the API doesn't take it as it is; None for a pair, which is always converted
    :param name: the recording's name in messages
    :raises UnsupportedFormatError: nothing decodes it
    """
    try:
        yield
    except (TooLongError, TruncatedError):
        raise
    except UnsupportedFormatError as error:
        if reason is None:
            raise
        hint = error.hint if reason.hint == CONVERT else reason.hint
        raise UnsupportedFormatError(f"{reason.what}. {error.what}", recording=name, hint=hint) from None


@contextmanager
def temporary_file(name: str, suffix: str = "") -> Iterator[BinaryIO]:
    """Open an empty file that is deleted afterwards. Errors that are raised meanwhile name a recording.

    :param name: the recording's name in messages
    :param suffix: what the file's name ends with
    :raises StorageError: the disk is full
    """
    try:
        with tempfile.NamedTemporaryFile(prefix="speechkit-convert-", suffix=suffix) as file:
            yield file  # type: ignore[misc]
    except InvalidRequestError as error:
        error.about_recording(name)
        raise
    except OSError as error:
        raise StorageError(
            f"A temporary file can't be written in {tempfile.gettempdir()} ({error.strerror})",
            recording=name,
            hint="Free some space, or set TMPDIR: a conversion takes the recording's size and up to 1 GB",
            retry="converts it again",
            retry_can_help=True,
        ) from None


def measure(path: Path, audio_stream: int | None = None) -> tuple[AudioStream, TruncatedError | None]:
    """Decode a file to its end, as its conversion does.

    :param path: the file; the format of samples without a header follows from its name
    :param audio_stream: which of its audio streams, counted from 1; by default the one that a player would choose
    :return: the stream with its length, and the error if the file is cut off or damaged
    :raises RecordingError: it can't be decoded
    :raises SettingsError: it has no such stream, or the extra `audio` isn't installed
    """
    with open_source(path, audio_stream) as source, _decoding_errors():
        rate, channels = source.facts.sample_rate_hertz, source.facts.channels
        samples = sum(frame.samples for frame in source.samples([("aresample", str(rate))], channels))
        return replace(source.facts, duration_ms=samples_to_ms(samples, rate)), source.flaw()


@contextmanager
def _decoding_errors() -> Iterator[None]:
    """Turn what libavcodec and libavfilter raise into an error about the recording.

    :raises RecordingError: the sound can't be converted
    """
    try:
        yield
    except OSError:
        raise
    except import_av().error.FFmpegError as error:
        raise RecordingError(f"The sound can't be converted: {error.strerror}", hint=UPLOAD_AGAIN) from None


def _progress_log(name: str, duration_ms: int | None) -> Callable[[int], None]:
    """Return what logs now and then how far a conversion is.

    :param name: the recording's name
    :param duration_ms: its length, if it is known
    """
    logged_at = time.monotonic()

    def progress(done_ms: int) -> None:
        nonlocal logged_at
        if time.monotonic() - logged_at >= _PROGRESS_S:
            logged_at = time.monotonic()
            of = "" if duration_ms is None else f" of {duration_ms / 60_000:,.0f}"
            log.info("%s: %.0f%s minutes are converted", name, done_ms / 60_000, of)

    return progress
