"""Requests of API v3: settings, local files, and what is refused before anything is sent."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from airflow_speechkit.archive.ledger import fingerprint
from airflow_speechkit.errors import (
    RecordingError,
    SettingsError,
)
from airflow_speechkit.models import Recording
from airflow_speechkit.settings import V3_ONLY, ApiVersion, AudioEncoding, RecognitionSettings
from tests.fixtures.direct import Desk
from tests.integration.v3 import ASKED, submit, transform, wait


def wav(seconds: float = 1.0, rate: int = 8000) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(int(seconds * rate) * 2))
    return content.getvalue()


@contextmanager
def recorded_bodies(desk: Desk) -> Iterator[list[dict[str, Any]]]:
    """A proxy between the connection and the emulator; yields the bodies of POST requests."""
    bodies: list[dict[str, Any]] = []

    class Between(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(json.loads(body))
            headers = {"Authorization": self.headers["Authorization"], "Content-Type": "application/json"}
            request = urllib.request.Request(desk.emulator.url + self.path, body, headers)
            try:
                with urllib.request.urlopen(request) as response:
                    status, answer = response.status, response.read()
            except urllib.error.HTTPError as error:
                with error:
                    status, answer = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    desk.connect(host=f"http://127.0.0.1:{server.server_port}")
    try:
        yield bodies
    finally:
        desk.connect()
        server.shutdown()
        thread.join()
        server.server_close()


def test_all_settings_are_sent_under_the_services_names(desk: Desk) -> None:
    audio = desk.put("call.ogg")
    assert set(ASKED) == V3_ONLY
    with recorded_bodies(desk) as bodies:
        submit(audio, model="deferred-general:rc", profanity_filter=True, literature_text=True, **ASKED)
    assert bodies == [
        {
            "uri": f"{desk.emulator.storage_url}/{desk.bucket}/{desk.prefix}/call.ogg",
            "recognition_model": {
                "model": "deferred-general:rc",
                "audio_format": {"container_audio": {"container_audio_type": "OGG_OPUS"}},
                "text_normalization": {
                    "text_normalization": "TEXT_NORMALIZATION_ENABLED",
                    "profanity_filter": True,
                    "literature_text": True,
                    "phone_formatting_mode": "PHONE_FORMATTING_MODE_DISABLED",
                },
                "language_restriction": {"restriction_type": "WHITELIST", "language_code": ["en-US", "ru-RU"]},
                "audio_processing_type": "FULL_DATA",
            },
            "recognition_classifier": {
                "classifiers": [{"classifier": "insult", "triggers": ["ON_FINAL", "ON_UTTERANCE"]}]
            },
            "speech_analysis": {
                "enable_speaker_analysis": True,
                "enable_conversation_analysis": True,
                "descriptive_statistics_quantiles": [0.5, 0.95],
                "speaker_options": {"silence_threshold_ms": 700},
                "converstation_options": {
                    "simultaneous_silence_threshold_ms": 1500,
                    "simultaneous_speech_threshold_ms": 250,
                },
            },
            "speaker_labeling": {"speaker_labeling": "SPEAKER_LABELING_ENABLED"},
            "summarization": {
                "model_uri": "gpt://b1g0/yandexgpt",
                "properties": [
                    {"instruction": "What was promised?", "json_schema": {"schema": {"type": "object"}}},
                    {"instruction": "Who called?", "json_object": True},
                ],
            },
        }
    ]


def test_raw_samples_and_a_pbx_wav_are_sent_unchanged(desk: Desk) -> None:
    raw = desk.put("call.raw", bytes(16000), duration_ms=1000)
    boxed = desk.put("call.wav", wav(rate=11025))
    with recorded_bodies(desk) as bodies:
        submit(raw, audio_encoding="LINEAR16_PCM", sample_rate_hertz=8000, raw_results=True)
        submit(boxed)
    assert [body["recognition_model"]["audio_format"] for body in bodies] == [
        {
            "raw_audio": {"audio_encoding": "LINEAR16_PCM", "sample_rate_hertz": 8000, "audio_channel_count": 1},
        },
        {"container_audio": {"container_audio_type": "WAV"}},
    ]
    normalised = [body["recognition_model"]["text_normalization"]["text_normalization"] for body in bodies]
    assert normalised == ["TEXT_NORMALIZATION_DISABLED", "TEXT_NORMALIZATION_ENABLED"]


def test_a_small_local_file_is_sent_inline_and_paid_for_once(desk: Desk) -> None:
    call = desk.place / "звонок 1.wav"
    call.write_bytes(wav())
    with recorded_bodies(desk) as bodies:
        operation_id = submit(str(call), language="en-US")
        assert submit(str(call), language="en-US") == operation_id
    (body,) = bodies
    assert base64.b64decode(body["content"]) == wav()
    assert "uri" not in body
    wait(operation_id)
    (row,) = transform(desk, operation_id)["recognitions"]
    assert (row["audio_uri"], row["status"], row["utterances"]) == (call.as_uri(), "finished", 0)


def test_a_local_file_too_large_for_a_request_is_refused_before_anything_is_sent(desk: Desk) -> None:
    large = desk.place / "large.wav"
    samples = 46_000_000
    header = bytearray(wav(0.001))[:44]
    header[4:8], header[40:44] = (samples + 36).to_bytes(4, "little"), samples.to_bytes(4, "little")
    with large.open("wb") as file:
        file.write(header)
        file.truncate(44 + samples)
    with recorded_bodies(desk) as bodies, pytest.raises(RecordingError, match=r"too large.*large\.wav.*upload_to"):
        submit(str(large))
    assert bodies == []


@pytest.mark.parametrize("name", sorted(V3_ONLY))
def test_a_keyword_of_the_other_api_is_refused_by_name_before_anything_is_sent(desk: Desk, name: str) -> None:
    audio = desk.put()
    with pytest.raises(SettingsError, match=f"`{name}`.*API v3"):
        submit(audio, api_version="v2", **{name: ASKED[name]})
    assert desk.billed() == 0


def test_the_connections_api_version_is_used_and_downstream_tasks_need_none(desk: Desk) -> None:
    audio = desk.put()
    plain = submit(audio, api_version=None)
    extra = {"archive": desk.archive_url, "storage_host": desk.emulator.storage_url, "api_version": "v3"}
    desk.connect(extra=extra)
    ours = submit(audio, api_version=None, languages=["en-US"])
    both = wait([plain, ours])
    tables = transform(desk, both)
    assert {row["operation_id"]: row["api_version"] for row in tables["recognitions"]} == {plain: "v2", ours: "v3"}
    assert [row["text"] for row in tables["utterances"]] == ["Two words", "Two words"]


def mark_of(settings: RecognitionSettings) -> str:
    return fingerprint(Recording(audio_uri="s3://calls/1", version="etag", settings=settings))


def test_the_ledger_distinguishes_all_settings() -> None:
    base = {
        "api_version": ApiVersion.V3,
        "languages": ("ru-RU", "kk-KZ"),
        "speaker_analysis": True,
        "conversation_analysis": True,
    }
    others: dict[str, Any] = {
        **ASKED,
        "api_version": "v2",
        "language": "auto",
        "model": "general:rc",
        "profanity_filter": True,
        "literature_text": True,
        "raw_results": True,
        "speaker_analysis": False,
        "conversation_analysis": False,
        "language_restriction": "BLACKLIST",
    }
    marks = {"": mark_of(RecognitionSettings(**base))}
    for field in fields(RecognitionSettings):
        if field.name in ("audio_encoding", "sample_rate_hertz", "audio_channel_count"):
            continue
        changed = {**base, field.name: others[field.name]}
        if field.name == "language":
            # `languages` takes its place.
            del changed["languages"]
        settings = RecognitionSettings(**({"api_version": "v2"} if field.name == "api_version" else changed))
        marks[field.name] = mark_of(settings)
    # A container declares these, and its ETag identifies it.
    pcm = {**base, "audio_encoding": AudioEncoding.LINEAR16_PCM}
    for name, more in (
        ("audio_encoding", {"sample_rate_hertz": 8000}),
        ("sample_rate_hertz", {"sample_rate_hertz": 16000}),
        ("audio_channel_count", {"sample_rate_hertz": 16000, "audio_channel_count": 2}),
    ):
        marks[name] = mark_of(RecognitionSettings(**pcm, **more))
    assert len(set(marks.values())) == len(marks) == len(fields(RecognitionSettings)) + 1
