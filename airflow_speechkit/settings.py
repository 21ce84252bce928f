"""What to recognise and how: one frozen dataclass behind the operators' keywords, for API v2 and v3."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum, StrEnum
from typing import Any, TypeVar

from airflow_speechkit.errors import SettingsError


class ApiVersion(StrEnum):
    """The two asynchronous APIs of SpeechKit."""

    V2 = "v2"
    V3 = "v3"


class AudioEncoding(StrEnum):
    """What the recording's bytes are. ``WAV`` is a container that only v3 takes."""

    LINEAR16_PCM = "LINEAR16_PCM"
    OGG_OPUS = "OGG_OPUS"
    MP3 = "MP3"
    WAV = "WAV"


#: ``sampleRateHertz`` of LINEAR16_PCM, as documented.
SAMPLE_RATES_HERTZ = (8000, 16000, 48000)

#: Keywords that only v3 has. Everything that v2 can be told, v3 can be told too.
V3_ONLY = frozenset(
    {
        "languages",
        "language_restriction",
        "phone_formatting",
        "classifiers",
        "speaker_analysis",
        "conversation_analysis",
        "analysis_quantiles",
        "speaker_silence_threshold_ms",
        "simultaneous_silence_threshold_ms",
        "simultaneous_speech_threshold_ms",
        "speaker_labeling",
        "summarization",
    }
)

#: The models that only v3 knows (speechkit-api: models).
_V3_MODELS = frozenset({"deferred-general:rc", "deferred-general:deprecated"})
_MODEL = re.compile(r"[a-z][a-z0-9_-]*(:[a-z0-9_.-]+)?", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}-[A-Za-z]{2}", re.ASCII)
_RESTRICTIONS = ("WHITELIST", "BLACKLIST")
_TRIGGERS = ("ON_UTTERANCE", "ON_FINAL", "ON_PARTIAL")
_MOST_INSTRUCTIONS = 16
#: With these a recording may have Russian in it: codes are hints, and whoever speaks Kazakh mixes it in.
_MAY_BE_RUSSIAN = frozenset({"auto", "ru-ru", "kk-kz", "kk-kk"})

_E = TypeVar("_E", bound=Enum)


@dataclass(frozen=True, kw_only=True)
class RecognitionSettings:
    """Everything that changes what the service answers, and nothing else: the ledger's fingerprint covers it all.

    Strings are taken for the enums, lists for the tuples.

    :param api_version: ``v2`` or ``v3``
    :param language: language code, ``ru-RU`` by default; ``auto`` is for v3 only
    :param model: ``general``, ``general:rc``, ``general:deprecated``, ``deferred-general`` …
    :param profanity_filter: mask swearwords
    :param literature_text: punctuation and capitals
    :param raw_results: numbers spelled out: no normalisation of the text. v3 filters profanity and writes
        literature only in a normalised text, and normalises nothing with ``language="auto"``
    :param audio_encoding: what the recording is; read from its first bytes where not given
    :param sample_rate_hertz: of LINEAR16_PCM, and needed there: 8000, 16000 or 48000
    :param audio_channel_count: of LINEAR16_PCM only
    :param languages: v3: language codes that `language_restriction` is about, in place of `language`
    :param language_restriction: v3: ``WHITELIST`` (the default with `languages`) or ``BLACKLIST``
    :param phone_formatting: v3: ``False`` leaves telephone numbers as they are
    :param classifiers: v3: name of a classifier -> when it is asked (``ON_UTTERANCE``, ``ON_FINAL``, ``ON_PARTIAL``);
        they know Russian only
    :param speaker_analysis: v3: statistics for each speaker
    :param conversation_analysis: v3: statistics of the conversation
    :param analysis_quantiles: v3: quantiles of those statistics, between 0 and 1
    :param speaker_silence_threshold_ms: v3: how long a pause counts as a speaker's silence
    :param simultaneous_silence_threshold_ms: v3: how long both have to be silent for it to count
    :param simultaneous_speech_threshold_ms: v3: how long both have to speak for it to count
    :param speaker_labeling: v3: tell two speakers of a mono recording apart
    :param summarization: v3: ``{"model_uri": …, "properties": [{"instruction": …, "json_object" | "json_schema": …}]}``
    """

    api_version: ApiVersion = ApiVersion.V2
    language: str = "ru-RU"
    model: str = "general"
    profanity_filter: bool = False
    literature_text: bool = False
    raw_results: bool = False
    audio_encoding: AudioEncoding | None = None
    sample_rate_hertz: int | None = None
    audio_channel_count: int | None = None
    languages: tuple[str, ...] = ()
    language_restriction: str | None = None
    phone_formatting: bool | None = None
    classifiers: Mapping[str, tuple[str, ...]] | None = None
    speaker_analysis: bool = False
    conversation_analysis: bool = False
    analysis_quantiles: tuple[float, ...] = ()
    speaker_silence_threshold_ms: int | None = None
    simultaneous_silence_threshold_ms: int | None = None
    simultaneous_speech_threshold_ms: int | None = None
    speaker_labeling: bool = False
    summarization: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check each keyword and every pair that doesn't go together.

        :raises SettingsError: naming the keyword
        """
        self._take_plain_types()
        self._check_version()
        self._check_types()
        self._check_audio()
        self._check_language()
        self._check_text()
        self._check_analysis()
        self._check_summarization()

    @property
    def language_asked(self) -> str | None:
        """The language that was asked for; several with commas between, None where only others were ruled out."""
        if self.language_restriction == "BLACKLIST":
            return None
        return ", ".join(self.languages) or self.language

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, every field, in a stable order."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RecognitionSettings:
        """Rebuild what `to_json` gave.

        Fields that the data lacks (an earlier version wrote it) are at their defaults, fields that this
        version doesn't know (a later one wrote it) are left out. What an earlier version took is not checked
        again: it is paid for, and has to be read even where this one would refuse to send it.
        """
        settings = object.__new__(cls)
        for field in fields(cls):
            object.__setattr__(settings, field.name, data.get(field.name, field.default))
        settings._take_plain_types()
        if not all(isinstance(one, str) for one in (settings.language, settings.model, *settings.languages)):
            raise SettingsError("`language`, `languages` and `model` are texts")
        return settings

    def _take_plain_types(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("api_version", member_of(ApiVersion, self.api_version, "api_version"))
        if self.audio_encoding is not None:
            put("audio_encoding", member_of(AudioEncoding, self.audio_encoding, "audio_encoding"))
        put("languages", _several("languages", self.languages))
        if self.classifiers is not None:
            if not isinstance(self.classifiers, Mapping):
                raise SettingsError("`classifiers` is a mapping: the classifier's name -> when it is asked")
            put(
                "classifiers", {name: _several(f"classifiers[{name}]", when) for name, when in self.classifiers.items()}
            )
        put("analysis_quantiles", _several("analysis_quantiles", self.analysis_quantiles))
        put("summarization", _plain(self.summarization))

    def _check_version(self) -> None:
        if self.api_version is not ApiVersion.V2:
            return
        for field in fields(self):
            if field.name in V3_ONLY and getattr(self, field.name) != field.default:
                raise SettingsError(
                    f"`{field.name}` is a setting of API v3, and this is api_version='v2'",
                    hint="Leave it away, or choose api_version='v3'",
                )
        for name, value, wrong in (
            ("language", self.language, str(self.language).lower() == "auto"),
            ("model", self.model, self.model in _V3_MODELS),
            ("audio_encoding", "WAV", self.audio_encoding is AudioEncoding.WAV),
        ):
            if wrong:
                raise SettingsError(
                    f"`{name}`={value!r} is known to API v3 only, and this is api_version='v2'",
                    hint="Choose api_version='v3'"
                    + (", or convert to OggOpus or headerless PCM" if name == "audio_encoding" else ""),
                )

    def _check_types(self) -> None:
        for name in (
            "profanity_filter",
            "literature_text",
            "raw_results",
            "speaker_analysis",
            "conversation_analysis",
            "speaker_labeling",
        ):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"`{name}` is True or False, not {getattr(self, name)!r}")
        # 1 == True, and `phone_formatting is False` is what is asked of it.
        if not isinstance(self.phone_formatting, (bool, type(None))):
            raise SettingsError(f"`phone_formatting` is True, False or None, not {self.phone_formatting!r}")
        if not isinstance(self.model, str) or not _MODEL.fullmatch(self.model):
            raise SettingsError(
                f"`model`={self.model!r} is no model's name",
                hint="The models are general, general:rc, general:deprecated and deferred-general",
            )
        for name in (
            "sample_rate_hertz",
            "audio_channel_count",
            "speaker_silence_threshold_ms",
            "simultaneous_silence_threshold_ms",
            "simultaneous_speech_threshold_ms",
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise SettingsError(f"`{name}` is a whole number above zero, not {value!r}")

    def _check_audio(self) -> None:
        if self.sample_rate_hertz is not None and self.sample_rate_hertz not in SAMPLE_RATES_HERTZ:
            raise SettingsError(
                f"`sample_rate_hertz` is 8000, 16000 or 48000, not {self.sample_rate_hertz}",
                hint="Resample the recording, or convert it to OggOpus or MP3",
            )
        if self.audio_encoding is None:
            return
        if self.audio_encoding is AudioEncoding.LINEAR16_PCM:
            if self.sample_rate_hertz is None:
                raise SettingsError("`sample_rate_hertz` has to be given with audio_encoding='LINEAR16_PCM'")
            return
        for name in ("sample_rate_hertz", "audio_channel_count"):
            if getattr(self, name) is not None:
                raise SettingsError(
                    f"`{name}` goes with audio_encoding='LINEAR16_PCM' only: "
                    f"{self.audio_encoding.value} says it by itself",
                    hint="Leave it away",
                )

    def _check_language(self) -> None:
        for name, code in (("language", self.language), *(("languages", code) for code in self.languages)):
            if not isinstance(code, str) or not (_LANGUAGE.fullmatch(code) or code.lower() == "auto"):
                raise SettingsError(
                    f"`{name}`={code!r} is no language code", hint="Codes look like ru-RU, en-US, kk-KZ"
                )
        if self.language_restriction is not None:
            if self.language_restriction not in _RESTRICTIONS:
                raise SettingsError(
                    f"`language_restriction` is WHITELIST or BLACKLIST, not {self.language_restriction!r}"
                )
            if not self.languages:
                raise SettingsError("`language_restriction` needs `languages`: the codes that it is about")
            if self.language_restriction == "BLACKLIST" and "auto" in map(str.lower, self.languages):
                raise SettingsError("`languages` has 'auto', and language_restriction='BLACKLIST' needs language codes")
        if self.languages and self.language.lower() not in ("ru-ru", "auto"):
            raise SettingsError(
                f"`languages` takes the place of `language`, and both are given ({self.language})",
                hint="Leave `language` away",
            )

    def _check_text(self) -> None:
        if self.api_version is ApiVersion.V2:
            return
        normalised_only = [name for name in ("profanity_filter", "literature_text") if getattr(self, name)]
        if self.phone_formatting is not None:
            normalised_only.append("phone_formatting")
        for name in normalised_only:
            if self.raw_results:
                raise SettingsError(
                    f"`{name}` works on a normalised text, and `raw_results` asks for none",
                    hint="Leave one of them away",
                )
            if not self.normalised:
                raise SettingsError(
                    f"`{name}` works on a normalised text, and the service normalises none with language='auto'",
                    hint="Name the language, or leave it away",
                )

    @property
    def normalised(self) -> bool:
        """Whether the text is to be normalised. v3 does so for a known language only."""
        unknown = self.api_version is ApiVersion.V3 and self.language.lower() == "auto" and not self.languages
        return not (self.raw_results or unknown or "auto" in (code.lower() for code in self.languages))

    def _check_analysis(self) -> None:
        for name, triggers in (self.classifiers or {}).items():
            if not isinstance(name, str) or not name:
                raise SettingsError("`classifiers` has a classifier without a name")
            if not triggers or any(trigger not in _TRIGGERS for trigger in triggers):
                raise SettingsError(f"`classifiers`: {name} is asked ON_UTTERANCE, ON_FINAL or ON_PARTIAL")
        # A blacklist is a hint like any other: what is heard in spite of it may be Russian.
        if self.classifiers and self.language_restriction != "BLACKLIST":
            codes = self.languages or (self.language,)
            if _MAY_BE_RUSSIAN.isdisjoint(map(str.lower, codes)):
                raise SettingsError(
                    f"`classifiers` know Russian only, and `{'languages' if self.languages else 'language'}` is "
                    f"{', '.join(codes)}",
                    hint="Leave `classifiers` away",
                )
        for level in self.analysis_quantiles:
            if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
                raise SettingsError(f"`analysis_quantiles` lie between 0 and 1, and {level!r} doesn't")
        for name, needs in (
            ("analysis_quantiles", ("speaker_analysis", "conversation_analysis")),
            ("speaker_silence_threshold_ms", ("speaker_analysis",)),
            ("simultaneous_silence_threshold_ms", ("conversation_analysis",)),
            ("simultaneous_speech_threshold_ms", ("conversation_analysis",)),
        ):
            if getattr(self, name) and not any(getattr(self, needed) for needed in needs):
                raise SettingsError(f"`{name}` needs {' or '.join(f'`{needed}`' for needed in needs)}")
        if self.speaker_labeling and (self.audio_channel_count or 1) > 1:
            raise SettingsError(
                f"`speaker_labeling` is for mono recordings, and `audio_channel_count` is {self.audio_channel_count}",
                hint="Leave it away: the channels tell the speakers apart",
            )

    def _check_summarization(self) -> None:
        asked = self.summarization
        if asked is None:
            return
        if not isinstance(asked, Mapping) or set(asked) - {"model_uri", "properties"}:
            raise SettingsError("`summarization` has `model_uri` and `properties`, and nothing else")
        if not isinstance(asked.get("model_uri"), str) or not asked["model_uri"]:
            raise SettingsError("`summarization` needs a `model_uri`", hint="It looks like gpt://<folder id>/<model>")
        properties = asked.get("properties")
        if not isinstance(properties, (list, tuple)) or not properties:
            raise SettingsError("`summarization` needs `properties`: a list of instructions")
        if len(properties) > _MOST_INSTRUCTIONS:
            raise SettingsError(f"`summarization` takes {_MOST_INSTRUCTIONS} instructions, not {len(properties)}")
        for item in properties:
            if not isinstance(item, Mapping) or set(item) - {"instruction", "json_object", "json_schema"}:
                raise SettingsError("`summarization`: each of `properties` is an `instruction` and its form of answer")
            if not isinstance(item.get("instruction"), str) or not item["instruction"]:
                raise SettingsError("`summarization`: each of `properties` needs an `instruction`")
            if item.get("json_object") is not None and item.get("json_schema") is not None:
                raise SettingsError("`summarization`: `json_object` and `json_schema` exclude each other")
            if not isinstance(item.get("json_object"), (bool, type(None))):
                raise SettingsError("`summarization`: `json_object` is True or False")
            if not isinstance(item.get("json_schema"), (Mapping, type(None))):
                raise SettingsError("`summarization`: `json_schema` is a JSON schema")
            if not _is_json(item.get("json_schema")):
                raise SettingsError("`summarization`: `json_schema` has something in it that isn't JSON")


def member_of(kind: type[_E], value: object, name: str) -> _E:
    """Take a keyword's value for one of an enum's.

    :raises SettingsError: it is none of them; says which there are
    """
    try:
        return kind(value)
    except ValueError:
        choice = ", ".join(str(member.value) for member in kind)
        raise SettingsError(f"`{name}` is one of {choice}, not {value!r}") from None


def _several(name: str, values: object) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SettingsError(f"`{name}` is a list, not {values!r}")
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
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))
