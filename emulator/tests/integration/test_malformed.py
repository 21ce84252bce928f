"""Invalid requests are refused in the service's form and counted, and never raise in a handler."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from speechkit_emulator.faults import FaultPlan
from speechkit_emulator.misbehaving import Misbehaviour, RequestLog
from speechkit_emulator.process import EmulatorProcess
from tests.caller import OGG_HEAD, Caller, transcript_of

V2 = "/speech/stt/v2/longRunningRecognize"
V3 = "/stt/v3/recognizeFileAsync"
STORAGE = "https://storage.yandexcloud.net"


@pytest.fixture(autouse=True)
def reset_counts(speechkit: EmulatorProcess) -> None:
    speechkit.clear_requests()


def refused(answer: Any, words: str = "") -> None:
    assert answer.status_code == 400, answer.text
    assert answer.headers["x-request-id"]
    body = answer.json()
    code = body["error"]["grpcCode"] if "error" in body else body["code"]
    assert code == 3
    assert words in answer.text


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("https://[bad", "not a link"),
        (f"{STORAGE}:99999999/recordings/k.ogg", "not a link"),
        (f"{STORAGE}:port/recordings/k.ogg", "not a link"),
        (f"{STORAGE}/a%20b/k.ogg", "bucket name is invalid"),
        (f"{STORAGE}/UPPER/k.ogg", "bucket name is invalid"),
        (f"{STORAGE}/../k.ogg", "bucket name is invalid"),
        (f"{STORAGE}/arn%3Aaws%3As3%3A%3A1%3Aaccesspoint%2Fx/k.ogg", "bucket name is invalid"),
        (f"{STORAGE}/recordings/\ud800.ogg", "not Unicode"),
        (f"{STORAGE}/recordings/%ED%A0%80.ogg", "not found"),
        (f"{STORAGE}/recordings/%00.ogg", "not found"),
        (f"{STORAGE}/recordings/{'k' * 1025}", "longer than 1024 bytes"),
        (f"{STORAGE}/recordings/{'я' * 513}", "longer than 1024 bytes"),
    ],
)
def test_a_link_without_an_object_is_refused(speechkit: EmulatorProcess, caller: Caller, link: str, words: str) -> None:
    refused(caller.submit(link), words)
    refused(caller.submit_v3(link), words)
    assert speechkit.requests() == {"submit": {"400": 2}}


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"model": ["x"]}, "model"),
        ({"model": {"a": 1}}, "model"),
        ({"model": []}, "model"),
        ({"model": "\ud800"}, "not Unicode"),
        ({"audioEncoding": ["x"]}, "audioEncoding"),
        ({"audioEncoding": {}}, "audioEncoding"),
        ({"audioEncoding": 4}, "audioEncoding"),
        ({"languageCode": ["x"]}, "language"),
        ({"languageCode": {}}, "language"),
        ({"audioEncoding": "LINEAR16_PCM", "sampleRateHertz": 8000, "audioChannelCount": 2**63}, "audioChannelCount"),
        ({"audioEncoding": "LINEAR16_PCM", "sampleRateHertz": 10**300}, "sampleRateHertz"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(
    speechkit: EmulatorProcess, caller: Caller, specification: dict[str, Any], words: str
) -> None:
    refused(caller.submit(speechkit.put("a.ogg", OGG_HEAD, transcript_of("hello")), **specification), words)
    assert speechkit.requests() == {"submit": {"400": 1}}


@pytest.mark.parametrize("path", [V2, V3, "/iam/v1/tokens"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a": ' * 200 + b"1" + b"}" * 200,
        b"\xff\xfe",
        b"1" * 5000,
        b'{"config": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"config": "\xed\xa0\x80"}',
    ],
)
def test_a_body_that_protobuf_does_not_read_is_refused(caller: Caller, path: str, body: bytes) -> None:
    refused(caller.ask("POST", path, body), "the body")


@pytest.mark.parametrize("planned", [False, True])
def test_a_body_that_does_not_match_its_content_encoding_is_refused(
    speechkit: EmulatorProcess, caller: Caller, planned: bool
) -> None:
    if planned:
        speechkit.fault(500, match="something else")
    refused(caller.ask("POST", V2, b"nonsense", Content_Encoding="gzip"), "not encoded")


def test_a_recording_that_is_not_base64_is_refused(caller: Caller) -> None:
    audio_format = {"container_audio": {"container_audio_type": "OGG_OPUS"}}
    for content in ("я", "a"):
        body = {"content": content, "recognition_model": {"audio_format": audio_format}}
        refused(caller.ask("POST", V3, body), "not base64")


def test_headers_that_are_not_unicode_are_refused(caller: Caller) -> None:
    url, good = caller.emulator.url, caller.authorization
    bad = {"Authorization": b"Bearer \xff\xfe"}
    assert caller.session.post(url + V2, data=b"{}", headers=bad, timeout=60).status_code == 401
    headers = {"Authorization": good, "x-folder-id": b"\xff\xfe"}
    refused(caller.session.post(url + V3, data=b"{}", headers=headers, timeout=60), "does not match")


@pytest.mark.parametrize(
    "transcript",
    [
        {"duration_ms": float("inf")},
        {"duration_ms": float("nan")},
        {"processing_s": float("nan")},
        {"processing_s": 1e300},
        {"channels": [{"utterances": [{"text": "\ud800"}]}]},
        {"channels": [{"utterances": [{"text": "a", "start_ms": float("inf"), "end_ms": float("inf")}]}]},
    ],
)
def test_an_invalid_transcript_fails_the_operation(
    speechkit: EmulatorProcess, caller: Caller, transcript: dict[str, Any]
) -> None:
    link = speechkit.put("a.ogg", OGG_HEAD, {"duration_ms": 1000, **transcript})
    operation = caller.finished(caller.submit(link).json()["id"])
    assert "can't use the recording's transcript" in operation["error"]["message"]


async def test_an_unexpected_exception_is_an_internal_error_and_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request: web.Request) -> web.Response:
        raise LookupError("unexpected")

    log = RequestLog()
    app = web.Application(middlewares=[Misbehaviour(FaultPlan(), log, lambda: 0.0).middleware])
    app.add_routes([web.get("/operations/1", broken, name="operation")])
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/operations/1")
        assert answer.status == 500
        assert answer.headers["x-request-id"]
        body = await answer.json()
    assert (body["code"], body["message"]) == (13, "Internal server error")
    assert log.to_json() == {"operation": {"500": 1}}
    assert "unexpected" in caplog.text
