"""What to recognise and how: one frozen dataclass behind the operators' keywords, for API v2 and v3."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from typing import Any, TypeVar

from airflow_speechkit.errors import SettingsError


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
_MODEL = re.compile(r"[a-z][a-z0-9_-]*(:[a-z0-9_.-]+)?", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}-[A-Za-z]{2}|auto", re.ASCII | re.IGNORECASE)
_TRIGGERS = ("ON_UTTERANCE", "ON_FINAL", "ON_PARTIAL")
_MOST_INSTRUCTIONS = 16
#: With these a recording may have Russian in it: codes are hints, and Kazakh speech is often mixed with Russian.
_MAY_BE_RUSSIAN = frozenset({"auto", "ru-ru", "kk-kz", "kk-kk"})

_E = TypeVar("_E", bound=Enum)


@dataclass(frozen=True)
class _Rule:
    """The values that a setting takes.

    :param says: ends "`name` must be …"
    """

    says: str
    takes: Callable[[Any], bool]
    hint: str | None = None


def _is_language(value: object) -> bool:
    return isinstance(value, str) and _LANGUAGE.fullmatch(value) is not None


def _is_quantile(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < 1  # type: ignore[operator]


def _are_classifiers(value: object) -> bool:
    return value is None or (
        isinstance(value, Mapping)
        and all(isinstance(name, str) and name for name in value)
        and all(triggers and all(one in _TRIGGERS for one in triggers) for triggers in value.values())
    )


_CODES = "Codes look like ru-RU, en-US, kk-KZ"
_ANY = _Rule("", lambda value: True)
_FLAG = _Rule("True or False", lambda value: isinstance(value, bool))
# Not `value in (True, False, None)`: 1 == True.
_FLAG_OR_NONE = _Rule("True, False or None", lambda value: value is None or isinstance(value, bool))
_COUNT = _Rule("a whole number above zero", lambda value: value is None or (type(value) is int and value > 0))
_RATE = _Rule(
    f"one of {', '.join(map(str, SAMPLE_RATES_HERTZ))}",
    lambda value: value is None or (type(value) is int and value in SAMPLE_RATES_HERTZ),
    "Resample the recording, or convert it to OggOpus or MP3",
)
_MODEL_NAME = _Rule(
    "the name of a model",
    lambda value: isinstance(value, str) and _MODEL.fullmatch(value) is not None,
    "The models are general, general:rc, general:deprecated and deferred-general",
)
_LANGUAGE_CODE = _Rule("a language code", _is_language, _CODES)
_LANGUAGE_CODES = _Rule("a list of language codes", lambda value: all(map(_is_language, value)), _CODES)
_RESTRICTION = _Rule("WHITELIST or BLACKLIST", lambda value: value in (None, "WHITELIST", "BLACKLIST"))
_QUANTILES = _Rule("a list of numbers between 0 and 1", lambda value: all(map(_is_quantile, value)))
_CLASSIFIERS = _Rule(f"a mapping of classifiers' names to lists of {', '.join(_TRIGGERS)}", _are_classifiers)


def _setting(default: Any, rule: _Rule, *, v3_only: bool = False, needs: tuple[str, ...] = ()) -> Any:
    """Declare a setting.

    :param v3_only: whether API v2 lacks it
    :param needs: the settings of which one has to be set with it
    """
    return field(default=default, metadata={"rule": rule, "v3_only": v3_only, "needs": needs})


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

    api_version: ApiVersion = _setting(ApiVersion.V2, _ANY)  # noqa: RUF009 - it declares a field
    language: str = _setting("ru-RU", _LANGUAGE_CODE)
    model: str = _setting("general", _MODEL_NAME)
    profanity_filter: bool = _setting(False, _FLAG)
    literature_text: bool = _setting(False, _FLAG)
    raw_results: bool = _setting(False, _FLAG)
    audio_encoding: AudioEncoding | None = _setting(None, _ANY)  # noqa: RUF009
    sample_rate_hertz: int | None = _setting(None, _RATE)
    audio_channel_count: int | None = _setting(None, _COUNT)
    languages: tuple[str, ...] = _setting((), _LANGUAGE_CODES, v3_only=True)
    language_restriction: str | None = _setting(None, _RESTRICTION, v3_only=True, needs=("languages",))
    phone_formatting: bool | None = _setting(None, _FLAG_OR_NONE, v3_only=True)
    classifiers: Mapping[str, tuple[str, ...]] | None = _setting(None, _CLASSIFIERS, v3_only=True)
    speaker_analysis: bool = _setting(False, _FLAG, v3_only=True)
    conversation_analysis: bool = _setting(False, _FLAG, v3_only=True)
    analysis_quantiles: tuple[float, ...] = _setting(
        (), _QUANTILES, v3_only=True, needs=("speaker_analysis", "conversation_analysis")
    )
    speaker_silence_threshold_ms: int | None = _setting(None, _COUNT, v3_only=True, needs=("speaker_analysis",))
    simultaneous_silence_threshold_ms: int | None = _setting(
        None, _COUNT, v3_only=True, needs=("conversation_analysis",)
    )
    simultaneous_speech_threshold_ms: int | None = _setting(
        None, _COUNT, v3_only=True, needs=("conversation_analysis",)
    )
    speaker_labeling: bool = _setting(False, _FLAG, v3_only=True)
    summarization: Mapping[str, Any] | None = _setting(None, _ANY, v3_only=True)

    def __post_init__(self) -> None:
        """Check each setting, and those that don't go together.

        :raises SettingsError: naming the setting
        """
        self._convert()
        for one in fields(self):
            name, value, rule = one.name, getattr(self, one.name), one.metadata["rule"]
            _require(
                self.api_version is ApiVersion.V3 or not one.metadata["v3_only"] or value == one.default,
                f"`{name}` is a setting of API v3, and this is api_version='v2'",
                "Remove it, or set api_version='v3'",
            )
            _require(rule.takes(value), f"`{name}` must be {rule.says}, not {value!r}", rule.hint)
            needs = one.metadata["needs"]
            _require(
                not value or not needs or any(getattr(self, needed) for needed in needs),
                f"`{name}` needs {' or '.join(f'`{needed}`' for needed in needs)}",
            )
        for name, values in _V3_VALUES.items():
            value = str(getattr(self, name))
            _require(
                self.api_version is ApiVersion.V3 or value.lower() not in values,
                f"`{name}`={value!r} exists in API v3 only, and this is api_version='v2'",
                "Set api_version='v3'",
            )
        self._check_audio()
        self._check_language()
        self._check_text()
        self._check_analysis()

    @property
    def language_asked(self) -> str | None:
        """The language that was asked for; several with commas between, None where others were excluded."""
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
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RecognitionSettings:
        """Rebuild what `to_json` returned.

        Missing fields (an earlier version wrote it) get their defaults, unknown ones (a later version did) are
        ignored. The rules aren't checked: the recording is paid for, and its answer has to be read in any case.

        :raises SettingsError: a field has another type
        """
        settings = object.__new__(cls)
        for one in fields(cls):
            object.__setattr__(settings, one.name, data.get(one.name, one.default))
        settings._convert()
        texts = (settings.language, settings.model, *settings.languages)
        _require(all(isinstance(text, str) for text in texts), "`language`, `languages` and `model` must be texts")
        return settings

    def _convert(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("api_version", member_of(ApiVersion, self.api_version, "api_version"))
        if self.audio_encoding is not None:
            put("audio_encoding", member_of(AudioEncoding, self.audio_encoding, "audio_encoding"))
        put("languages", _tuple("languages", self.languages))
        put("analysis_quantiles", _tuple("analysis_quantiles", self.analysis_quantiles))
        put("summarization", _plain(self.summarization))
        if isinstance(self.classifiers, Mapping):
            triggers = {name: _tuple(f"classifiers[{name}]", when) for name, when in self.classifiers.items()}
            put("classifiers", triggers)

    def _check_audio(self) -> None:
        if self.audio_encoding is AudioEncoding.LINEAR16_PCM:
            _require(
                self.sample_rate_hertz is not None, "`sample_rate_hertz` is required with audio_encoding='LINEAR16_PCM'"
            )
        elif self.audio_encoding is not None:
            for name in ("sample_rate_hertz", "audio_channel_count"):
                _require(
                    getattr(self, name) is None,
                    f"`{name}` is for audio_encoding='LINEAR16_PCM' only, not for {self.audio_encoding.value}",
                    "Remove it: it is read from the recording's header",
                )

    def _check_language(self) -> None:
        _require(
            self.language_restriction != "BLACKLIST" or "auto" not in map(str.lower, self.languages),
            "`languages` has 'auto', and language_restriction='BLACKLIST' needs language codes",
        )
        _require(
            not self.languages or self.language.lower() in ("ru-ru", "auto"),
            f"`languages` replaces `language`, and both are given ({self.language})",
            "Remove `language`",
        )

    def _check_text(self) -> None:
        for name in ("profanity_filter", "literature_text", "phone_formatting"):
            _require(
                self.api_version is ApiVersion.V2
                or self.normalised
                or getattr(self, name) == getattr(type(self), name),
                f"`{name}` needs a normalised text, and `raw_results` and language='auto' turn that off",
                f"Remove `{name}`, or the other",
            )

    def _check_analysis(self) -> None:
        codes = self.languages or (self.language,)
        # A blacklist is a hint like any other: the speech may be Russian in spite of it.
        _require(
            not self.classifiers
            or self.language_restriction == "BLACKLIST"
            or not _MAY_BE_RUSSIAN.isdisjoint(map(str.lower, codes)),
            f"`classifiers` are for Russian only, and `{'languages' if self.languages else 'language'}` is "
            f"{', '.join(codes)}",
            "Remove `classifiers`",
        )
        _require(
            not self.speaker_labeling or (self.audio_channel_count or 1) == 1,
            f"`speaker_labeling` is for mono recordings, and `audio_channel_count` is {self.audio_channel_count}",
            "Remove it: the channels tell the speakers apart",
        )
        if self.summarization is not None:
            _check_summarization(self.summarization)


def _check_summarization(asked: Any) -> None:
    properties: Any = asked.get("properties") if isinstance(asked, dict) else None
    _require(
        isinstance(properties, list) and properties and set(asked) == {"model_uri", "properties"},
        "`summarization` must have `model_uri` and `properties` (a list of instructions), and nothing else",
    )
    _require(
        isinstance(asked["model_uri"], str) and asked["model_uri"],
        "`model_uri` of `summarization` must be a text",
        "It looks like gpt://<folder id>/<model>",
    )
    _require(
        len(properties) <= _MOST_INSTRUCTIONS,
        f"`summarization` takes up to {_MOST_INSTRUCTIONS} instructions, not {len(properties)}",
    )
    for item in properties:
        _require(
            isinstance(item, dict)
            and set(item) <= {"instruction", "json_object", "json_schema"}
            and isinstance(item.get("instruction"), str)
            and item["instruction"],
            "`summarization`: each of `properties` has an `instruction`, and `json_object` or `json_schema`",
        )
        json_object, json_schema = item.get("json_object"), item.get("json_schema")
        for is_right, what in (
            (json_object is None or json_schema is None, "`json_object` and `json_schema` exclude each other"),
            (json_object is None or isinstance(json_object, bool), "`json_object` must be True or False"),
            (json_schema is None or isinstance(json_schema, dict), "`json_schema` must be a JSON schema"),
            (_is_json(json_schema), "`json_schema` has something in it that isn't JSON"),
        ):
            _require(is_right, f"`summarization`: {what}")


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


def _tuple(name: str, values: object) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SettingsError(f"`{name}` must be a list, not {values!r}")
    return tuple(values)


def _plain(value: object) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _is_json(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
