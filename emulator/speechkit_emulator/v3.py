"""API v3 as it is on the wire: the submit's body, the operation, and the stream of events that is the result."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from speechkit_emulator.operation import Operation, State
from speechkit_emulator.request import Request, flag, integer, invalid, language, mapping, raw_audio
from speechkit_emulator.transcript import Transcript, Utterance, capitalised
from speechkit_emulator.v2 import spoken_text

DESCRIPTION = "STT v3 async recognition"
MODELS = frozenset(
    prefix + model for prefix in ("", "deferred-") for model in ("general", "general:rc", "general:deprecated")
)
CONTAINERS = frozenset({"WAV", "OGG_OPUS", "MP3"})
CLASSIFIER_TRIGGERS = ("ON_UTTERANCE", "ON_FINAL", "ON_PARTIAL")
#: Of the statistics: the field for each kind's options (misspelt by the service), and what is in it.
_THRESHOLDS = {
    "speaker_options": ("silence_threshold_ms",),
    "converstation_options": ("simultaneous_silence_threshold_ms", "simultaneous_speech_threshold_ms"),
}


def snake_case(value: Any) -> Any:
    """The same message with its field names in snake_case: protobuf's JSON takes them in either."""
    if isinstance(value, Mapping):
        return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): snake_case(item) for key, item in value.items()}
    if isinstance(value, list):
        return [snake_case(item) for item in value]
    return value


def read_request(message: Mapping[str, Any]) -> Request:
    """What a ``recognizeFileAsync`` asks for; unknown fields are ignored.

    :param message: the body, in snake_case
    :raises RefusedError: as the service would
    """
    link, content = message.get("uri"), message.get("content")
    if bool(link) == bool(content):
        raise invalid("exactly one of uri and content is required")
    if not isinstance(link or content, str):
        raise invalid("uri and content must be strings")
    model = mapping(message.get("recognition_model"), "recognition_model")
    name = model.get("model") or "general"
    if name not in MODELS:
        raise invalid(f"unsupported model: {name}")
    encoding, rate, channels = _audio_format(mapping(model.get("audio_format"), "audio_format"))
    normalization = mapping(model.get("text_normalization"), "text_normalization")
    mode = _one_of(
        normalization.get("text_normalization"),
        "text_normalization",
        ("TEXT_NORMALIZATION_DISABLED", "TEXT_NORMALIZATION_ENABLED", "TEXT_NORMALIZATION_UNSPECIFIED"),
    )
    flag(normalization.get("profanity_filter"), "profanity_filter")
    _one_of(
        normalization.get("phone_formatting_mode"),
        "phone_formatting_mode",
        ("PHONE_FORMATTING_MODE_UNSPECIFIED", "PHONE_FORMATTING_MODE_DISABLED"),
    )
    _one_of(
        model.get("audio_processing_type"),
        "audio_processing_type",
        ("AUDIO_PROCESSING_TYPE_UNSPECIFIED", "REAL_TIME", "FULL_DATA"),
    )
    labels = _one_of(
        mapping(message.get("speaker_labeling"), "speaker_labeling").get("speaker_labeling"),
        "speaker_labeling",
        ("SPEAKER_LABELING_DISABLED", "SPEAKER_LABELING_ENABLED", "SPEAKER_LABELING_UNSPECIFIED"),
    )
    return Request(
        api="v3",
        link=link or None,
        model=name,
        languages=_languages(mapping(model.get("language_restriction"), "language_restriction")),
        encoding=encoding,
        sample_rate=rate,
        channels=channels,
        normalised=mode == "TEXT_NORMALIZATION_ENABLED",
        literature=flag(normalization.get("literature_text"), "literature_text"),
        speaker_labels=labels == "SPEAKER_LABELING_ENABLED",
        analyses=_analyses(message),
    )


def _one_of(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    if value is None:
        return allowed[0]
    if value not in allowed:
        raise invalid(f"{name}: unknown value {value}")
    return str(value)


def _entries(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(f"{name}: must be an array")
    return value


def _audio_format(audio_format: Mapping[str, Any]) -> tuple[str, int, int | None]:
    raw, container = audio_format.get("raw_audio"), audio_format.get("container_audio")
    if (raw is None) == (container is None):
        raise invalid("audio_format: exactly one of raw_audio and container_audio is required")
    if raw is not None:
        raw = mapping(raw, "raw_audio")
        _one_of(raw.get("audio_encoding"), "audio_encoding", ("LINEAR16_PCM",))
        rate, channels = raw_audio(
            integer(raw.get("sample_rate_hertz"), "sample_rate_hertz"),
            integer(raw.get("audio_channel_count"), "audio_channel_count"),
        )
        return "LINEAR16_PCM", rate, channels
    kind = mapping(container, "container_audio").get("container_audio_type")
    if kind not in CONTAINERS:
        raise invalid(f"container_audio_type: unknown value {kind}")
    return str(kind), 48000, None


def _languages(restriction: Mapping[str, Any]) -> tuple[str, ...]:
    codes = _entries(restriction.get("language_code"), "language_code")
    kind = _one_of(restriction.get("restriction_type"), "restriction_type", ("WHITELIST", "BLACKLIST"))
    named = tuple(language(code) for code in codes)
    return named if named and kind == "WHITELIST" else ("auto",)


def _analyses(message: Mapping[str, Any]) -> tuple[str, ...]:
    asked = []
    classifier = mapping(message.get("recognition_classifier"), "recognition_classifier")
    classifiers = _entries(classifier.get("classifiers"), "classifiers")
    for one in classifiers:
        for trigger in _entries(mapping(one, "classifiers").get("triggers"), "triggers"):
            _one_of(trigger, "triggers", CLASSIFIER_TRIGGERS)
    if classifiers:
        asked.append("classifierUpdate")
    analysis = mapping(message.get("speech_analysis"), "speech_analysis")
    _check_statistics(analysis)
    if flag(analysis.get("enable_speaker_analysis"), "enable_speaker_analysis"):
        asked.append("speakerAnalysis")
    if flag(analysis.get("enable_conversation_analysis"), "enable_conversation_analysis"):
        asked.append("conversationAnalysis")
    summarization = mapping(message.get("summarization"), "summarization")
    if summarization:
        _check_summarization(summarization)
        asked.append("summarization")
    return tuple(asked)


def _check_statistics(analysis: Mapping[str, Any]) -> None:
    name = "descriptive_statistics_quantiles"
    for level in _entries(analysis.get(name), name):
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= 1:
            raise invalid(f"{name}: must be numbers between 0 and 1")
    for name, thresholds in _THRESHOLDS.items():
        options = mapping(analysis.get(name), name)
        for threshold in thresholds:
            integer(options.get(threshold), threshold)


def _check_summarization(summarization: Mapping[str, Any]) -> None:
    if not summarization.get("model_uri"):
        raise invalid("summarization.model_uri is required")
    properties = _entries(summarization.get("properties"), "summarization.properties")
    if len(properties) > 16:
        raise invalid("summarization.properties: 16 instructions at most")
    for one in properties:
        asked = mapping(one, "summarization.properties")
        if asked.get("json_object") is not None and asked.get("json_schema") is not None:
            raise invalid("summarization.properties: only one of json_object and json_schema can be set")
        flag(asked.get("json_object"), "json_object")
        mapping(mapping(asked.get("json_schema"), "json_schema").get("schema"), "json_schema.schema")


def render_operation(operation: Operation, now: float) -> dict[str, Any]:
    """A v3 operation: when done it has neither ``response`` nor, unless it failed, ``error``."""
    state = operation.state(now)
    answer: dict[str, Any] = {"done": state is not State.RUNNING}
    if operation.failure is not None and state in (State.FAILED, State.CANCELLED):
        answer["error"] = {"code": operation.failure.code, "message": operation.failure.message}
    stamps = operation.stamps(now)
    return {**answer, "id": stamps.pop("id"), "description": DESCRIPTION, **stamps}


def render_accepted(operation: Operation) -> dict[str, Any]:
    """The answer to a submit."""
    stamps = operation.stamps(operation.created_s)
    return {"id": stamps.pop("id"), "description": DESCRIPTION, **stamps, "done": False, "metadata": None}


def render_recognition(
    transcript: Transcript, request: Request, operation_id: str, duration_ms: int, flaws: tuple[str, ...] = ()
) -> bytes:
    """The stream that ``getRecognition`` answers with: an object a line.

    :param flaws: kinds of faults that the result is to have
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
    return b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)


def pretty(stream: bytes) -> bytes:
    """The same stream as the documentation prints it: indented objects, one after the other."""
    return b"\n".join(
        json.dumps(json.loads(line), ensure_ascii=False, indent=3).encode() for line in stream.splitlines()
    )


class _Frame:
    """What stands around every event."""

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
