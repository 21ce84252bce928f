"""Transcripts that a test seeds for recordings whose key, or whose language, leaves no other way."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any

import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.caller import OGG_HEAD, Caller, said, wav

RUSSIAN = {"utterances": [{"text": "добрый день"}]}


@pytest.fixture(autouse=True)
def nothing_seeded(speechkit: EmulatorProcess) -> Iterator[None]:
    yield
    speechkit.clear_seeds()


def texts(operation: dict[str, Any]) -> list[str]:
    return [chunk["alternatives"][0]["text"] for chunk in operation["response"].get("chunks", [])]


def submit_inline(caller: Caller, content: bytes, language: str = "ru-RU") -> str:
    model = {
        "audio_format": {"container_audio": {"container_audio_type": "WAV"}},
        "language_restriction": {"restriction_type": "WHITELIST", "language_code": [language]},
    }
    body = {"content": base64.b64encode(content).decode(), "recognition_model": model}
    answer = caller.ask("POST", "/stt/v3/recognizeFileAsync", body)
    assert answer.status_code == 200, answer.text
    operation_id: str = answer.json()["id"]
    caller.finished(operation_id)
    return operation_id


def test_russian_is_answered_under_a_key_that_the_client_chooses(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.seed(RUSSIAN, glob="uploads/*")
    link = speechkit.put(f"uploads/{uuid.uuid4()}", OGG_HEAD)
    assert texts(caller.finished(caller.submit(link, languageCode="ru-RU").json()["id"])) == ["Добрый день"]
    assert [seed["used"] for seed in speechkit.seeds()] == [1]


def test_a_recording_s_content_can_choose_its_transcript(speechkit: EmulatorProcess, caller: Caller) -> None:
    content = wav(bytes(32000))
    speechkit.seed(RUSSIAN, sha256=sha256(content).hexdigest())
    assert "добрый день" in str(caller.stream(submit_inline(caller, content)))
    link = speechkit.put("any.wav", content)
    answer = caller.submit_v3(link, "WAV")
    caller.finished(answer.json()["id"])
    assert "добрый день" in str(caller.stream(answer.json()["id"]))


def test_the_next_submit_and_only_that_one_gets_it(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.seed({})
    assert caller.stream(submit_inline(caller, wav(bytes(32000)))) == []
    failed = submit_inline(caller, wav(bytes(32000)))
    error = caller.finished(failed)["error"]
    assert error["code"] == 9
    assert '{"sha256": "…", "transcript": {…}} to /emulator/transcripts' in error["message"]


def test_a_seed_counts_before_the_transcript_beside_the_recording(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("both.ogg", OGG_HEAD, said("beside"))
    speechkit.seed({"duration_ms": 1000, **RUSSIAN}, key="both.ogg")
    assert texts(caller.finished(caller.submit(link).json()["id"])) == ["Добрый день"]


def test_what_is_wrong_with_a_seed_is_said(speechkit: EmulatorProcess) -> None:
    with pytest.raises(RuntimeError, match=r"400 .*there is no utterance; there are"):
        speechkit.seed({"utterance": []})


@pytest.mark.parametrize("beside", [True, False])
def test_a_transcript_of_more_channels_than_the_recording_has_fails_its_operation(
    speechkit: EmulatorProcess, caller: Caller, beside: bool
) -> None:
    transcript = {"channels": [{"utterances": [{"text": "a"}]}, {"utterances": [{"text": "b"}]}]}
    link = speechkit.put("mono.wav", wav(bytes(32000)), transcript if beside else None)
    if not beside:
        speechkit.seed(transcript, key="mono.wav")
    operation = caller.finished(caller.submit_v3(link, "WAV").json()["id"])
    assert "it has 2 channels, and the recording has 1" in operation["error"]["message"]


@pytest.mark.parametrize(("unknown", "expected"), [("silence", []), ("так точно", ["Так точно"])])
def test_what_is_said_in_an_unknown_language_can_be_set_for_all(unknown: str, expected: list[str]) -> None:
    with EmulatorProcess(f"--unknown-language={unknown}", speed=600) as emulator:
        caller = Caller(emulator)
        try:
            link = emulator.put("ru.ogg", OGG_HEAD)
            assert texts(caller.finished(caller.submit(link, languageCode="ru-RU").json()["id"])) == expected
        finally:
            caller.session.close()


def test_date_is_on_the_clock_of_created_at(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.advance(30 * 24 * 3600)
    answer = caller.submit(speechkit.put("date.ogg", OGG_HEAD, said("hello")))
    created = datetime.fromisoformat(answer.json()["createdAt"])
    # On this clock an answer that takes a second of the machine takes ten minutes.
    assert timedelta(0) <= parsedate_to_datetime(answer.headers["Date"]) - created < timedelta(days=1)
