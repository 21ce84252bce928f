"""The user's settings and the recording's own facts: what is missing is filled in, contradictions are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import MAX_BYTES, MAX_CHANNEL_MS
from airflow_speechkit.settings import SAMPLE_RATES_HERTZ, ApiVersion, AudioEncoding, RecognitionSettings

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import AudioFacts

#: No word is shorter, and it would be billed as 15 seconds.
MIN_MS = 100


def settle(settings: RecognitionSettings, facts: AudioFacts) -> RecognitionSettings:
    """Return the settings with the format filled in, and for LPCM the rate and the channels.

    :param settings: what the user wants
    :param facts: what the recording is
    :raises RecordingError: the two contradict, the chosen API doesn't take such a recording, or it is too long
    """
    check_limits(facts)
    encoding, rate, channels = facts.encoding, facts.sample_rate_hertz, facts.channels
    if encoding is AudioEncoding.WAV and settings.api_version is ApiVersion.V2:
        raise RecordingError(
            "The recording is a WAV, and API v2 takes no WAV: it would recognise the header as sound",
            hint="Choose one: `upload_to` with the local file, which is converted to LPCM on the way; "
            "api_version='v3', which takes WAV; or samples without a header and audio_encoding='LINEAR16_PCM'",
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
        raise RecordingError(
            f"LPCM at {rate} Hz isn't supported. Supported sample rates: 8000, 16000, 48000",
            hint="Resample it: ffmpeg -i IN -ar 16000 OUT.wav",
        )
    known: Any = {"sample_rate_hertz": rate, "audio_channel_count": channels}
    return replace(settings, audio_encoding=encoding, **known)


def check_limits(facts: AudioFacts) -> None:
    """Check a recording against the service's limits.

    :raises RecordingError: it is bigger, or longer, than the service takes, or too short to hold a word
    """
    ms = facts.duration_ms
    if facts.size_bytes > MAX_BYTES:
        raise RecordingError(
            f"The recording has {facts.size_bytes / 1024**3:.1f} GB, and the service takes 1 GB at most",
            hint="Encode it as OggOpus, or split it",
        )
    if ms is not None and ms < MIN_MS:
        raise RecordingError(
            f"The recording is too short: {ms} ms long", hint="Exclude it; an unanswered call often leaves such a file"
        )
    if ms is not None and ms * facts.channels > MAX_CHANNEL_MS:
        raise RecordingError(
            f"The recording is {ms / 3_600_000:.2f} h long and has {facts.channels} channels: the service takes 4 h at "
            "most, all channels added up",
            hint="Split it",
        )
    if (facts.longest_ms or 0) * facts.channels > MAX_CHANNEL_MS:
        raise RecordingError(
            "; ".join(["The recording may be longer than the 4 h that the service takes", *facts.notes]),
            hint="Rewrite its header: ffmpeg -i IN -c:a copy OUT",
        )
