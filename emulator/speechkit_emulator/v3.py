"""The messages of API v3: the submit request, the operation, and the result as a stream of events."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from speechkit_emulator.operation import Operation, State
from speechkit_emulator.proto_json import (
    Message,
    Reading,
    boolean,
    content,
    double,
    enum,
    integer,
    repeated,
    struct,
    text,
    written,
)
from speechkit_emulator.request import Request, invalid, language, raw_audio
from speechkit_emulator.transcript import Transcript, Utterance, capitalised
from speechkit_emulator.v2 import spoken_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DESCRIPTION = "STT v3 async recognition"
MODELS = frozenset(
    prefix + model for prefix in ("", "deferred-") for model in ("general", "general:rc", "general:deprecated")
)
_ENABLED = "SPEAKER_LABELING_ENABLED"
_MAX_INSTRUCTIONS = 16

_AUDIO_FORMAT = Message(
    raw_audio=Message(
        audio_encoding=enum("AUDIO_ENCODING_UNSPECIFIED", "LINEAR16_PCM"),
        sample_rate_hertz=integer,
        audio_channel_count=integer,
    ),
    container_audio=Message(
        container_audio_type=enum("CONTAINER_AUDIO_TYPE_UNSPECIFIED", "WAV", "OGG_OPUS", "MP3"),
    ),
)
_TEXT_NORMALIZATION = Message(
    text_normalization=enum(
        "TEXT_NORMALIZATION_UNSPECIFIED", "TEXT_NORMALIZATION_ENABLED", "TEXT_NORMALIZATION_DISABLED"
    ),
    profanity_filter=boolean,
    literature_text=boolean,
    phone_formatting_mode=enum("PHONE_FORMATTING_MODE_UNSPECIFIED", "PHONE_FORMATTING_MODE_DISABLED"),
)
_LANGUAGE_RESTRICTION = Message(
    restriction_type=enum("LANGUAGE_RESTRICTION_TYPE_UNSPECIFIED", "WHITELIST", "BLACKLIST"),
    language_code=repeated(text),
)
_RECOGNITION_MODEL = Message(
    model=text,
    audio_format=_AUDIO_FORMAT,
    text_normalization=_TEXT_NORMALIZATION,
    language_restriction=_LANGUAGE_RESTRICTION,
    audio_processing_type=enum("AUDIO_PROCESSING_TYPE_UNSPECIFIED", "REAL_TIME", "FULL_DATA"),
)
_CLASSIFIER = Message(
    classifier=text,
    triggers=repeated(enum("TRIGGER_TYPE_UNSPECIFIED", "ON_UTTERANCE", "ON_FINAL", "ON_PARTIAL")),
)
_SPEECH_ANALYSIS = Message(
    enable_speaker_analysis=boolean,
    enable_conversation_analysis=boolean,
    descriptive_statistics_quantiles=repeated(double),
    speaker_options=Message(silence_threshold_ms=integer),
    # Misspelt by the service.
    converstation_options=Message(simultaneous_silence_threshold_ms=integer, simultaneous_speech_threshold_ms=integer),
)
_PROPERTY = Message(instruction=text, json_object=boolean, json_schema=Message(schema=struct))
_MESSAGE = Message(
    content=content,
    uri=text,
    recognition_model=_RECOGNITION_MODEL,
    recognition_classifier=Message(classifiers=repeated(_CLASSIFIER)),
    speech_analysis=_SPEECH_ANALYSIS,
    speaker_labeling=Message(
        speaker_labeling=enum("SPEAKER_LABELING_UNSPECIFIED", _ENABLED, "SPEAKER_LABELING_DISABLED")
    ),
    summarization=Message(model_uri=text, properties=repeated(_PROPERTY)),
)


def read_request(body: Any, reading: Reading) -> tuple[Request, bytes | None]:
    """Read a ``recognizeFileAsync`` request.

    :param body: its parsed JSON
    :return: the request, and the recording if it was sent inline
    :raises RefusedError: if the service would refuse the request
    """
    message = _MESSAGE(body, "", reading)
    if ("uri" in message) == ("content" in message):
        raise invalid("exactly one of uri and content is required")
    model = message.get("recognition_model", {})
    name = model.get("model", "general")
    if name not in MODELS:
        raise invalid(f"unsupported model: {name}")
    encoding, rate, channels = _audio_format(model.get("audio_format", {}))
    normalization = model.get("text_normalization", {})
    request = Request(
        api="v3",
        link=message.get("uri"),
        model=name,
        languages=_languages(model.get("language_restriction", {})),
        encoding=encoding,
        sample_rate=rate,
        channels=channels,
        normalised=normalization.get("text_normalization") == "TEXT_NORMALIZATION_ENABLED",
        literature=normalization.get("literature_text", False),
        speaker_labels=message.get("speaker_labeling", {}).get("speaker_labeling") == _ENABLED,
        analyses=_analyses(message),
    )
    return request, message.get("content")


def _audio_format(audio_format: Mapping[str, Any]) -> tuple[str, int, int | None]:
    raw, container = audio_format.get("raw_audio"), audio_format.get("container_audio")
    if (raw is None) == (container is None):
        raise invalid("audio_format: exactly one of raw_audio and container_audio is required")
    if raw is not None:
        rate, channels = raw_audio(raw.get("sample_rate_hertz"), raw.get("audio_channel_count"))
        return "LINEAR16_PCM", rate, channels
    kind = (container or {}).get("container_audio_type")
    if kind is None:
        raise invalid("container_audio_type is required")
    return kind, 48000, None


def _languages(restriction: Mapping[str, Any]) -> tuple[str, ...]:
    named = tuple(language(code) for code in restriction.get("language_code", ()))
    return named if named and restriction.get("restriction_type") != "BLACKLIST" else ("auto",)


def _analyses(message: Mapping[str, Any]) -> tuple[str, ...]:
    analysis = message.get("speech_analysis", {})
    if not all(0 <= level <= 1 for level in analysis.get("descriptive_statistics_quantiles", ())):
        raise invalid("descriptive_statistics_quantiles: must be numbers between 0 and 1")
    summarization = message.get("summarization")
    if summarization is not None:
        _check_summarization(summarization)
    asked = {
        "classifierUpdate": message.get("recognition_classifier", {}).get("classifiers"),
        "speakerAnalysis": analysis.get("enable_speaker_analysis"),
        "conversationAnalysis": analysis.get("enable_conversation_analysis"),
        "summarization": summarization,
    }
    return tuple(kind for kind, wanted in asked.items() if wanted)


def _check_summarization(summarization: Mapping[str, Any]) -> None:
    if not summarization.get("model_uri"):
        raise invalid("summarization.model_uri is required")
    properties = summarization.get("properties", [])
    if len(properties) > _MAX_INSTRUCTIONS:
        raise invalid(f"summarization.properties: {_MAX_INSTRUCTIONS} instructions at most")
    if any("json_object" in one and "json_schema" in one for one in properties):
        raise invalid("summarization.properties: only one of json_object and json_schema can be set")


def render_operation(operation: Operation, now: float) -> dict[str, Any]:
    """A v3 operation: it has no ``response``, and an ``error`` only if it failed."""
    state = operation.state(now)
    answer: dict[str, Any] = {"done": state is not State.RUNNING}
    if failure := operation.shown_failure(now):
        answer["error"] = {"code": failure.code, "message": failure.message}
    stamps = operation.stamps(now)
    return {**answer, "id": stamps.pop("id"), "description": DESCRIPTION, **stamps}


def render_accepted(operation: Operation) -> dict[str, Any]:
    """The answer to a submit."""
    stamps = operation.stamps(operation.created_s)
    return {"id": stamps.pop("id"), "description": DESCRIPTION, **stamps, "done": False, "metadata": None}


def render_recognition(
    transcript: Transcript, request: Request, operation_id: str, duration_ms: int, flaws: tuple[str, ...] = ()
) -> bytes:
    """The stream that ``getRecognition`` returns, one object a line.

    :param flaws: kinds of faults in the result
    """
    frame = _Frame(operation_id, duration_ms)
    events = list(_events(transcript, request, frame, "missing_refinements" in flaws, "no_words" in flaws))
    failure = transcript.stream_error
    if failure is not None or "stream_error" in flaws:
        del events[transcript.stream_error_after if failure is not None else max(1, len(events) // 2) :]
        code, message = (failure.code, failure.message) if failure is not None else (13, "internal error")
        events.append(
            {"error": {"grpcCode": code, "httpCode": 500, "message": message, "httpStatus": "Internal Server Error"}}
        )
    return b"".join(written(event) + b"\n" for event in events)


def pretty(stream: bytes) -> bytes:
    """The stream in the form of the documentation: indented objects, one after the other."""
    return b"\n".join(
        json.dumps(json.loads(line), ensure_ascii=False, indent=3).encode() for line in stream.splitlines()
    )


class _Frame:
    """The common fields of all events."""

    def __init__(self, operation_id: str, duration_ms: int) -> None:
        parts = uuid.uuid5(uuid.NAMESPACE_OID, operation_id).hex
        self.session = {
            "uuid": "-".join(parts[at : at + 8] for at in range(0, 32, 8)),
            "userRequestId": operation_id,
        }
        self.duration_ms = duration_ms

    def event(self, channel: str, final_index: int, at_ms: int, body: Mapping[str, Any], eou_ms: int = 0) -> Any:
        cursors = {
            "receivedDataMs": str(self.duration_ms),
            "resetTimeMs": "0",
            "partialTimeMs": str(at_ms),
            "finalTimeMs": str(at_ms),
            "finalIndex": str(final_index),
            "eouTimeMs": str(eou_ms),
        }
        return {
            "result": {
                "sessionUuid": self.session,
                "audioCursors": cursors,
                "responseWallTimeMs": "189",
                **body,
                "channelTag": channel,
            }
        }


def _events(
    transcript: Transcript, request: Request, frame: _Frame, unrefined: bool, wordless: bool
) -> Iterator[dict[str, Any]]:
    counts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for utterance in transcript.utterances:
        channel = str(utterance.channel)
        if request.speaker_labels and utterance.speaker is not None:
            channel = utterance.speaker
        index = counts.get(channel, -1) + 1
        counts[channel] = index
        frame_ms = (ends.get(channel, 0), utterance.end_ms)
        ends[channel] = utterance.end_ms
        final = _alternatives(utterance, utterance.text, channel, frame_ms, wordless)
        yield frame.event(channel, index, utterance.end_ms, {"final": final})
        if utterance.refined and not unrefined:
            text = spoken_text(utterance, request) if request.normalised else capitalised(utterance.text)
            refined = _alternatives(utterance, text, channel, frame_ms, wordless)
            body = {"finalRefinement": {"finalIndex": str(index), "normalizedText": refined}}
            yield frame.event(channel, index, utterance.end_ms, body)
        yield frame.event(
            channel, index, utterance.end_ms, {"eouUpdate": {"timeMs": str(utterance.end_ms)}}, utterance.end_ms
        )
    for kind, number, payload in transcript.analyses:
        if kind in request.analyses:
            channel = str(number)
            yield frame.event(channel, max(0, counts.get(channel, 0)), ends.get(channel, 0), {kind: payload})


def _alternatives(
    utterance: Utterance, text: str, channel: str, frame_ms: tuple[int, int], wordless: bool
) -> dict[str, Any]:
    words = [
        {"text": word.word, "startTimeMs": str(word.start_ms), "endTimeMs": str(word.end_ms)}
        for word in (() if wordless else utterance.words or ())
    ]
    alternative = {
        "words": words,
        "text": text,
        "startTimeMs": str(frame_ms[0]),
        "endTimeMs": str(frame_ms[1]),
        "confidence": 0,
        "languages": [{"languageCode": code, "probability": share} for code, share in utterance.languages],
    }
    return {"alternatives": [alternative], "channelTag": channel}
