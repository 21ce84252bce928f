from __future__ import annotations

import base64
import json

import pytest

from airflow_speechkit.api.submission import LARGEST_BODY, v2_body, v3_body
from airflow_speechkit.errors import RecordingError, SettingsError
from airflow_speechkit.settings import RecognitionSettings

LINK = "https://storage.yandexcloud.net/calls/1%20%D1%8F.ogg"


def test_v2_has_the_docs_spelling_and_no_channels_but_with_lpcm() -> None:
    body = json.loads(v2_body(LINK, RecognitionSettings(audio_encoding="OGG_OPUS", literature_text=True)))
    assert body == {
        "config": {
            "specification": {
                "languageCode": "ru-RU",
                "model": "general",
                "profanityFilter": False,
                "literature_text": True,
                "audioEncoding": "OGG_OPUS",
                "rawResults": False,
            }
        },
        "audio": {"uri": LINK},
    }


def test_v2_with_lpcm_has_rate_and_channels() -> None:
    settings = RecognitionSettings(audio_encoding="LINEAR16_PCM", sample_rate_hertz=8000, audio_channel_count=2)
    specification = json.loads(v2_body(LINK, settings))["config"]["specification"]
    assert specification["sampleRateHertz"] == 8000
    assert specification["audioChannelCount"] == 2


def test_v3_writes_the_whole_request_message() -> None:
    settings = RecognitionSettings(
        api_version="v3",
        language="auto",
        languages=("ru-RU", "kk-KZ"),
        language_restriction="BLACKLIST",
        model="deferred-general",
        profanity_filter=True,
        literature_text=True,
        phone_formatting=False,
        audio_encoding="LINEAR16_PCM",
        sample_rate_hertz=16000,
        classifiers={"insult": ("ON_UTTERANCE",)},
        speaker_analysis=True,
        conversation_analysis=True,
        analysis_quantiles=(0.5,),
        speaker_silence_threshold_ms=300,
        simultaneous_silence_threshold_ms=400,
        simultaneous_speech_threshold_ms=500,
        speaker_labeling=True,
        summarization={
            "model_uri": "gpt://f/m",
            "properties": [
                {"instruction": "a"},
                {"instruction": "b", "json_object": True},
                {"instruction": "c", "json_schema": {"type": "object"}},
            ],
        },
    )
    assert json.loads(v3_body(settings, audio_uri=LINK)) == {
        "uri": LINK,
        "recognition_model": {
            "model": "deferred-general",
            "audio_format": {
                "raw_audio": {
                    "audio_encoding": "LINEAR16_PCM",
                    "sample_rate_hertz": 16000,
                    "audio_channel_count": 1,
                }
            },
            "text_normalization": {
                "text_normalization": "TEXT_NORMALIZATION_ENABLED",
                "profanity_filter": True,
                "literature_text": True,
                "phone_formatting_mode": "PHONE_FORMATTING_MODE_DISABLED",
            },
            "language_restriction": {"restriction_type": "BLACKLIST", "language_code": ["ru-RU", "kk-KZ"]},
            "audio_processing_type": "FULL_DATA",
        },
        "recognition_classifier": {"classifiers": [{"classifier": "insult", "triggers": ["ON_UTTERANCE"]}]},
        "speech_analysis": {
            "enable_speaker_analysis": True,
            "enable_conversation_analysis": True,
            "descriptive_statistics_quantiles": [0.5],
            "speaker_options": {"silence_threshold_ms": 300},
            "converstation_options": {
                "simultaneous_silence_threshold_ms": 400,
                "simultaneous_speech_threshold_ms": 500,
            },
        },
        "speaker_labeling": {"speaker_labeling": "SPEAKER_LABELING_ENABLED"},
        "summarization": {
            "model_uri": "gpt://f/m",
            "properties": [
                {"instruction": "a"},
                {"instruction": "b", "json_object": True},
                {"instruction": "c", "json_schema": {"schema": {"type": "object"}}},
            ],
        },
    }


@pytest.mark.parametrize("encoding", ["WAV", "OGG_OPUS", "MP3"])
def test_v3_takes_containers_and_only_what_was_set_is_sent(encoding: str) -> None:
    settings = RecognitionSettings(api_version="v3", audio_encoding=encoding)
    body = json.loads(v3_body(settings, audio_uri=LINK))
    assert set(body) == {"uri", "recognition_model"}
    assert body["recognition_model"]["audio_format"] == {"container_audio": {"container_audio_type": encoding}}


@pytest.mark.parametrize(
    ("given", "normalised", "codes"),
    [
        ({}, True, ["ru-RU"]),
        ({"raw_results": True}, False, ["ru-RU"]),
        ({"language": "kk-KZ"}, True, ["kk-KZ"]),
        ({"language": "auto"}, False, ["auto"]),
        ({"languages": ["en-US", "ru-RU"]}, True, ["en-US", "ru-RU"]),
    ],
)
def test_v3_names_the_language_and_normalises_a_known_one(
    given: dict[str, object], normalised: bool, codes: list[str]
) -> None:
    settings = RecognitionSettings(api_version="v3", audio_encoding="WAV", **given)
    model = json.loads(v3_body(settings, audio_uri=LINK))["recognition_model"]
    asked = "TEXT_NORMALIZATION_ENABLED" if normalised else "TEXT_NORMALIZATION_DISABLED"
    assert model["text_normalization"]["text_normalization"] == asked
    assert model["language_restriction"] == {"restriction_type": "WHITELIST", "language_code": codes}


def test_v3_sends_a_small_recording_along() -> None:
    content = bytes(range(256)) * 3
    settings = RecognitionSettings(api_version="v3", audio_encoding="WAV", speaker_labeling=True)
    body = json.loads(v3_body(settings, audio_uri=None, content=content))
    assert base64.b64decode(body["content"]) == content
    assert "uri" not in body
    assert "speaker_labeling" in body


def test_v3_refuses_a_recording_of_which_the_request_would_be_too_large() -> None:
    settings = RecognitionSettings(api_version="v3", audio_encoding="WAV")
    with pytest.raises(RecordingError, match="the limit is 60,000,000"):
        v3_body(settings, audio_uri=None, content=bytes(45_000_001))
    assert len(v3_body(settings, audio_uri=None, content=bytes(44_999_000))) <= LARGEST_BODY


def test_an_encoding_has_to_be_known() -> None:
    for write in (
        lambda: v2_body(LINK, RecognitionSettings()),
        lambda: v3_body(RecognitionSettings(api_version="v3"), audio_uri=LINK),
    ):
        with pytest.raises(SettingsError, match="`audio_encoding` isn't known"):
            write()
