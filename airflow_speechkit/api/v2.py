"""API v2: what is submitted. Its results come inside the Operation."""

from __future__ import annotations

import json
from typing import Any

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings

SUBMIT_PATH = "/speech/stt/v2/longRunningRecognize"


def submission_body(audio_uri: str, settings: RecognitionSettings) -> bytes:
    """Write the body of a submission, in the docs' spelling (``literature_text`` is the one in snake case).

    ``folderId`` isn't sent: it is for user accounts, and asynchronous recognition is for service accounts only.

    :param audio_uri: the recording's https link in Object Storage
    :raises SettingsError: the encoding isn't known
    """
    if settings.audio_encoding is None:
        raise SettingsError("`audio_encoding` isn't known", hint="Give it: LINEAR16_PCM, OGG_OPUS or MP3")
    specification: dict[str, Any] = {
        "languageCode": settings.language,
        "model": settings.model,
        "profanityFilter": settings.profanity_filter,
        "literature_text": settings.literature_text,
        "audioEncoding": settings.audio_encoding.value,
        "rawResults": settings.raw_results,
    }
    if settings.audio_encoding is AudioEncoding.LINEAR16_PCM:
        specification["sampleRateHertz"] = settings.sample_rate_hertz
        specification["audioChannelCount"] = settings.audio_channel_count or 1
    return json.dumps({"config": {"specification": specification}, "audio": {"uri": audio_uri}}).encode()
