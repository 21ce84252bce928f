"""The messages of API v2: the submit request, the operation and its chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speechkit_emulator.operation import Operation, State
from speechkit_emulator.proto_json import Message, Reading, boolean, enum, integer, text, written
from speechkit_emulator.request import Request, invalid, language, raw_audio

if TYPE_CHECKING:
    from speechkit_emulator.transcript import Transcript, Utterance

MODELS = frozenset({"general", "general:rc", "general:deprecated", "deferred-general"})
RESPONSE_TYPE = "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"

_SPECIFICATION = Message(
    audio_encoding=enum("AUDIO_ENCODING_UNSPECIFIED", "LINEAR16_PCM", "OGG_OPUS", "MP3"),
    sample_rate_hertz=integer,
    language_code=text,
    profanity_filter=boolean,
    model=text,
    partial_results=boolean,
    single_utterance=boolean,
    audio_channel_count=integer,
    raw_results=boolean,
    literature_text=boolean,
)
_MESSAGE = Message(config=Message(specification=_SPECIFICATION, folder_id=text), audio=Message(uri=text))


def read_request(body: Any, folder_id: str, reading: Reading) -> Request:
    """Read a ``longRunningRecognize`` request.

    :param body: its parsed JSON
    :param folder_id: the folder of the service account
    :raises RefusedError: if the service would refuse the request
    """
    message = _MESSAGE(body, "", reading)
    config = message.get("config", {})
    check_folder(config.get("folder_id"), folder_id)
    specification = config.get("specification", {})
    link = message.get("audio", {}).get("uri")
    if link is None:
        raise invalid("audio.uri is required")
    model = specification.get("model", "general")
    if model not in MODELS:
        raise invalid(f"unsupported model: {model}")
    encoding = specification.get("audio_encoding", "OGG_OPUS")
    rate, channels = specification.get("sample_rate_hertz"), specification.get("audio_channel_count")
    if encoding == "LINEAR16_PCM":
        rate, channels = raw_audio(rate, channels)
    elif channels is not None:
        reading.tolerate(f"audioChannelCount must not be specified for {encoding}")
        channels = None
    return Request(
        api="v2",
        link=link,
        model=model,
        languages=(language(specification.get("language_code", "ru-RU")),),
        encoding=encoding,
        sample_rate=rate or 48000,
        channels=channels,
        normalised=not specification.get("raw_results", False),
        literature=specification.get("literature_text", False),
    )


def check_folder(given: Any, folder_id: str) -> None:
    """Check that the folder, if one is named, is that of the service account.

    :raises RefusedError: if it is another folder
    """
    if given and given != folder_id:
        raise invalid(
            f"Specified folder ID '{given}' does not match with service account folder ID '{folder_id}'",
        )


def duration(ms: int, nine_decimals: bool = False) -> str:
    """Protobuf's Duration in JSON, without decimals or with three.

    :param nine_decimals: with nine decimals and a nanosecond less, as in the documentation's examples
    """
    if nine_decimals and ms:
        seconds, ns = divmod(ms * 1_000_000 - 1, 1_000_000_000)
        return f"{seconds}.{ns:09d}s"
    return f"{ms // 1000}s" if ms % 1000 == 0 else f"{ms // 1000}.{ms % 1000:03d}s"


def spoken_text(utterance: Utterance, request: Request) -> str:
    """The text of an utterance, according to the request's settings."""
    text = utterance.normalized_text if request.normalised else utterance.text
    if request.literature and text and text[-1] not in ".?!":
        return text + "."
    return text


def render_response(transcript: Transcript, request: Request, flaws: tuple[str, ...] = ()) -> bytes:
    """The operation's ``response``; silence has no ``chunks``.

    :param flaws: kinds of faults in the result
    """
    response: dict[str, Any] = {"@type": RESPONSE_TYPE}
    chunks = [_chunk(utterance, request, flaws) for utterance in transcript.utterances]
    if chunks:
        response["chunks"] = chunks
    return written(response)


def _chunk(utterance: Utterance, request: Request, flaws: tuple[str, ...]) -> dict[str, Any]:
    alternative: dict[str, Any] = {}
    if utterance.words is not None and "no_words" not in flaws:
        nine = "nine_decimals" in flaws
        alternative["words"] = [
            {
                "startTime": duration(word.start_ms, nine),
                "endTime": duration(word.end_ms, nine),
                "word": word.word,
                "confidence": 1,
            }
            for word in utterance.words
        ]
    alternative["text"] = spoken_text(utterance, request)
    alternative["confidence"] = 1
    return {"alternatives": [alternative], "channelTag": str(utterance.channel + 1)}


def render_operation(operation: Operation, now: float, response: bytes | None) -> bytes:
    """The operation: ``done, response | error, id, createdAt, createdBy, modifiedAt``."""
    state = operation.state(now)
    head: dict[str, Any] = {"done": state is not State.RUNNING}
    if failure := operation.shown_failure(now):
        head["error"] = {"code": failure.code, "message": failure.message}
    tail = operation.stamps(now)
    if state is not State.DONE or response is None:
        return written({**head, **tail})
    # A result can have megabytes; it is inserted as it is, not parsed and written again.
    return b'{"done":true,"response":' + response + b"," + written(tail)[1:]
