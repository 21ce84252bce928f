"""Requests are read by proto3's JSON mapping."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from speechkit_emulator import v2, v3
from speechkit_emulator.proto_json import Reading
from speechkit_emulator.refusal import RefusedError
from speechkit_emulator.request import Request, parsed

URI = "https://storage.yandexcloud.net/b/k"


def read_v2(specification: dict[str, Any], reading: Reading | None = None) -> Request:
    body = {"config": {"specification": specification}, "audio": {"uri": URI}}
    return v2.read_request(parsed(json.dumps(body).encode()), "b1g", reading or Reading(strict=True))


def read_v3(message: dict[str, Any], reading: Reading | None = None) -> tuple[Request, bytes | None]:
    body = parsed(json.dumps(message).encode())
    return v3.read_request(body, reading or Reading(strict=True))


def containers(kind: Any) -> dict[str, Any]:
    return {"audio_format": {"container_audio": {"container_audio_type": kind}}}


@pytest.mark.parametrize(("number", "name"), [(1, "WAV"), (2, "OGG_OPUS"), (3, "MP3")])
def test_enums_are_accepted_by_name_and_by_number(number: int, name: str) -> None:
    by_number, _ = read_v3({"uri": URI, "recognition_model": containers(number)})
    by_name, _ = read_v3({"uri": URI, "recognition_model": containers(name)})
    assert by_number == by_name
    assert by_name.encoding == name


def test_every_enum_accepts_its_numbers() -> None:
    pcm = {"audioEncoding": 1, "sampleRateHertz": 8000}
    assert read_v2(pcm).encoding == "LINEAR16_PCM"
    assert [read_v2({"audioEncoding": number}).encoding for number in (0, 2, 3)] == ["OGG_OPUS", "OGG_OPUS", "MP3"]
    request, _ = read_v3(
        {
            "uri": URI,
            "recognition_model": {
                **containers(2),
                "text_normalization": {"text_normalization": 1, "phone_formatting_mode": 1},
                "language_restriction": {"restriction_type": 1, "language_code": ["ru-RU"]},
                "audio_processing_type": 2,
            },
            "speaker_labeling": {"speaker_labeling": 1},
            "recognition_classifier": {"classifiers": [{"classifier": "insult", "triggers": [1, "ON_FINAL", 3]}]},
        }
    )
    assert (request.normalised, request.speaker_labels, request.languages) == (True, True, ("ru-ru",))
    blacklist = {"restriction_type": 2, "language_code": ["ru-RU"]}
    request, _ = read_v3({"uri": URI, "recognition_model": {**containers(2), "language_restriction": blacklist}})
    assert request.languages == ("auto",)


@pytest.mark.parametrize("value", [4, -1, "2", "ogg_opus", 2.5, True, [], {}, "CONTAINER_AUDIO_TYPE_UNSPECIFIED", 0])
def test_an_enum_refuses_other_values(value: Any) -> None:
    with pytest.raises(RefusedError, match="container_audio_type"):
        read_v3({"uri": URI, "recognition_model": containers(value)})


@pytest.mark.parametrize("value", [8000, "8000", 8000.0, "8e3", "8000.0"])
def test_integers_are_accepted_as_numbers_and_as_strings(value: Any) -> None:
    assert read_v2({"audioEncoding": "LINEAR16_PCM", "sampleRateHertz": value}).sample_rate == 8000


@pytest.mark.parametrize(
    "value",
    [
        *("", " 8000", "8000 ", "8_000", "+8000", "08000", "0x1F40", "٨٠٠٠", "NaN", 8000.5, "8000.5", True, [], {}),
        *(2**63, str(2**63), -(2**63) - 1, "1e999999999", "1e99999999999999999999", "9" * 100_000),
    ],
)
def test_an_integer_refuses_other_values(value: Any) -> None:
    with pytest.raises(RefusedError, match="sampleRateHertz"):
        read_v2({"audioEncoding": "LINEAR16_PCM", "sampleRateHertz": value})


@pytest.mark.parametrize("content", [b"\xfb\xff\xfe", b"\xfb\xff\xfe\xff", b"\xfb\xff", bytes(range(256))])
@pytest.mark.parametrize("padded", [True, False])
def test_bytes_are_accepted_in_either_alphabet_with_or_without_padding(content: bytes, padded: bool) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(content).decode()
        _, read = read_v3(
            {"content": text if padded else text.rstrip("="), "recognitionModel": {**containers("WAV")}},
        )
        assert read == content


@pytest.mark.parametrize("text", ["a", "AAAAA", "AA AA", "AAAA\n", "я", "A=AA", 5, [], {}, True])
def test_bytes_refuse_other_values(text: Any) -> None:
    with pytest.raises(RefusedError, match="content"):
        read_v3({"content": text, "recognition_model": containers("WAV")})


def test_fields_are_accepted_in_snake_case_and_camel_case_only() -> None:
    camel = {"audioEncoding": "LINEAR16_PCM", "sampleRateHertz": 8000, "audioChannelCount": 2, "rawResults": True}
    snake = {"audio_encoding": 1, "sample_rate_hertz": "8000", "audio_channel_count": "2", "raw_results": True}
    assert read_v2({**camel, "literatureText": True}) == read_v2({**snake, "literature_text": True})
    assert read_v2({"AudioEncoding": "MP3", "AUDIO_ENCODING": 5, "audio_Encoding": 5}) == read_v2({})
    snake_v3 = {"uri": URI, "recognition_model": containers(2), "speech_analysis": {"enable_speaker_analysis": True}}
    camel_v3 = {
        "uri": URI,
        "recognitionModel": {"audioFormat": {"containerAudio": {"containerAudioType": 2}}},
        "speechAnalysis": {"enableSpeakerAnalysis": True},
    }
    assert read_v3(snake_v3) == read_v3(camel_v3)
    with pytest.raises(RefusedError, match="raw_results: the field is given twice"):
        read_v2({"rawResults": True, "raw_results": False})


def test_null_and_a_types_zero_mean_not_set() -> None:
    names = ("languageCode", "model", "audioEncoding", "sampleRateHertz", "audioChannelCount", "rawResults")
    plain = read_v2({})
    assert read_v2(dict.fromkeys(names)) == plain
    assert read_v2(dict(zip(names, ["", "", 0, 0, "0", False], strict=True))) == plain
    body = {"config": None, "audio": {"uri": URI}}
    assert v2.read_request(body, "b1g", Reading()) == plain
    raw_or_container = {"raw_audio": None, **containers(2)["audio_format"]}
    model = {"audio_format": raw_or_container, "language_restriction": None, "text_normalization": {}}
    nothing = {"content": None, "speaker_labeling": None, "recognition_classifier": {"classifiers": None}}
    assert read_v3({"uri": URI, "recognition_model": model, **nothing}) == read_v3(
        {"uri": URI, "recognition_model": containers(2)}
    )


@pytest.mark.parametrize(
    "message",
    [
        {"recognition_classifier": {"classifiers": [None]}},
        {"recognition_classifier": {"classifiers": [{"triggers": [None]}]}},
        {"recognition_model": {**containers(2), "language_restriction": {"language_code": ["ru-RU", None]}}},
    ],
)
def test_an_array_refuses_null(message: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="null"):
        read_v3({"uri": URI, "recognition_model": containers(2), **message})


@pytest.mark.parametrize("level", [0.5, 1, "0.5", "5e-1"])
def test_doubles_are_accepted_as_numbers_and_as_strings(level: Any) -> None:
    analysis = {"descriptive_statistics_quantiles": [level, 0]}
    read_v3({"uri": URI, "recognition_model": containers(2), "speech_analysis": analysis})


@pytest.mark.parametrize("level", ["NaN", "Infinity", "", "half", True, None, [0.5], "1e400"])
def test_a_double_refuses_other_values(level: Any) -> None:
    analysis = {"descriptive_statistics_quantiles": [level]}
    with pytest.raises(RefusedError, match="descriptive_statistics_quantiles"):
        read_v3({"uri": URI, "recognition_model": containers(2), "speech_analysis": analysis})


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_not_json(name: str) -> None:
    with pytest.raises(RefusedError, match="not JSON"):
        parsed(b'{"mood": ' + name.encode() + b"}")


def test_booleans_as_strings_are_tolerated_unless_strict() -> None:
    reading = Reading()
    request = read_v2({"literature_text": "true", "rawResults": "false"}, reading)
    assert (request.literature, request.normalised) == (True, True)
    assert [note.partition(":")[0] for note in reading.tolerated] == [
        "config.specification.literature_text",
        "config.specification.rawResults",
    ]
    with pytest.raises(RefusedError, match="must be a boolean"):
        read_v2({"literature_text": "true"}, Reading(strict=True))


@pytest.mark.parametrize("value", ["True", "TRUE", "yes", "1", "", 1, 0, [], {}])
def test_a_boolean_refuses_other_values(value: Any) -> None:
    with pytest.raises(RefusedError, match="literature_text: must be a boolean"):
        read_v2({"literature_text": value}, Reading())


@pytest.mark.parametrize("encoding", ["OGG_OPUS", "MP3"])
@pytest.mark.parametrize("count", [1, "1", 2])
def test_a_channel_count_for_a_container_is_tolerated_unless_strict(encoding: str, count: Any) -> None:
    reading = Reading()
    request = read_v2({"audioEncoding": encoding, "audioChannelCount": count}, reading)
    assert request.channels is None
    assert reading.tolerated == [f"audioChannelCount must not be specified for {encoding}"]
    with pytest.raises(RefusedError, match="must not be specified"):
        read_v2({"audioEncoding": encoding, "audioChannelCount": count}, Reading(strict=True))
