"""Transcripts that are seeded by control request."""

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
from tests.caller import OGG_HEAD, Caller, transcript_of, wav

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


def test_a_seed_for_a_glob_gives_a_russian_answer(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.seed(RUSSIAN, glob="uploads/*")
    link = speechkit.put(f"uploads/{uuid.uuid4()}", OGG_HEAD)
    assert texts(caller.finished(caller.submit(link, languageCode="ru-RU").json()["id"])) == ["Добрый день"]
    assert [seed["used"] for seed in speechkit.seeds()] == [1]


def test_a_seed_for_a_hash_matches_the_recordings_content(speechkit: EmulatorProcess, caller: Caller) -> None:
    content = wav(bytes(32000))
    speechkit.seed(RUSSIAN, sha256=sha256(content).hexdigest())
    assert "добрый день" in str(caller.stream(submit_inline(caller, content)))
    link = speechkit.put("any.wav", content)
    answer = caller.submit_v3(link, "WAV")
    caller.finished(answer.json()["id"])
    assert "добрый день" in str(caller.stream(answer.json()["id"]))


def test_a_seed_without_a_selector_is_for_the_next_submit_only(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.seed({})
    assert caller.stream(submit_inline(caller, wav(bytes(32000)))) == []
    failed = submit_inline(caller, wav(bytes(32000)))
    error = caller.finished(failed)["error"]
    assert error["code"] == 9
    assert '{"sha256": "…", "transcript": {…}} to /emulator/transcripts' in error["message"]


def test_a_seed_takes_precedence_over_the_transcript_beside_the_recording(
    speechkit: EmulatorProcess, caller: Caller
) -> None:
    link = speechkit.put("both.ogg", OGG_HEAD, transcript_of("beside"))
    speechkit.seed({"duration_ms": 1000, **RUSSIAN}, key="both.ogg")
    assert texts(caller.finished(caller.submit(link).json()["id"])) == ["Добрый день"]


def test_the_error_for_an_invalid_seed_names_the_field(speechkit: EmulatorProcess) -> None:
    with pytest.raises(RuntimeError, match=r"400 .*unknown field utterance; known fields: "):
        speechkit.seed({"utterance": []})


@pytest.mark.parametrize("beside", [True, False])
def test_a_transcript_with_more_channels_than_the_recording_fails_the_operation(
    speechkit: EmulatorProcess, caller: Caller, beside: bool
) -> None:
    transcript = {"channels": [{"utterances": [{"text": "a"}]}, {"utterances": [{"text": "b"}]}]}
    link = speechkit.put("mono.wav", wav(bytes(32000)), transcript if beside else None)
    if not beside:
        speechkit.seed(transcript, key="mono.wav")
    operation = caller.finished(caller.submit_v3(link, "WAV").json()["id"])
    assert "it has 2 channels, and the recording has 1" in operation["error"]["message"]


@pytest.mark.parametrize(("unknown", "expected"), [("silence", []), ("так точно", ["Так точно"])])
def test_the_answer_for_unknown_languages_can_be_set(unknown: str, expected: list[str]) -> None:
    with EmulatorProcess(f"--unknown-language={unknown}", speed=600) as emulator:
        caller = Caller(emulator)
        try:
            link = emulator.put("ru.ogg", OGG_HEAD)
            assert texts(caller.finished(caller.submit(link, languageCode="ru-RU").json()["id"])) == expected
        finally:
            caller.session.close()


def test_the_date_header_is_in_service_time(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.advance(30 * 24 * 3600)
    answer = caller.submit(speechkit.put("date.ogg", OGG_HEAD, transcript_of("hello")))
    created = datetime.fromisoformat(answer.json()["createdAt"])
    # On this clock an answer that takes a second of the machine takes ten minutes.
    assert timedelta(0) <= parsedate_to_datetime(answer.headers["Date"]) - created < timedelta(days=1)
