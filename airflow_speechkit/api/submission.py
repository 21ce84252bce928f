"""The body of a submission, for API v2 and v3."""

from __future__ import annotations

import base64
import json
from typing import Any

from airflow_speechkit.errors import RecordingError, SettingsError
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings

#: The limit of a request's body in bytes: about 45 MB of a recording (speechkit-api §3).
LARGEST_BODY = 60_000_000


def v2_body(audio_uri: str, settings: RecognitionSettings) -> bytes:
    """Write the body for API v2, in the documentation's spelling: only ``literature_text`` is in snake case.

    ``folderId`` isn't sent: it is for user accounts, and asynchronous recognition is for service accounts only.

    :param audio_uri: the recording's https link in Object Storage
    :raises SettingsError: the encoding isn't known
    """
    encoding = _encoding(settings)
    specification: dict[str, Any] = {
        "languageCode": settings.language,
        "model": settings.model,
        "profanityFilter": settings.profanity_filter,
        "literature_text": settings.literature_text,
        "audioEncoding": encoding.value,
        "rawResults": settings.raw_results,
    }
    if encoding is AudioEncoding.LINEAR16_PCM:
        specification["sampleRateHertz"] = settings.sample_rate_hertz
        specification["audioChannelCount"] = settings.audio_channel_count or 1
    return json.dumps({"config": {"specification": specification}, "audio": {"uri": audio_uri}}).encode()


def v3_body(settings: RecognitionSettings, *, audio_uri: str | None, content: bytes | None = None) -> bytes:
    """Write a ``RecognizeFileRequest`` for API v3, in snake case as in the documentation's examples.

    :param audio_uri: the recording's https link in Object Storage
    :param content: or the recording itself
    :raises SettingsError: the encoding isn't known
    :raises RecordingError: the recording is too large for the request
    """
    message = _without_empty(
        recognition_model=_recognition_model(settings),
        recognition_classifier=settings.classifiers
        and {
            "classifiers": [{"classifier": name, "triggers": list(when)} for name, when in settings.classifiers.items()]
        },
        speech_analysis=(settings.speaker_analysis or settings.conversation_analysis) and _speech_analysis(settings),
        speaker_labeling=settings.speaker_labeling and {"speaker_labeling": "SPEAKER_LABELING_ENABLED"},
        summarization=settings.summarization
        and {
            "model_uri": settings.summarization["model_uri"],
            "properties": [_instruction(item) for item in settings.summarization["properties"]],
        },
    )
    if content is None:
        return json.dumps({"uri": audio_uri, **message}).encode()
    rest = json.dumps(message).encode()
    check_inline(len(content), len(rest))
    return b'{"content":"' + base64.b64encode(content) + b'",' + rest[1:]


def check_inline(size_bytes: int, rest_bytes: int = 0) -> None:
    """Check that a recording of this size fits into a request.

    :param size_bytes: of the recording
    :param rest_bytes: of the rest of the request, if it is known
    :raises RecordingError: the request would be too large
    """
    body_bytes = 4 * ((size_bytes + 2) // 3) + rest_bytes + len('{"content":"",')
    if body_bytes > LARGEST_BODY:
        raise RecordingError(
            f"The recording is too large for the request: {body_bytes:,} bytes, the limit is {LARGEST_BODY:,}",
            hint="Upload it to a bucket (`upload_to`): then its link is submitted",
        )


def _encoding(settings: RecognitionSettings) -> AudioEncoding:
    if settings.audio_encoding is None:
        raise SettingsError(
            "`audio_encoding` isn't known", hint="Set it: LINEAR16_PCM, OGG_OPUS, MP3, or with API v3 WAV"
        )
    return settings.audio_encoding


def _recognition_model(settings: RecognitionSettings) -> dict[str, Any]:
    encoding = _encoding(settings)
    normalization: dict[str, Any] = {
        "text_normalization": "TEXT_NORMALIZATION_ENABLED" if settings.normalised else "TEXT_NORMALIZATION_DISABLED",
        "profanity_filter": settings.profanity_filter,
        "literature_text": settings.literature_text,
    }
    if settings.phone_formatting is False:
        normalization["phone_formatting_mode"] = "PHONE_FORMATTING_MODE_DISABLED"
    audio_format: dict[str, Any] = {"container_audio": {"container_audio_type": encoding.value}}
    if encoding is AudioEncoding.LINEAR16_PCM:
        audio_format = {
            "raw_audio": {
                "audio_encoding": encoding.value,
                "sample_rate_hertz": settings.sample_rate_hertz,
                "audio_channel_count": settings.audio_channel_count or 1,
            }
        }
    return {
        "model": settings.model,
        "audio_format": audio_format,
        "text_normalization": normalization,
        # Without a language the service takes everything for Russian.
        "language_restriction": {
            "restriction_type": settings.language_restriction or "WHITELIST",
            "language_code": list(settings.languages or (settings.language,)),
        },
        # Ignored for files by the reference, but speaker labelling's page requires it.
        "audio_processing_type": "FULL_DATA",
    }


def _speech_analysis(settings: RecognitionSettings) -> dict[str, Any]:
    return {
        "enable_speaker_analysis": settings.speaker_analysis,
        "enable_conversation_analysis": settings.conversation_analysis,
        **_without_empty(
            descriptive_statistics_quantiles=list(settings.analysis_quantiles),
            speaker_options=_without_empty(silence_threshold_ms=settings.speaker_silence_threshold_ms),
            # Misspelt by the service: that is its name on the wire.
            converstation_options=_without_empty(
                simultaneous_silence_threshold_ms=settings.simultaneous_silence_threshold_ms,
                simultaneous_speech_threshold_ms=settings.simultaneous_speech_threshold_ms,
            ),
        ),
    }


def _instruction(item: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in item.items() if value is not None}
    return given | ({"json_schema": {"schema": given["json_schema"]}} if "json_schema" in given else {})


def _without_empty(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}
