"""What a recording becomes, so that the service takes it and nothing that was said is lost."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.recordings.audio.facts import MAX_BYTES
from airflow_speechkit.settings import SAMPLE_RATES_HERTZ, ApiVersion, AudioEncoding

#: libopus takes these.
_OPUS_RATES_HERTZ = (8_000, 12_000, 16_000, 24_000, 48_000)
#: Of each channel: twice what RFC 7587 recommends for speech (docs/recordings.md has more).
OPUS_BITS_PER_S = 64_000
_LOSSLESS = frozenset({"flac", "alac", "ape", "tta", "wavpack", "shorten", "mlp", "truehd"})
#: Of the WAVs that conversions write.
WAV_HEADER_BYTES = 44

EXTENSIONS = {AudioEncoding.LINEAR16_PCM: ".lpcm", AudioEncoding.WAV: ".wav", AudioEncoding.OGG_OPUS: ".ogg"}


@dataclass(frozen=True, kw_only=True)
class AudioStream:
    """What a file says about one of its audio streams.

    :param container: the container's name, as libavformat has it: ``wav``, ``mov,mp4,m4a,3gp,3g2,mj2``
    :param codec: the codec's name, as libavcodec has it: ``pcm_alaw``, ``aac``
    :param sample_rate_hertz: samples a second and channel
    :param channels: how many channels
    :param duration_ms: the length that the container declares; None where it declares none
    """

    container: str
    codec: str
    sample_rate_hertz: int
    channels: int
    duration_ms: int | None

    @property
    def is_lossless(self) -> bool:
        """Whether its samples are those that were recorded; A-law and mu-law count, as each is one 16-bit sample."""
        return self.codec.startswith("pcm_") or self.codec in _LOSSLESS


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What to make of an audio stream.

    :param encoding: the format
    :param sample_rate_hertz: of LPCM and WAV the rate; of Opus the encoder's
    :param channels: how many channels, in the source's order
    :param copies_packets: whether Opus is taken over from another container, and not encoded again
    """

    encoding: AudioEncoding
    sample_rate_hertz: int
    channels: int
    copies_packets: bool = False


def lossless_encoding(api_version: ApiVersion) -> AudioEncoding:
    """Return the format of samples that an API takes."""
    return AudioEncoding.LINEAR16_PCM if api_version is ApiVersion.V2 else AudioEncoding.WAV


def check_audio_stream(number: int | None, streams: int) -> None:
    """Check that a file has an audio stream of a number.

    :param number: counted from 1; None for the one that a player would choose
    :param streams: how many audio streams there are
    :raises SettingsError: it has not
    """
    if number is not None and not 1 <= number <= streams:
        raise SettingsError(
            f"`audio_stream` is {number}, and the number of audio streams in the file is {streams}",
            hint="Choose one of them, or leave `audio_stream` out",
        )


def plan_conversion(stream: AudioStream, api_version: ApiVersion, *, small: bool = False) -> Conversion:
    """Choose what an audio stream becomes.

    What is lossless stays so, at the same rate or the next higher one that the service takes, unless it would pass the
    service's 1 GB. Everything else becomes OggOpus.

    :param stream: what the file says
    :param api_version: the API that will read it
    :param small: choose OggOpus in any case
    """
    if stream.is_lossless and not small:
        rate = _at_least(stream.sample_rate_hertz, SAMPLE_RATES_HERTZ)
        seconds = (stream.duration_ms or 0) / 1000
        if seconds * rate * 2 * stream.channels + WAV_HEADER_BYTES <= MAX_BYTES:
            encoding = lossless_encoding(api_version)
            return Conversion(encoding=encoding, sample_rate_hertz=rate, channels=stream.channels)
    return Conversion(
        encoding=AudioEncoding.OGG_OPUS,
        sample_rate_hertz=_at_least(stream.sample_rate_hertz, _OPUS_RATES_HERTZ),
        channels=stream.channels,
        # Opus of more channels is laid out in one of several ways, not all of which the service may read.
        copies_packets=stream.codec == "opus" and stream.channels <= 2 and not small,
    )


def _at_least(rate_hertz: int, allowed: tuple[int, ...]) -> int:
    return min((rate for rate in allowed if rate >= rate_hertz), default=max(allowed))
