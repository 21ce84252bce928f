"""A submit request, of either API."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from speechkit_emulator.bounds import BadValueError, check_sendable
from speechkit_emulator.refusal import INVALID_ARGUMENT, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

LANGUAGES = frozenset(
    code.lower()
    for code in (
        "auto",
        "de-DE",
        "en-US",
        "es-ES",
        "fi-FI",
        "fr-FR",
        "he-HE",
        "he-IL",
        "it-IT",
        "kk-KZ",
        "kk-KK",
        "nl-NL",
        "pl-PL",
        "pt-PT",
        "pt-BR",
        "ru-RU",
        "sv-SE",
        "tr-TR",
        "uz-UZ",
    )
)

SAMPLE_RATES = (8000, 16000, 48000)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A requested recognition.

    :param api: "v2" or "v3"
    :param link: the recording's link, as given; None for an inline recording
    :param model: name of the model
    :param languages: language codes in lower case; "auto" = any language
    :param encoding: LINEAR16_PCM, OGG_OPUS, MP3 or WAV
    :param sample_rate: of LINEAR16_PCM, in hertz
    :param channels: of LINEAR16_PCM
    :param normalised: with digits and capitals in the text
    :param literature: with full stops and capitals too
    :param speaker_labels: label the speakers of a mono recording
    :param analyses: kinds of requested v3 events
    """

    api: str
    link: str | None
    model: str
    languages: tuple[str, ...]
    encoding: str
    sample_rate: int = 48000
    channels: int | None = None
    normalised: bool = True
    literature: bool = False
    speaker_labels: bool = False
    analyses: tuple[str, ...] = field(default=())

    @property
    def deferred(self) -> bool:
        """Whether the model is a deferred one."""
        return self.model.startswith("deferred-")

    @property
    def english(self) -> bool:
        """Whether the emulator's recogniser knows the language."""
        return bool({"en-us", "auto"} & set(self.languages))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Request:
        """A request from the output of :meth:`to_json`."""
        return cls(**{**value, "languages": tuple(value["languages"]), "analyses": tuple(value["analyses"])})


def invalid(message: str) -> RefusedError:
    """The error for an invalid request."""
    return RefusedError(INVALID_ARGUMENT, message)


def parsed(content: bytes) -> Any:
    """The JSON of a request's body. Its content type is ignored: the documentation's curl examples send that of a form.

    :raises RefusedError: if it is not JSON that protobuf would read
    """
    try:
        value = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise invalid("the body is not JSON") from error
    try:
        check_sendable(value)
    except BadValueError as error:
        raise invalid(f"the body can't be read: {error}") from error
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def raw_audio(rate: int | None, channels: int | None) -> tuple[int, int]:
    """Check sample rate and channel count of LINEAR16_PCM.

    :raises RefusedError: if the service does not support one of them
    """
    if rate is None:
        raise invalid("sampleRateHertz is required for LINEAR16_PCM")
    if rate not in SAMPLE_RATES:
        raise invalid(f"unsupported sampleRateHertz: {rate}, must be one of 8000, 16000, 48000")
    if channels is not None and channels < 1:
        raise invalid(f"unsupported audioChannelCount: {channels}")
    return rate, channels or 1


def language(code: str) -> str:
    """A language code in lower case.

    :raises RefusedError: if the service does not support it
    """
    if code.lower() not in LANGUAGES:
        raise invalid(f"unsupported language code: {code}")
    return code.lower()
