"""API v3: what is submitted, and what goes wrong inside a result's stream."""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError, SettingsError
from airflow_speechkit.parsing import MalformedError, decode, parse_each
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBMIT_PATH = "/stt/v3/recognizeFileAsync"
RESULT_PATH = "/stt/v3/getRecognition"
DELETE_PATH = "/stt/v3/deleteRecognition"

#: The limit of a request's body, bytes: about 45 MB of a recording (speechkit-api §3).
LARGEST_BODY = 60_000_000
#: Of a field: somebody may also have said the word.
_ERROR_NAME = re.compile(rb'"error"\s*:')


def submission_body(settings: RecognitionSettings, *, audio_uri: str | None, content: bytes | None = None) -> bytes:
    """Write a ``RecognizeFileRequest``, in snake case as the docs' examples have it.

    :param audio_uri: the recording's https link in Object Storage
    :param content: or the recording itself
    :raises SettingsError: the encoding isn't known
    :raises RecordingError: the recording is too large to be sent along
    """
    message: dict[str, Any] = {"recognition_model": _recognition_model(settings)}
    if settings.classifiers:
        message["recognition_classifier"] = {
            "classifiers": [{"classifier": name, "triggers": list(when)} for name, when in settings.classifiers.items()]
        }
    if settings.speaker_analysis or settings.conversation_analysis:
        message["speech_analysis"] = _speech_analysis(settings)
    if settings.speaker_labeling:
        message["speaker_labeling"] = {"speaker_labeling": "SPEAKER_LABELING_ENABLED"}
    if settings.summarization:
        message["summarization"] = _summarization(settings.summarization)
    if content is None:
        return json.dumps({"uri": audio_uri, **message}).encode()
    rest = json.dumps(message).encode()
    check_inline(len(content), len(rest))
    return b'{"content":"' + base64.b64encode(content) + b'",' + rest[1:]


def check_inline(size_bytes: int, rest_bytes: int = 0) -> None:
    """Check that a recording of this size can be sent along with the request.

    :param size_bytes: of the recording
    :param rest_bytes: of the rest of the request, if it is known
    :raises RecordingError: the request would be too large
    """
    body_bytes = 4 * ((size_bytes + 2) // 3) + rest_bytes + len('{"content":"",')
    if body_bytes > LARGEST_BODY:
        raise RecordingError(
            f"The recording is too large to be sent along: {body_bytes} bytes of request, and {LARGEST_BODY} are taken",
            hint="Upload it to a bucket (`upload_to`), and the link will be submitted",
        )


def _recognition_model(settings: RecognitionSettings) -> dict[str, Any]:
    encoding = settings.audio_encoding
    if encoding is None:
        raise SettingsError("`audio_encoding` isn't known", hint="Give it: LINEAR16_PCM, OGG_OPUS, MP3 or WAV")
    normalization: dict[str, Any] = {
        "text_normalization": "TEXT_NORMALIZATION_ENABLED" if settings.normalised else "TEXT_NORMALIZATION_DISABLED",
        "profanity_filter": settings.profanity_filter,
        "literature_text": settings.literature_text,
    }
    if settings.phone_formatting is False:
        normalization["phone_formatting_mode"] = "PHONE_FORMATTING_MODE_DISABLED"
    audio_format: dict[str, Any] = (
        {
            "raw_audio": {
                "audio_encoding": encoding.value,
                "sample_rate_hertz": settings.sample_rate_hertz,
                "audio_channel_count": settings.audio_channel_count or 1,
            }
        }
        if encoding is AudioEncoding.LINEAR16_PCM
        else {"container_audio": {"container_audio_type": encoding.value}}
    )
    return {
        "model": settings.model,
        "audio_format": audio_format,
        "text_normalization": normalization,
        # The language is a hint of v3's: without one, everything is taken for Russian.
        "language_restriction": {
            "restriction_type": settings.language_restriction or "WHITELIST",
            "language_code": list(settings.languages or (settings.language,)),
        },
        # Ignored for files by the reference, but speaker labelling's page asks for it.
        "audio_processing_type": "FULL_DATA",
    }


def _speech_analysis(settings: RecognitionSettings) -> dict[str, Any]:
    analysis: dict[str, Any] = {
        "enable_speaker_analysis": settings.speaker_analysis,
        "enable_conversation_analysis": settings.conversation_analysis,
    }
    if settings.analysis_quantiles:
        analysis["descriptive_statistics_quantiles"] = list(settings.analysis_quantiles)
    if settings.speaker_silence_threshold_ms is not None:
        analysis["speaker_options"] = {"silence_threshold_ms": settings.speaker_silence_threshold_ms}
    conversation = {
        name: value
        for name, value in (
            ("simultaneous_silence_threshold_ms", settings.simultaneous_silence_threshold_ms),
            ("simultaneous_speech_threshold_ms", settings.simultaneous_speech_threshold_ms),
        )
        if value is not None
    }
    if conversation:
        # Misspelt by the service: that is its name on the wire.
        analysis["converstation_options"] = conversation
    return analysis


def _summarization(asked: Any) -> dict[str, Any]:
    properties = []
    for item in asked["properties"]:
        one: dict[str, Any] = {"instruction": item["instruction"]}
        if item.get("json_object") is not None:
            one["json_object"] = item["json_object"]
        if item.get("json_schema") is not None:
            one["json_schema"] = {"schema": item["json_schema"]}
        properties.append(one)
    return {"model_uri": asked["model_uri"], "properties": properties}


def failure_within(stream: bytes) -> Any:
    """Return the ``error`` that a result's stream has among its messages, None where none can be read there.

    The stream is only taken apart where the word stands in it as a name: results run to megabytes.

    :param stream: the body of ``getRecognition``: JSON objects, one after the other
    """
    if not _ERROR_NAME.search(stream):
        return None
    with suppress(MalformedError):
        for message in _messages(stream):
            if message.get("error") is not None:
                return message["error"]
    return None


def check_whole(stream: bytes) -> None:
    """Check that a result's stream is nothing but whole messages. Without any it is silence.

    :param stream: the body of ``getRecognition``
    :raises MalformedError: it is cut off, or isn't what is documented
    """
    for message in _messages(stream):
        if not isinstance(message.get("result", message), dict):
            raise MalformedError("a message is no JSON object")


def _messages(stream: bytes) -> Iterator[dict[str, Any]]:
    # One at a time: a whole result as Python objects would take many times its size.
    for message, _ in parse_each(decode(stream)):
        if not isinstance(message, dict):
            raise MalformedError("a message is no JSON object")
        yield message
