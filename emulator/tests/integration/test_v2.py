"""API v2 over HTTP."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.caller import OGG_HEAD, SAMPLES, Caller, first_sentence, quick, transcript_of

RESPONSE_TYPE = "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"


def test_a_submit_answer_has_the_services_shape(speechkit: EmulatorProcess, caller: Caller) -> None:
    answer = caller.submit(speechkit.put("a.ogg", OGG_HEAD, transcript_of("hello")))
    assert answer.status_code == 200
    assert list(answer.json()) == ["done", "id", "createdAt", "createdBy", "modifiedAt"]
    operation = answer.json()
    assert operation["done"] is False
    assert operation["id"].startswith("e03")
    assert len(operation["id"]) == 20
    assert operation["createdBy"].startswith("aje")
    assert operation["createdAt"] == operation["modifiedAt"]
    assert answer.headers["x-request-id"]
    assert answer.headers["x-server-trace-id"]


def test_a_finished_operation_has_the_services_shape(speechkit: EmulatorProcess, caller: Caller) -> None:
    utterance = {
        "text": "twenty one",
        "normalized_text": "21",
        "words": [
            {"word": "twenty", "start_ms": 0, "end_ms": 20},
            {"word": "one", "start_ms": 3000, "end_ms": 10179},
        ],
    }
    link = speechkit.put("b.ogg", OGG_HEAD, {"duration_ms": 11000, "channels": [{"utterances": [utterance]}]})
    operation = caller.finished(caller.submit(link).json()["id"])
    assert list(operation) == ["done", "response", "id", "createdAt", "createdBy", "modifiedAt"]
    word = {"startTime": "0s", "endTime": "0.020s", "word": "twenty", "confidence": 1}
    other = {"startTime": "3s", "endTime": "10.179s", "word": "one", "confidence": 1}
    alternative = {"words": [word, other], "text": "21", "confidence": 1}
    expected = {"@type": RESPONSE_TYPE, "chunks": [{"alternatives": [alternative], "channelTag": "1"}]}
    assert json.dumps(operation["response"]) == json.dumps(expected)


def test_raw_results_spell_out_numbers(speechkit: EmulatorProcess, caller: Caller) -> None:
    utterance = {"text": "twenty one", "normalized_text": "21", "end_ms": 900}
    link = speechkit.put("c.ogg", OGG_HEAD, {"duration_ms": 900, "channels": [{"utterances": [utterance]}]})
    operation = caller.finished(caller.submit(link, rawResults=True).json()["id"])
    assert operation["response"]["chunks"][0]["alternatives"][0]["text"] == "twenty one"


def test_silence_has_no_chunks(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("silence.ogg", OGG_HEAD, {"duration_ms": 2000, "channels": []})
    operation = caller.finished(caller.submit(link).json()["id"])
    assert operation["response"] == {"@type": RESPONSE_TYPE}


def test_an_utterance_can_have_no_words(speechkit: EmulatorProcess, caller: Caller) -> None:
    utterance = {"text": "hello", "words": None, "end_ms": 900}
    link = speechkit.put("d.ogg", OGG_HEAD, {"duration_ms": 900, "channels": [{"utterances": [utterance]}]})
    operation = caller.finished(caller.submit(link).json()["id"])
    assert list(operation["response"]["chunks"][0]["alternatives"][0]) == ["text", "confidence"]


def test_an_operation_is_not_done_before_the_service_would_be_done(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("long.ogg", OGG_HEAD, transcript_of("hello", duration_ms=3_600_000))
    operation_id = caller.submit(link).json()["id"]
    running = caller.ask("GET", f"/operations/{operation_id}").json()
    assert list(running) == ["done", "id", "createdAt", "createdBy", "modifiedAt"]
    assert running["done"] is False
    speechkit.advance(600)
    operation = caller.finished(operation_id)
    assert operation["modifiedAt"] > operation["createdAt"]


def test_a_deferred_model_takes_longer(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("deferred.ogg", OGG_HEAD, transcript_of("hello", processing_s=5000))
    operation_id = caller.submit(link, model="deferred-general").json()["id"]
    assert not caller.ask("GET", f"/operations/{operation_id}").json()["done"]
    speechkit.advance(5000)
    assert caller.finished(operation_id)["done"]


def test_an_operation_fails_with_the_error_of_its_transcript(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("e.ogg", OGG_HEAD, transcript_of(error={"code": 3, "message": "too noisy"}))
    operation = caller.finished(caller.submit(link).json()["id"])
    assert operation["error"] == {"code": 3, "message": "too noisy"}
    assert "response" not in operation


def test_other_languages_need_a_transcript(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put('ru/"1".ogg', (SAMPLES / "message.ogg").read_bytes())
    error = caller.finished(caller.submit(link, languageCode="ru-RU").json()["id"])["error"]
    assert error["code"] == 9
    assert 'no transcript for s3://recordings/ru/"1".ogg: the emulator recognises en-US only' in error["message"]
    assert 's3://recordings/ru/"1".ogg.transcript.json' in error["message"]
    assert r'{"key": "ru/\"1\".ogg", "transcript": {…}} to /emulator/transcripts' in error["message"]
    link = speechkit.put('ru/"1".ogg', (SAMPLES / "message.ogg").read_bytes(), transcript_of("добрый день"))
    operation = caller.finished(caller.submit(link, languageCode="ru-RU").json()["id"])
    assert operation["response"]["chunks"][0]["alternatives"][0]["text"] == "Добрый день"


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"audioEncoding": "WAV"}, "audioEncoding"),
        ({"audioEncoding": "LINEAR16_PCM"}, "sampleRateHertz is required"),
        ({"audioEncoding": "LINEAR16_PCM", "sampleRateHertz": 44100}, "44100"),
        ({"audioEncoding": "LINEAR16_PCM", "sampleRateHertz": 8000, "audioChannelCount": -1}, "audioChannelCount"),
        ({"languageCode": "xx-XX"}, "language"),
        ({"model": "hqa"}, "model"),
        ({"profanityFilter": "yes"}, "profanityFilter"),
        ({"sampleRateHertz": "many"}, "sampleRateHertz"),
        ({"audioEncoding": "MP3"}, "mp3 header"),
    ],
)
def test_an_invalid_submit_is_refused(
    speechkit: EmulatorProcess, caller: Caller, specification: dict[str, Any], words: str
) -> None:
    answer = caller.submit(speechkit.put("rules.ogg", OGG_HEAD, transcript_of("hello")), **specification)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert words in answer.json()["message"]


def test_unknown_fields_are_ignored_and_numbers_can_be_strings(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("f.ogg", OGG_HEAD, transcript_of("hello"))
    specification = {"languageCode": "EN-us", "sampleRateHertz": "48000", "mood": "good"}
    body = {"folderId": "whatever", "config": {"specification": specification}, "audio": {"uri": link}}
    answer = caller.ask("POST", "/speech/stt/v2/longRunningRecognize", body)
    assert answer.status_code == 200, answer.text


def test_requests_of_many_clients_are_tolerated_and_logged(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("noted.mp3", b"ID3", transcript_of("hello"))
    speechkit.clear_requests()
    answer = caller.submit(link, audioEncoding="MP3", audioChannelCount="1", literature_text="true")
    assert answer.status_code == 200, answer.text
    operation = caller.finished(answer.json()["id"])
    assert operation["response"]["chunks"][0]["alternatives"][0]["text"] == "Hello."
    assert caller.submit(link, audioEncoding="MP3").status_code == 200
    noted = [entry.get("tolerated") for entry in speechkit.request_log() if entry["kind"] == "submit"]
    assert noted == [
        [
            "config.specification.literature_text: must be a boolean, not a string",
            "audioChannelCount must not be specified for MP3",
        ],
        None,
    ]


def test_a_strict_emulator_refuses_what_is_otherwise_tolerated() -> None:
    with quick("--strict") as strict:
        caller = Caller(strict)
        link = strict.put("a.ogg", OGG_HEAD, transcript_of("hello"))
        for specification in ({"audioChannelCount": 1}, {"rawResults": "false"}):
            assert caller.submit(link, **specification).status_code == 400
        assert caller.submit_v3(link, speech_analysis={"enable_speaker_analysis": "true"}).status_code == 400
        assert strict.billing() == []
        assert caller.submit(link, rawResults=True).status_code == 200
        caller.session.close()


def test_only_the_folder_of_the_service_account_is_accepted(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("g.ogg", OGG_HEAD, transcript_of("hello"))
    own = speechkit.credentials()["folder_id"]
    for folder, status in ((own, 200), ("b1gother", 400)):
        body = {"config": {"specification": {}, "folderId": folder}, "audio": {"uri": link}}
        answer = caller.ask("POST", "/speech/stt/v2/longRunningRecognize", body)
        assert answer.status_code == status
    assert "does not match with service account folder ID" in answer.json()["message"]


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b'{"audio": {}}', b'{"audio": []}', b'{"config": 5}'])
def test_a_body_that_is_not_a_request_is_refused(caller: Caller, body: bytes) -> None:
    answer = caller.ask("POST", "/speech/stt/v2/longRunningRecognize", body)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3


def test_a_missing_recording_another_host_or_a_wrong_container_is_refused(
    speechkit: EmulatorProcess, caller: Caller
) -> None:
    here = f"https://storage.yandexcloud.net/{speechkit.bucket}"
    wav = speechkit.put("wav-called.ogg", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40))
    empty = speechkit.put("empty.ogg", b"")
    for link, words in (
        (f"{here}/nowhere.ogg", "not found"),
        ("https://storage.yandexcloud.net/no-such-bucket/a.ogg", "not found"),
        ("https://example.com/a.ogg", "only links to Object Storage"),
        (wav, "ogg header has not been found"),
        (empty, "ogg header has not been found"),
    ):
        answer = caller.submit(link)
        assert answer.status_code == 400, link
        assert words in answer.json()["message"]


def test_a_recording_is_refused_if_its_channels_exceed_four_hours(speechkit: EmulatorProcess, caller: Caller) -> None:
    two_and_a_half_hours = 9_000_000
    mono = speechkit.put("h1.ogg", OGG_HEAD, transcript_of("a", duration_ms=two_and_a_half_hours, processing_s=0))
    stereo = speechkit.put(
        "h2.ogg", OGG_HEAD, transcript_of("a", "b", duration_ms=two_and_a_half_hours, processing_s=0)
    )
    silent = {**transcript_of("a", duration_ms=two_and_a_half_hours, processing_s=0)}
    silent["channels"].append({"utterances": []})
    assert caller.submit(mono).status_code == 200
    assert caller.submit(stereo).status_code == 400
    assert caller.submit(speechkit.put("h3.ogg", OGG_HEAD, silent)).status_code == 400


def test_a_silent_channel_takes_time_and_is_billed(speechkit: EmulatorProcess, caller: Caller) -> None:
    transcript = transcript_of("hello", duration_ms=600_000)
    transcript["channels"] += [{"utterances": []}, {"utterances": []}]
    operation_id = caller.submit(speechkit.put("silent.ogg", OGG_HEAD, transcript)).json()["id"]
    speechkit.advance(300)
    operation = caller.finished(operation_id)
    # Ten minutes of one channel take a hundred seconds, of three channels three hundred.
    created, ended = (datetime.fromisoformat(operation[name]) for name in ("createdAt", "modifiedAt"))
    assert (ended - created).total_seconds() == 300
    (line,) = [line for line in speechkit.billing() if line["operation_id"] == operation_id]
    assert (line["channels"], line["billed_seconds"]) == (3, 1200)


def test_links_can_have_either_style_and_any_query(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.put("dir/a b+c.ogg", OGG_HEAD, transcript_of("hello"))
    speechkit.put("/slash.ogg", OGG_HEAD, transcript_of("hello"))
    for link in (
        f"https://storage.yandexcloud.net/{speechkit.bucket}/dir/a%20b%2Bc.ogg?X-Amz-Signature=secret",
        f"https://{speechkit.bucket}.storage.yandexcloud.net/dir/a%20b+c.ogg",
        f"{speechkit.storage_url}/{speechkit.bucket}/dir/a%20b%2bc.ogg",
        f"https://storage.yandexcloud.net/{speechkit.bucket}//slash.ogg",
        f"https://{speechkit.bucket}.storage.yandexcloud.net//slash.ogg",
    ):
        assert caller.submit(link).status_code == 200, link
    assert "secret" not in json.dumps(speechkit.billing())


def test_a_recording_damaged_after_its_header_fails_and_is_not_billed(
    speechkit: EmulatorProcess, caller: Caller
) -> None:
    link = speechkit.put("broken.ogg", OGG_HEAD)
    operation_id = caller.submit(link).json()["id"]
    assert caller.finished(operation_id)["error"]["code"] == 13
    (line,) = [line for line in speechkit.billing() if line["operation_id"] == operation_id]
    assert (line["state"], line["billed_seconds"]) == ("failed", 0)


def test_each_channel_of_a_call_is_recognised(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("doctor.ogg", (SAMPLES / "doctor.ogg").read_bytes())
    operation_id = caller.submit(link).json()["id"]
    chunks = caller.finished(operation_id)["response"]["chunks"]
    texts = {tag: " ".join(_texts(chunks, tag)).lower() for tag in ("1", "2")}
    assert "what time would you like to come" in texts["1"]
    assert "i can come on thursday after work" in texts["2"]
    for chunk in chunks:
        (alternative,) = chunk["alternatives"]
        assert len(alternative["words"]) == len(alternative["text"].split())
        assert alternative["words"][0]["startTime"].endswith("s")
    (line,) = [line for line in speechkit.billing() if line["operation_id"] == operation_id]
    assert (line["channels"], line["billed_seconds"], line["state"]) == (2, 15, "done")
    assert line["duration_ms"] == pytest.approx(13175, abs=30)


def _texts(chunks: list[dict[str, Any]], tag: str) -> list[str]:
    return [chunk["alternatives"][0]["text"] for chunk in chunks if chunk["channelTag"] == tag]


def test_mp3_and_raw_pcm_are_recognised(speechkit: EmulatorProcess, caller: Caller) -> None:
    mp3 = speechkit.put("station.mp3", (SAMPLES / "station.mp3").read_bytes())
    operation = caller.finished(caller.submit(mp3, audioEncoding="MP3").json()["id"])
    assert "we are coming by train" in " ".join(_texts(operation["response"]["chunks"], "2")).lower()
    pcm = speechkit.put("message.pcm", first_sentence(48000))
    operation_id = caller.submit_pcm(pcm, 48000).json()["id"]
    assert "message for" in " ".join(_texts(caller.finished(operation_id)["response"]["chunks"], "1")).lower()
    (line,) = [line for line in speechkit.billing() if line["operation_id"] == operation_id]
    assert line["billed_seconds"] == 15


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_operation_can_be_cancelled_by_get_and_by_post(
    speechkit: EmulatorProcess, caller: Caller, method: str
) -> None:
    link = speechkit.put("cancel.ogg", OGG_HEAD, transcript_of("hello", processing_s=100_000))
    operation_id = caller.submit(link).json()["id"]
    answer = caller.ask(method, f"/operations/{operation_id}:cancel")
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] == 1
    assert caller.finished(operation_id)["error"]["code"] == 1
    assert speechkit.billing()[-1]["state"] == "cancelled"


def test_cancelling_a_finished_operation_changes_nothing(speechkit: EmulatorProcess, caller: Caller) -> None:
    operation_id = caller.submit(speechkit.put("a.ogg", OGG_HEAD, transcript_of("hello"))).json()["id"]
    caller.finished(operation_id)
    assert "response" in caller.ask("POST", f"/operations/{operation_id}:cancel").json()


def test_an_unknown_operation_is_not_found(caller: Caller) -> None:
    for method, path in (("GET", "/operations/e03nothing"), ("POST", "/operations/e03nothing:cancel")):
        answer = caller.ask(method, path)
        assert answer.status_code == 404
        assert answer.json()["code"] == 5


def test_an_operation_is_not_found_after_three_days(speechkit: EmulatorProcess, caller: Caller) -> None:
    operation_id = caller.submit(speechkit.put("a.ogg", OGG_HEAD, transcript_of("hello"))).json()["id"]
    caller.finished(operation_id)
    speechkit.advance(3 * 24 * 3600 - 3600)
    assert caller.ask("GET", f"/operations/{operation_id}").status_code == 200
    speechkit.advance(3600)
    assert caller.ask("GET", f"/operations/{operation_id}").status_code == 404
    (line,) = [line for line in speechkit.billing() if line["operation_id"] == operation_id]
    assert (line["state"], line["forgotten"]) == ("done", True)


def test_unknown_paths_and_methods_are_not_found(caller: Caller) -> None:
    assert caller.ask("GET", "/nothing").status_code == 404
