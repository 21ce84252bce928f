"""What to recognise and how: one frozen dataclass behind the operators' keywords, for API v2 and v3."""

# ruff: noqa: RUF009 - `_setting` declares a field.

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - msgspec needs it when it checks
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.parsing import convert


class ApiVersion(StrEnum):
    """The two asynchronous APIs of SpeechKit."""

    V2 = "v2"
    V3 = "v3"


class AudioEncoding(StrEnum):
    """The format of a recording. ``WAV`` is a container that only v3 takes."""

    LINEAR16_PCM = "LINEAR16_PCM"
    OGG_OPUS = "OGG_OPUS"
    MP3 = "MP3"
    WAV = "WAV"


#: ``sampleRateHertz`` of LINEAR16_PCM, as documented.
SAMPLE_RATES_HERTZ = (8000, 16000, 48000)

#: The values that only v3 has, in lower case (speechkit-api: models).
_V3_VALUES = {
    "language": {"auto"},
    "model": {"deferred-general:rc", "deferred-general:deprecated"},
    "audio_encoding": {"wav"},
}
_E = TypeVar("_E", bound=Enum)

_Language = Annotated[str, Meta(pattern=r"\A([A-Za-z]{2,3}-[A-Za-z]{2}|[Aa][Uu][Tt][Oo])\Z")]
_Model = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_-]*(:[a-z0-9_.-]+)?\Z")]
_Count = Annotated[int, Meta(gt=0)]
_Quantile = Annotated[float, Meta(gt=0, lt=1)]
_Text = Annotated[str, Meta(min_length=1)]
_Triggers = Annotated[tuple[Literal["ON_UTTERANCE", "ON_FINAL", "ON_PARTIAL"], ...], Meta(min_length=1)]


class _Instruction(msgspec.Struct, forbid_unknown_fields=True):
    instruction: _Text
    json_object: bool | None = None
    json_schema: dict[str, Any] | None = None


class _Summarization(msgspec.Struct, forbid_unknown_fields=True):
    model_uri: _Text
    properties: Annotated[list[_Instruction], Meta(min_length=1, max_length=16)]


_FLAG = "True or False"
_CODE = "language code, such as ru-RU, en-US, kk-KZ"
_COUNT = "a whole number above zero"


def _setting(
    default: Any, must_be: str, *, hint: str | None = None, v3_only: bool = False, needs: tuple[str, ...] = ()
) -> Any:
    """Declare a setting.

    :param must_be: the values of its type, for people
    :param v3_only: whether API v2 lacks it
    :param needs: the settings of v3 of which one has to be set with it
    """
    about = {"must_be": must_be, "hint": hint, "v3_only": v3_only or bool(needs), "needs": needs}
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class RecognitionSettings:
    """Everything that changes the service's answer, and nothing else: the ledger's fingerprint covers all of it.

    Strings are converted to the enums, lists to tuples.

    :param api_version: ``v2`` or ``v3``
    :param language: language code, ``ru-RU`` by default; ``auto`` is for v3 only
    :param model: ``general``, ``general:rc``, ``general:deprecated``, ``deferred-general`` …
    :param profanity_filter: mask swearwords
    :param literature_text: punctuation and capitals
    :param raw_results: numbers spelled out: no normalisation of the text. v3 filters profanity and writes
        literature only in a normalised text, and normalises nothing with ``language="auto"``
    :param audio_encoding: the format of the recording; read from its first bytes where it isn't given
    :param sample_rate_hertz: of LINEAR16_PCM, required there: 8000, 16000 or 48000
    :param audio_channel_count: of LINEAR16_PCM only
    :param languages: v3: language codes for `language_restriction`, in place of `language`
    :param language_restriction: v3: ``WHITELIST`` (the default with `languages`) or ``BLACKLIST``
    :param phone_formatting: v3: ``False`` leaves telephone numbers as they are
    :param classifiers: v3: name of a classifier -> when it runs (``ON_UTTERANCE``, ``ON_FINAL``, ``ON_PARTIAL``);
        for Russian only
    :param speaker_analysis: v3: statistics for each speaker
    :param conversation_analysis: v3: statistics of the conversation
    :param analysis_quantiles: v3: quantiles of those statistics, between 0 and 1
    :param speaker_silence_threshold_ms: v3: how long a pause counts as a speaker's silence
    :param simultaneous_silence_threshold_ms: v3: how long both have to be silent for it to count
    :param simultaneous_speech_threshold_ms: v3: how long both have to speak for it to count
    :param speaker_labeling: v3: tell two speakers of a mono recording apart
    :param summarization: v3: ``{"model_uri": …, "properties": [{"instruction": …, "json_object" | "json_schema": …}]}``
    """

    api_version: ApiVersion = _setting(ApiVersion.V2, "v2 or v3")
    language: _Language = _setting("ru-RU", f"a {_CODE}")
    model: _Model = _setting(
        "general",
        "the name of a model",
        hint="The models are general, general:rc, general:deprecated and deferred-general",
    )
    profanity_filter: bool = _setting(False, _FLAG)
    literature_text: bool = _setting(False, _FLAG)
    raw_results: bool = _setting(False, _FLAG)
    audio_encoding: AudioEncoding | None = _setting(None, f"one of {', '.join(AudioEncoding)}")
    sample_rate_hertz: Literal[8000, 16000, 48000] | None = _setting(
        None,
        f"one of {', '.join(map(str, SAMPLE_RATES_HERTZ))}",
        hint="Resample the recording, or convert it to OggOpus or MP3",
    )
    audio_channel_count: _Count | None = _setting(None, _COUNT)
    languages: tuple[_Language, ...] = _setting((), f"a list, each a {_CODE}", v3_only=True)
    language_restriction: Literal["WHITELIST", "BLACKLIST"] | None = _setting(
        None, "WHITELIST or BLACKLIST", needs=("languages",)
    )
    phone_formatting: bool | None = _setting(None, "True, False or None", v3_only=True)
    classifiers: Mapping[_Text, _Triggers] | None = _setting(
        None, "a mapping of classifiers' names to lists of ON_UTTERANCE, ON_FINAL, ON_PARTIAL", v3_only=True
    )
    speaker_analysis: bool = _setting(False, _FLAG, v3_only=True)
    conversation_analysis: bool = _setting(False, _FLAG, v3_only=True)
    analysis_quantiles: tuple[_Quantile, ...] = _setting(
        (), "a list of numbers between 0 and 1", needs=("speaker_analysis", "conversation_analysis")
    )
    speaker_silence_threshold_ms: _Count | None = _setting(None, _COUNT, needs=("speaker_analysis",))
    simultaneous_silence_threshold_ms: _Count | None = _setting(None, _COUNT, needs=("conversation_analysis",))
    simultaneous_speech_threshold_ms: _Count | None = _setting(None, _COUNT, needs=("conversation_analysis",))
    speaker_labeling: bool = _setting(False, _FLAG, v3_only=True)
    summarization: Mapping[str, Any] | None = _setting(None, "a mapping", v3_only=True)

    def __post_init__(self) -> None:
        """Check each setting, and those that don't go together.

        :raises SettingsError: naming the setting
        """
        self._convert()
        is_v3 = self.api_version is ApiVersion.V3
        for one in fields(self):
            name, value, needs = one.name, getattr(self, one.name), one.metadata["needs"]
            _require(
                is_v3 or not one.metadata["v3_only"] or value == one.default,
                f"`{name}` is a setting of API v3, and this is api_version='v2'",
                "Remove it, or set api_version='v3'",
            )
            _require(
                not value or not needs or any(getattr(self, needed) for needed in needs),
                f"`{name}` needs {' or '.join(f'`{needed}`' for needed in needs)}",
            )
            _require(
                is_v3 or str(value).lower() not in _V3_VALUES.get(name, ()),
                f"`{name}`={str(value)!r} exists in API v3 only, and this is api_version='v2'",
                "Set api_version='v3'",
            )
        is_raw = self.audio_encoding is AudioEncoding.LINEAR16_PCM
        _require(
            not is_raw or self.sample_rate_hertz, "`sample_rate_hertz` is required with audio_encoding='LINEAR16_PCM'"
        )
        for name in ("sample_rate_hertz", "audio_channel_count"):
            _require(
                is_raw or self.audio_encoding is None or getattr(self, name) is None,
                f"`{name}` is for audio_encoding='LINEAR16_PCM' only, not for {self.audio_encoding}",
                "Remove it: it is read from the recording's header",
            )
        for name in ("profanity_filter", "literature_text", "phone_formatting"):
            _require(
                not is_v3 or self.normalised or getattr(self, name) == getattr(type(self), name),
                f"`{name}` needs a normalised text, and `raw_results` and language='auto' turn that off",
                f"Remove `{name}`, or the other",
            )
        _require(
            not self.languages or self.language.lower() in ("ru-ru", "auto"),
            f"`languages` replaces `language`, and both are given ({self.language})",
            "Remove `language`",
        )
        if self.summarization is not None:
            object.__setattr__(self, "summarization", _summarization(self.summarization))

    @property
    def language_asked(self) -> str | None:
        """The requested language; several with commas between, None where others were excluded."""
        if self.language_restriction == "BLACKLIST":
            return None
        return ", ".join(self.languages) or self.language

    @property
    def normalised(self) -> bool:
        """Whether the text is to be normalised. v3 does so for a known language only."""
        is_unknown = self.api_version is ApiVersion.V3 and self.language.lower() == "auto" and not self.languages
        return not (self.raw_results or is_unknown or "auto" in (code.lower() for code in self.languages))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, every field, in a stable order."""
        data: dict[str, Any] = _as_json({one.name: getattr(self, one.name) for one in fields(self)})
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RecognitionSettings:
        """Rebuild what `to_json` returned.

        Missing fields (an earlier version wrote it) get their defaults, unknown ones (a later version did) are
        ignored. Only the types are checked: the recording is paid for, and its answer has to be read in any case.

        :raises SettingsError: a field has another type
        """
        settings = object.__new__(cls)
        for one in fields(cls):
            object.__setattr__(settings, one.name, data.get(one.name, one.default))
        settings._convert(is_recorded=True)
        return settings

    def _convert(self, *, is_recorded: bool = False) -> None:
        kinds = _kinds()
        for one in fields(self):
            value = getattr(self, one.name)
            try:
                converted = convert(value, kinds[one.name])
            except msgspec.ValidationError:
                if is_recorded and type(value) is type(one.default):
                    continue
                what = f"`{one.name}` must be {one.metadata['must_be']}, not {value!r}"
                raise SettingsError(what, hint=one.metadata["hint"]) from None
            object.__setattr__(self, one.name, converted)


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(RecognitionSettings, include_extras=True)


def _as_json(value: object) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def _summarization(given: object) -> Any:
    """Return a summarization as JSON has it."""
    try:
        plain = _as_json(given)
        convert(plain, _Summarization)
        return plain
    except msgspec.ValidationError as error:
        why = str(error)
    except (TypeError, ValueError, RecursionError):
        why = "something in it isn't JSON"
    raise SettingsError(
        f"`summarization` can't be used: {why}",
        hint="It looks like {'model_uri': 'gpt://<folder id>/<model>', 'properties': [{'instruction': …}]}, with up to "
        "16 instructions, each with `json_object` or `json_schema`",
    )


#: Settings that only v3 has. v3 has all of v2's.
V3_ONLY = frozenset(one.name for one in fields(RecognitionSettings) if one.metadata["v3_only"])


def member_of(kind: type[_E], value: object, name: str) -> _E:
    """Convert a keyword's value to an enum's member.

    :raises SettingsError: it is none of the members; the message lists them
    """
    try:
        return kind(value)
    except ValueError:
        choice = ", ".join(str(member.value) for member in kind)
        raise SettingsError(f"`{name}` must be one of {choice}, not {value!r}") from None


def _require(holds: object, what: str, hint: str | None = None) -> None:
    if not holds:
        raise SettingsError(what, hint=hint)
