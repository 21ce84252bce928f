from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.settings import V3_ONLY, ApiVersion, AudioEncoding, RecognitionSettings

EVERYTHING_OF_V3 = {
    "api_version": "v3",
    "languages": ["ru-RU", "kk-KZ"],
    "language_restriction": "WHITELIST",
    "model": "deferred-general:rc",
    "profanity_filter": True,
    "literature_text": True,
    "audio_encoding": "LINEAR16_PCM",
    "sample_rate_hertz": 8000,
    "audio_channel_count": 1,
    "phone_formatting": False,
    "classifiers": {"insult": ["ON_UTTERANCE", "ON_FINAL"]},
    "speaker_analysis": True,
    "conversation_analysis": True,
    "analysis_quantiles": [0.5, 0.95],
    "speaker_silence_threshold_ms": 300,
    "simultaneous_silence_threshold_ms": 400,
    "simultaneous_speech_threshold_ms": 500,
    "speaker_labeling": True,
    "summarization": {
        "model_uri": "gpt://folder/yandexgpt",
        "properties": [
            {"instruction": "Name the topic", "json_object": True},
            {"instruction": "Sum it up", "json_schema": {"type": "object"}},
        ],
    },
}


def test_defaults_are_the_documented_ones() -> None:
    asked = RecognitionSettings()
    assert (asked.api_version, asked.language, asked.model) == (ApiVersion.V2, "ru-RU", "general")


def test_strings_and_lists_are_taken_for_enums_and_tuples() -> None:
    asked = RecognitionSettings(**EVERYTHING_OF_V3)
    assert asked.api_version is ApiVersion.V3
    assert asked.audio_encoding is AudioEncoding.LINEAR16_PCM
    assert asked.languages == ("ru-RU", "kk-KZ")
    assert asked.classifiers == {"insult": ("ON_UTTERANCE", "ON_FINAL")}


@pytest.mark.parametrize("given", [{}, EVERYTHING_OF_V3, {"audio_encoding": "MP3", "raw_results": True}])
def test_json_there_and_back_is_the_same(given: dict[str, object]) -> None:
    asked = RecognitionSettings(**given)
    data = json.loads(json.dumps(asked.to_json()))
    assert RecognitionSettings.from_json(data) == asked
    assert list(data) == list(RecognitionSettings().to_json())


def test_recorded_settings_are_read_although_the_rules_refuse_them() -> None:
    data = RecognitionSettings(api_version=ApiVersion.V3, languages=("en-US",)).to_json()
    asked = RecognitionSettings.from_json({**data, "api_version": "v2", "model": "A later one's"})
    assert (asked.languages, asked.model) == (("en-US",), "A later one's")


def test_missing_fields_get_defaults_and_unknown_ones_are_ignored() -> None:
    asked = RecognitionSettings.from_json({"api_version": "v2", "language": "en-US", "invented_in_2031": 1})
    assert asked == RecognitionSettings(language="en-US")


@pytest.mark.parametrize("name", sorted(V3_ONLY))
def test_a_keyword_that_only_v3_has_is_refused_by_name_with_v2(name: str) -> None:
    with pytest.raises(SettingsError, match=f"`{name}` is a setting of API v3"):
        RecognitionSettings(**{name: EVERYTHING_OF_V3[name]})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"api_version": "v4"}, "`api_version` must be v2 or v3"),
        ({"language": "auto"}, "`language`='auto' exists in API v3 only"),
        ({"model": "deferred-general:rc"}, "`model`='deferred-general:rc' exists in API v3 only"),
        ({"audio_encoding": "WAV"}, "`audio_encoding`='WAV' exists in API v3 only"),
        ({"audio_encoding": "FLAC"}, "`audio_encoding` must be one of LINEAR16_PCM, OGG_OPUS, MP3, WAV"),
        ({"audio_encoding": "LINEAR16_PCM"}, "`sample_rate_hertz` is required"),
        ({"audio_encoding": "LINEAR16_PCM", "sample_rate_hertz": 44100}, "8000, 16000, 48000, not 44100"),
        ({"sample_rate_hertz": True}, "`sample_rate_hertz` must be one of"),
        ({"audio_encoding": "OGG_OPUS", "audio_channel_count": 2}, "`audio_channel_count` is for audio_encoding"),
        ({"audio_encoding": "MP3", "sample_rate_hertz": 48000}, "`sample_rate_hertz` is for audio_encoding"),
        ({"audio_channel_count": 0}, "`audio_channel_count` must be a whole number above zero"),
        ({"language": "русский"}, "must be a language code"),
        ({"model": "General Model"}, "must be the name of a model"),
        ({"profanity_filter": "true"}, "`profanity_filter` must be True or False"),
        ({"api_version": "v3", "languages": "ru-RU"}, "`languages` must be a list"),
        ({"api_version": "v3", "language_restriction": "WHITELIST"}, "needs `languages`"),
        ({"api_version": "v3", "languages": ["ru-RU"], "language_restriction": "ALL"}, "WHITELIST or BLACKLIST"),
        ({"api_version": "v3", "languages": ["ru-RU"], "language": "en-US"}, "replaces `language`"),
        ({"api_version": "v3", "raw_results": True, "literature_text": True}, "`literature_text` needs a normal"),
        ({"api_version": "v3", "language": "auto", "profanity_filter": True}, "`profanity_filter` needs a norm"),
        ({"api_version": "v3", "raw_results": True, "phone_formatting": False}, "`phone_formatting` needs"),
        ({"api_version": "v3", "classifiers": {"insult": ["SOMETIMES"]}}, "`classifiers` must be a mapping"),
        ({"api_version": "v3", "classifiers": {"insult": [["x"]]}}, "`classifiers` must be a mapping"),
        ({"api_version": "v3", "classifiers": ["insult"]}, "`classifiers` must be a mapping"),
        ({"api_version": "v3", "phone_formatting": 0}, "`phone_formatting` must be True, False or None, not 0"),
        ({"api_version": "v3", "phone_formatting": 1.0}, "`phone_formatting` must be True, False or None, not 1.0"),
        ({"api_version": "v3", "analysis_quantiles": [0.5]}, "needs `speaker_analysis` or"),
        ({"api_version": "v3", "speaker_analysis": True, "analysis_quantiles": [1.5]}, "between 0 and 1"),
        ({"api_version": "v3", "speaker_silence_threshold_ms": 3}, "needs `speaker_analysis`"),
        *(
            ({"api_version": "v3", "summarization": given}, f"`summarization` can't be used: {says}")
            for given, says in (
                ({"instruction": "x"}, "Object contains unknown field `instruction`"),
                ({"model_uri": "gpt://f/m"}, "Object missing required field `properties`"),
                ({"model_uri": "m", "properties": [{"instruction": "i"}] * 17}, "Expected `array` of length <= 16"),
                ({"model_uri": "m", "properties": [{"instruction": "i", "json_object": 1}]}, "Expected `bool"),
                *(
                    ({"model_uri": "m", "properties": [{"instruction": "i", "json_schema": {"enum": [odd]}}]}, "someth")
                    for odd in ({"a"}, float("nan"), float("inf"), b"a")
                ),
            )
        ),
    ],
)
def test_invalid_settings_are_refused_by_name(given: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        RecognitionSettings(**given)


def test_a_schema_may_have_whatever_is_json_in_it() -> None:
    schema = {"enum": (1, 1.5, "a", None, True, {"a": []})}
    properties = [{"instruction": "i", "json_schema": schema}]
    asked = RecognitionSettings(api_version="v3", summarization={"model_uri": "m", "properties": properties})
    assert RecognitionSettings.from_json(json.loads(json.dumps(asked.to_json()))) == asked


@given(strategies.text(max_size=12))
@settings(derandomize=True, deadline=None, max_examples=80)
def test_any_text_for_a_language_is_either_taken_or_refused_by_name(text: str) -> None:
    refusal = ""
    try:
        RecognitionSettings(language=text)
    except SettingsError as error:
        refusal = str(error)
    assert not refusal or "`language`" in refusal
