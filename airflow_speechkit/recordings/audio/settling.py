"""The user's settings against the recording's own facts: what is missing is filled in, what contradicts is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import MAX_BYTES, MAX_CHANNEL_MS
from airflow_speechkit.settings import SAMPLE_RATES_HERTZ, ApiVersion, AudioEncoding, RecognitionSettings

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import AudioFacts

#: Nobody says anything in less, and it would be billed as 15 seconds.
MIN_MS = 100

_NAMES = {
    AudioEncoding.LINEAR16_PCM: "LPCM",
    AudioEncoding.OGG_OPUS: "OggOpus",
    AudioEncoding.MP3: "MP3",
    AudioEncoding.WAV: "WAV",
}


def settle(settings: RecognitionSettings, facts: AudioFacts) -> RecognitionSettings:
    """Return the settings with the format filled in, and for LPCM the rate and the channels.

    :param settings: what the user wants
    :param facts: what the recording is
    :raises RecordingError: the two contradict, the chosen API doesn't take such a recording, or it is too long
    """
    check_limits(facts)
    if facts.encoding is AudioEncoding.WAV and settings.api_version is ApiVersion.V2:
        raise RecordingError(
            "The recording is a WAV, and API v2 takes no WAV: it would hear the header as noise",
            hint=(
                "Choose one: `upload_to` with the local file, which is unwrapped to LPCM on the way; "
                "api_version='v3', which takes WAV; or samples without a header and audio_encoding='LINEAR16_PCM'"
            ),
        )
    declared = settings.audio_encoding
    if declared is not None and declared is not facts.encoding:
        raise RecordingError(
            f"The recording is {_NAMES[facts.encoding]}, and audio_encoding={declared.value!r} says {_NAMES[declared]}",
            hint=f"Leave `audio_encoding` out, or set it to {facts.encoding.value!r}",
        )
    if settings.speaker_labeling and facts.channels > 1:
        raise RecordingError(
            f"`speaker_labeling` is for recordings of one channel, and this one has {facts.channels}",
            hint="Leave it out: the channels tell the speakers apart",
        )
    _check_shape(settings, facts)
    if facts.encoding is not AudioEncoding.LINEAR16_PCM:
        return replace(settings, audio_encoding=facts.encoding)
    if facts.sample_rate_hertz not in SAMPLE_RATES_HERTZ:
        raise RecordingError(
            f"LPCM at {facts.sample_rate_hertz} Hz isn't taken. Supported sample rates: 8000, 16000, 48000",
            hint="Resample it: ffmpeg -i IN -ar 16000 OUT.wav",
        )
    return replace(
        settings,
        audio_encoding=facts.encoding,
        sample_rate_hertz=facts.sample_rate_hertz,
        audio_channel_count=facts.channels,
    )


def check_limits(facts: AudioFacts) -> None:
    """Check a recording against the service's limits.

    :raises RecordingError: it is bigger, or longer, than the service takes, or too short to hold a word
    """
    if facts.size_bytes > MAX_BYTES:
        raise RecordingError(
            f"The recording has {facts.size_bytes / 1024**3:.1f} GB, and the service takes 1 GB at most",
            hint="Encode it as OggOpus, or cut it in parts",
        )
    if facts.duration_ms is not None and facts.duration_ms < MIN_MS:
        raise RecordingError(
            f"The recording is too short: {facts.duration_ms} ms long",
            hint="Leave it out; an unanswered call often leaves such a file",
        )
    if facts.duration_ms is not None and facts.duration_ms * facts.channels > MAX_CHANNEL_MS:
        raise RecordingError(
            f"The recording is {facts.duration_ms / 3_600_000:.2f} h long and has {facts.channels} channels: "
            "the service takes 4 h at most, all channels added up",
            hint="Cut it in parts",
        )
    if (facts.longest_ms or 0) * facts.channels > MAX_CHANNEL_MS:
        raise RecordingError(
            "; ".join(["The recording may be longer than the 4 h that the service takes", *facts.notes]),
            hint="Write its header again: ffmpeg -i IN -c:a copy OUT",
        )


def _check_shape(settings: RecognitionSettings, facts: AudioFacts) -> None:
    # Opus has no rate to contradict: it decodes to 48 kHz whatever went in.
    has_rate = facts.encoding is not AudioEncoding.OGG_OPUS
    for name, declared, found in (
        ("sample_rate_hertz", settings.sample_rate_hertz if has_rate else None, facts.sample_rate_hertz),
        ("audio_channel_count", settings.audio_channel_count, facts.channels),
    ):
        if declared is not None and declared != found:
            raise RecordingError(
                f"The recording's {name} is {found}, and the setting says {declared}",
                hint=f"Leave `{name}` out: it is read from the recording",
            )
