"""What a recording turns out to be, and that it has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.cost import billed_seconds

if TYPE_CHECKING:
    from airflow_speechkit.models import Recording
    from airflow_speechkit.recordings.audio.facts import AudioFacts
    from airflow_speechkit.settings import RecognitionSettings


def filled_in(recording: Recording, settings: RecognitionSettings, facts: AudioFacts) -> Recording:
    """Return a recording with what is known about it now.

    :param settings: with the format filled in
    :param facts: what it is
    """
    return replace(
        recording,
        settings=settings,
        duration_ms=facts.duration_ms,
        channels=facts.channels,
        billed_seconds=None if facts.duration_ms is None else billed_seconds(facts.duration_ms, facts.channels),
        side_ms=facts.side_ms,
    )


def replaced(when: str, audio_uri: str) -> RecordingError:
    """Return the error about a recording that has another version now.

    :param when: when it was replaced, in words
    :param audio_uri: the recording
    """
    return RecordingError(
        f"The recording was replaced {when}",
        recording=audio_uri,
        retry="submits the new one",
        retry_can_help=True,
    )
