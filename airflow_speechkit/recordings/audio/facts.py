"""What is read from a recording's own bytes, how they are read, and the settings that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from airflow_speechkit.errors import RecordingError, TooLongError, UnsupportedFormatError
from airflow_speechkit.settings import SAMPLE_RATES_HERTZ, ApiVersion, AudioEncoding, RecognitionSettings

#: The service's limits. "File in bucket": 1 GB; "Duration": 4 hours, in which a multichannel file's channels add up.
MAX_BYTES = 1024**3
MAX_CHANNEL_MS = 4 * 60 * 60 * 1000
#: No word is shorter, and it would be billed as 15 seconds.
MIN_MS = 100

#: A recording up to this size is always read completely if its head and tail don't prove its length.
SMALL_BYTES = 1024 * 1024
_PIECE_BYTES = 2 * 1024 * 1024

#: Hints of several errors.
CONVERT = "Set `upload_to`, and it is converted (with the extra `audio` installed)"
UPLOAD_AGAIN = "Upload the recording again"
TAKE_WHAT_IS_THERE = f"{UPLOAD_AGAIN}; or set `upload_to` and on_truncated='convert', which takes what there is"
SPLIT = "Set `split=True` and `upload_to`, and it is submitted in parts (with the extra `audio` installed)"
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
    :param side_ms: of two joined recordings: how long each is, rounded down to a millisecond
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
    side_ms: tuple[int, ...] = ()


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


def settle(settings: RecognitionSettings, facts: AudioFacts) -> RecognitionSettings:
    """Return the settings with the format filled in, and for LPCM the rate and the channels.

    :param settings: what the user wants
    :param facts: what the recording is
    :raises RecordingError: the two contradict, the chosen API doesn't take such a recording, or it is too long
    """
    check_limits(facts)
    encoding, rate, channels = facts.encoding, facts.sample_rate_hertz, facts.channels
    if encoding is AudioEncoding.WAV and settings.api_version is ApiVersion.V2:
        raise UnsupportedFormatError(
            "The recording is a WAV, and API v2 takes no WAV: it would recognise the header as sound",
            hint="Choose one: `upload_to`, where it is put as LPCM; api_version='v3', which takes WAV; or samples "
            "without a header and audio_encoding='LINEAR16_PCM'",
        )
    if settings.speaker_labeling and channels > 1:
        raise RecordingError(
            f"`speaker_labeling` is for recordings of one channel, and this one has {channels}",
            hint="Remove it: each speaker has a channel",
        )
    # Opus has no rate to contradict: it decodes to 48 kHz whatever its source had.
    wanted_rate = None if encoding is AudioEncoding.OGG_OPUS else settings.sample_rate_hertz
    for name, wanted, found in (
        ("audio_encoding", settings.audio_encoding, encoding),
        ("sample_rate_hertz", wanted_rate, rate),
        ("audio_channel_count", settings.audio_channel_count, channels),
    ):
        if wanted not in (None, found):
            raise RecordingError(
                f"The recording's {name} is {found}, and the setting says {wanted}",
                hint=f"Remove `{name}`, or set it to {found}",
            )
    if encoding is not AudioEncoding.LINEAR16_PCM:
        return replace(settings, audio_encoding=encoding)
    if rate not in SAMPLE_RATES_HERTZ:
        raise UnsupportedFormatError(
            f"LPCM at {rate} Hz isn't supported. Supported sample rates: 8000, 16000, 48000",
            hint="Write it at one of these, or as a WAV, which is converted",
        )
    known: Any = {"sample_rate_hertz": rate, "audio_channel_count": channels}
    return replace(settings, audio_encoding=encoding, **known)


def check_limits(facts: AudioFacts) -> None:
    """Check a recording against the service's limits.

    :raises RecordingError: it is bigger, or longer, than the service takes, or too short to hold a word
    """
    ms = facts.duration_ms
    if ms is not None and ms < MIN_MS:
        raise RecordingError(
            f"The recording is too short: {ms} ms long", hint="Exclude it; an unanswered call often leaves such a file"
        )
    check_length(ms, facts.channels)
    if (facts.longest_ms or 0) * facts.channels > MAX_CHANNEL_MS:
        raise TooLongError(
            "; ".join(["The recording may be longer than the 4 h that the service takes", *facts.notes]),
            hint=f"Rewrite its header: ffmpeg -i IN -c:a copy OUT. {SPLIT}",
        )
    if facts.size_bytes > MAX_BYTES:
        raise UnsupportedFormatError(
            f"The recording has {facts.size_bytes / 1024**3:.1f} GB, and the service takes 1 GB at most",
            hint="Set `upload_to`: as OggOpus it is smaller. Or split it",
        )


def check_length(duration_ms: int | None, channels: int) -> None:
    """Check a length against the service's limit.

    :param duration_ms: None for an unknown one
    :param channels: how many channels there are: they add up
    :raises TooLongError: the service doesn't take so much
    """
    if duration_ms is not None and duration_ms * channels > MAX_CHANNEL_MS:
        raise TooLongError(
            f"The recording is {duration_ms / 3_600_000:.2f} h long and has {channels} channels: the service takes 4 h "
            "at most, all channels added up",
            hint=SPLIT,
        )
