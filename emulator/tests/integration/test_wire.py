"""Answers on the wire: JSON form, length, request ids, and clients of other HTTP versions."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from speechkit_emulator.process import EmulatorProcess
from tests.caller import OGG_HEAD, Caller, transcript_of

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}


def is_compact(text: str) -> bool:
    return text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))


def test_response_bodies_are_compact_json(speechkit: EmulatorProcess, caller: Caller) -> None:
    link = speechkit.put("a.ogg", OGG_HEAD, transcript_of("добрый день", processing_s=5000))
    v2, v3 = caller.submit(link), caller.submit_v3(link)
    running = caller.ask("GET", f"/operations/{v2.json()['id']}")
    speechkit.advance(5000)
    done = [caller.ask("GET", f"/operations/{answer.json()['id']}") for answer in (v2, v3)]
    stream = caller.ask("GET", f"/stt/v3/getRecognition?operation_id={v3.json()['id']}")
    token = caller.ask(
        "GET", "/computeMetadata/v1/instance/service-accounts/default/token", **{"Metadata-Flavor": "Google"}
    )
    errors = [caller.ask("GET", path) for path in ("/operations/e03", "/stt/v3/getRecognition?operation_id=f8d", "/x")]
    for answer in (v2, v3, running, *done, token, *errors):
        assert is_compact(answer.text), answer.text
    assert "response" in done[0].json()
    assert stream.text.splitlines()
    assert all(is_compact(line) for line in stream.text.splitlines())


@pytest.mark.parametrize("transcript", [transcript_of("hello"), transcript_of("hello") | {"channels": []}])
@pytest.mark.parametrize("fault", [None, "pretty"])
def test_a_v3_result_has_no_content_length(
    speechkit: EmulatorProcess, caller: Caller, transcript: dict[str, Any], fault: str | None
) -> None:
    operation_id = caller.submit_v3(speechkit.put("a.ogg", OGG_HEAD, transcript)).json()["id"]
    caller.finished(operation_id)
    if fault:
        speechkit.fault(fault)
    answer = caller.ask("GET", f"/stt/v3/getRecognition?operation_id={operation_id}")
    assert answer.status_code == 200
    assert "Content-Length" not in answer.headers
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert bool(answer.content) == bool(transcript["channels"])


def test_a_v3_result_can_be_cut_and_can_be_read_by_an_http_1_0_client(
    speechkit: EmulatorProcess, caller: Caller
) -> None:
    operation_id = caller.submit_v3(speechkit.put("a.ogg", OGG_HEAD, transcript_of("hello"))).json()["id"]
    caller.finished(operation_id)
    path = f"/stt/v3/getRecognition?operation_id={operation_id}"
    speechkit.fault("cut", on="recognition", keep=0.5)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        caller.ask("GET", path)
    whole = caller.ask("GET", path).content
    head, _, body = talk(
        speechkit.url, f"GET {path} HTTP/1.0\r\nAuthorization: {caller.authorization}\r\n\r\n".encode()
    ).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == whole


@pytest.mark.parametrize("planned", [True, False])
def test_an_error_contains_the_id_of_its_request(speechkit: EmulatorProcess, caller: Caller, planned: bool) -> None:
    if planned:
        speechkit.fault(503, on="operation", times=2)
    ids = set()
    for _ in range(2):
        answer = caller.ask("GET", "/operations/e03")
        (detail,) = answer.json()["details"]
        assert detail["requestId"] == answer.headers["x-request-id"]
        ids.add(detail["requestId"])
    assert len(ids) == 2


def talk(url: str, sent: bytes) -> bytes:
    """The answer until the connection is closed."""
    parts = urlsplit(url)
    assert parts.hostname
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=60) as connection:
        connection.sendall(sent)
        answer = b""
        while received := connection.recv(65536):
            answer += received
    return answer


def test_a_client_that_offers_http_2_gets_an_http_1_1_answer(speechkit: EmulatorProcess, caller: Caller) -> None:
    connection = http.client.HTTPConnection(urlsplit(speechkit.url).netloc, timeout=60)
    authorization = {"Authorization": caller.authorization}
    for headers in ({**authorization, **UPGRADE}, authorization):
        connection.request("POST", "/speech/stt/v2/longRunningRecognize", b'{"audio": {}}', headers)
        answer = connection.getresponse()
        assert (answer.status, answer.version) == (400, 11)
        assert b"audio.uri is required" in answer.read()
    connection.close()


def test_a_request_that_is_not_http_1_is_refused_and_logged_in_one_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "speechkit_emulator", "--port=0", "--storage-port=0", "--recognisers=1", "--no-warm"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        for sent in (HTTP2, b"\xff\xfe\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nsecret key: 1\r\n\r\n"):
            assert b" 400 Bad Request" in talk(ready["speechkit"], sent)
        assert b"505" in talk(ready["storage"], HTTP2)
        process.send_signal(signal.SIGTERM)
        _, said_in_log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"Traceback" not in said_in_log
    assert b"A client does not speak HTTP/1.1: " in said_in_log
    assert b"secret" not in said_in_log
