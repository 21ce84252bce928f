"""API v2 as it is on the wire: the submit's body, the operation and its chunks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from speechkit_emulator.operation import Operation, State
from speechkit_emulator.request import Request, flag, integer, invalid, language, mapping, raw_audio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from speechkit_emulator.transcript import Transcript, Utterance

MODELS = frozenset({"general", "general:rc", "general:deprecated", "deferred-general"})
ENCODINGS = frozenset({"LINEAR16_PCM", "OGG_OPUS", "MP3"})
RESPONSE_TYPE = "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"


def read_request(body: Mapping[str, Any], folder_id: str) -> Request:
    """What a ``longRunningRecognize`` asks for; unknown fields are ignored.

    :param folder_id: the service account's own folder
    :raises RefusedError: as the service would
    """
    config = mapping(body.get("config"), "config")
    check_folder(config.get("folderId"), folder_id)
    specification = mapping(config.get("specification"), "config.specification")
    audio = mapping(body.get("audio"), "audio")
    link = audio.get("uri")
    if not isinstance(link, str) or not link:
        raise invalid("audio.uri is required")
    model = _one_of(specification, "model", MODELS, "general")
    encoding = _one_of(specification, "audioEncoding", ENCODINGS, "OGG_OPUS")
    rate = integer(specification.get("sampleRateHertz"), "sampleRateHertz")
    channels = integer(specification.get("audioChannelCount"), "audioChannelCount")
    if encoding == "LINEAR16_PCM":
        rate, channels = raw_audio(rate, channels)
    elif channels is not None:
        raise invalid(f"audioChannelCount must not be specified for {encoding}")
    flag(specification.get("profanityFilter"), "profanityFilter")
    code = specification.get("languageCode")
    literature = specification.get("literature_text", specification.get("literatureText"))
    return Request(
        api="v2",
        link=link,
        model=model,
        languages=(language("ru-RU" if code in (None, "") else code),),
        encoding=encoding,
        sample_rate=rate or 48000,
        channels=channels,
        normalised=not flag(specification.get("rawResults"), "rawResults"),
        literature=flag(literature, "literature_text"),
    )


def _one_of(specification: Mapping[str, Any], name: str, allowed: frozenset[str], default: str) -> str:
    value = specification.get(name)
    if value in (None, ""):
        return default
    if not isinstance(value, str) or value not in allowed:
        raise invalid(f"unsupported {name}: {value}")
    return value


def check_folder(given: Any, folder_id: str) -> None:
    """A folder, if one is named, must be the service account's.

    :raises RefusedError: if it is another
    """
    if given and given != folder_id:
        raise invalid(
            f"Specified folder ID '{given}' does not match with service account folder ID '{folder_id}'",
        )


def duration(ms: int) -> str:
    """Protobuf's Duration in JSON: no decimals, or three."""
    return f"{ms // 1000}s" if ms % 1000 == 0 else f"{ms // 1000}.{ms % 1000:03d}s"


def spoken_text(utterance: Utterance, request: Request) -> str:
    """The text of an utterance as the settings want it written."""
    text = utterance.normalized_text if request.normalised else utterance.text
    if request.literature and text and text[-1] not in ".?!":
        return text + "."
    return text


def render_response(transcript: Transcript, request: Request) -> bytes:
    """The operation's ``response``; silence has no ``chunks``."""
    response: dict[str, Any] = {"@type": RESPONSE_TYPE}
    chunks = [_chunk(utterance, request) for utterance in transcript.utterances]
    if chunks:
        response["chunks"] = chunks
    return json.dumps(response, ensure_ascii=False).encode()


def _chunk(utterance: Utterance, request: Request) -> dict[str, Any]:
    alternative: dict[str, Any] = {}
    if utterance.words is not None:
        alternative["words"] = [
            {"startTime": duration(word.start_ms), "endTime": duration(word.end_ms), "word": word.word, "confidence": 1}
            for word in utterance.words
        ]
    alternative["text"] = spoken_text(utterance, request)
    alternative["confidence"] = 1
    return {"alternatives": [alternative], "channelTag": str(utterance.channel + 1)}


def without_words(response: bytes) -> bytes:
    """The same response with no word times, as some answers of the service have been."""
    value = json.loads(response)
    for chunk in value.get("chunks", []):
        for alternative in chunk["alternatives"]:
            alternative.pop("words", None)
    return json.dumps(value, ensure_ascii=False).encode()


def render_operation(operation: Operation, now: float, response: bytes | None) -> bytes:
    """The operation: ``done, response | error, id, createdAt, createdBy, modifiedAt``."""
    state = operation.state(now)
    head: dict[str, Any] = {"done": state is not State.RUNNING}
    if operation.failure is not None and state in (State.FAILED, State.CANCELLED):
        head["error"] = {"code": operation.failure.code, "message": operation.failure.message}
    tail = operation.stamps(now)
    if state is not State.DONE or response is None:
        return json.dumps({**head, **tail}, ensure_ascii=False).encode()
    # A result of megabytes is spliced in as it lies there, not parsed and written again.
    return b'{"done": true, "response": ' + response + b", " + json.dumps(tail, ensure_ascii=False).encode()[1:]
