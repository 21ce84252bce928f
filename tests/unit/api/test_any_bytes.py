"""Whatever the service, IAM or the metadata service answer, nothing comes of it but a value or a typed error."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_speechkit.api.credentials import AuthorizedKey, read_token
from airflow_speechkit.api.exchange import read_refusal
from airflow_speechkit.api.http import Response
from airflow_speechkit.api.operation import (
    LARGE_BODY,
    Operation,
    OperationState,
    check_recognition,
    id_within,
    operation_of,
    read_operation,
)
from airflow_speechkit.errors import AnswerUnreadableError, ConnectionSettingsError, SpeechKitError
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from tests.unit.api.loopback import Carrier, ScriptedServer, answer, service_at

DEEP = 100_000
NESTED = b"[" * DEEP + b"]" * DEEP
EARLY, LATE = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"
#: In place of one value of an answer.
ODD = [
    NESTED,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    b"9" * 5000,
    b"-" + b"9" * 400,
    b"1e999",
    b"NaN",
    b"-Infinity",
    b'"' + b"9" * 5000 + b'"',
    b'"\\ud800"',
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\\u0000"',
    b"[]",
    b"{}",
    b"true",
    b"null",
    json.dumps(EARLY).encode(),
    json.dumps(LATE).encode(),
    b'"\n"',
    b"",
]
READERS: dict[str, tuple[Callable[[bytes], object], list[str]]] = {
    "operation": (
        read_operation,
        [
            '{"id":?}',
            '{"id":"e03abc","done":?}',
            '{"id":"e03abc","done":true,"response":?}',
            '{"id":"e03abc","done":true,"response":{"chunks":?}}',
            '{"id":"e03abc","createdAt":?,"modifiedAt":?}',
            '{"id":"e03abc","error":?}',
            '{"id":"e03abc","error":{"code":?,"message":?,"details":?}}',
            '{"id":"e03abc","description":?,"metadata":?}',
            "?",
            "?" + " " * LARGE_BODY + "{}",
            '{"id":"e03abc"}?' + " " * LARGE_BODY + "{}",
        ],
    ),
    "operation request for": (
        lambda body: operation_of(Response(200, {}, body), "e03abc"),
        ['{"id":?}', '{"id":"e03abc","done":?}'],
    ),
    "refusal": (read_refusal, ["?", '{"code":?,"message":?}', '{"error":?}', '{"error":{"grpcCode":?,"message":?}}']),
    "recognition": (
        lambda body: check_recognition(Response(200, {}, body), "e03abc"),
        ["?", '{"result":?}', '{"error":?}', '{"error":{"code":?,"message":?}}', '{"result":{}}{"result":{"final":?}}'],
    ),
    "IAM's token": (
        lambda body: read_token(body, 1.8e9),
        ["?", '{"iamToken":?,"expiresAt":"2026-11-22T10:00:00Z"}', '{"iamToken":"t1.x","expiresAt":?}'],
    ),
    "metadata's token": (
        lambda body: read_token(body, 1.8e9),
        ["?", '{"access_token":?,"expires_in":60}', '{"access_token":"t1.x","expires_in":?}'],
    ),
    "authorized key": (
        lambda body: AuthorizedKey.from_json(body.decode("utf-8", "surrogateescape")).jwt(1.8e9),
        ["?", '{"id":?,"service_account_id":?,"private_key":?}', '{"id":"a","service_account_id":"b","private_key":?}'],
    ),
}
CASES = [(name, template) for name, (_, templates) in READERS.items() for template in templates]


@pytest.mark.parametrize(("name", "template"), CASES)
def test_nothing_is_raised_but_typed_errors(name: str, template: str) -> None:
    read = READERS[name][0]
    for odd in ODD:
        for padding in (b"", b" " * LARGE_BODY):
            body = template.encode().replace(b"?", odd) + padding
            error = refusal_of(read, body)
            if error is not None:
                assert str(error).encode()
                # It holds what was read.
                assert not isinstance(error.__cause__ or error.__context__, json.JSONDecodeError)


def refusal_of(read: Callable[[bytes], object], body: bytes) -> SpeechKitError | None:
    try:
        read(body)
    except SpeechKitError as error:
        return error
    return None


@pytest.mark.parametrize("time", [EARLY, LATE, "yesterday", 5, None])
def test_a_time_that_is_none_counts_as_not_given(time: object) -> None:
    operation = read_operation(json.dumps({"id": "e03abc", "createdAt": time, "modifiedAt": time}).encode())
    assert (operation.created_at, operation.modified_at) == (None, None)


def test_what_is_inside_of_a_paid_result_does_not_keep_it_from_being_archived() -> None:
    for odd in (NESTED, b"9" * 5000, b'"\xff"', b"NaN"):
        raw = b'{"id":"e03abc","createdAt":"2026-11-22T10:00:00Z","done":true,"response":{"chunks":' + odd + b"}}"
        operation = read_operation(raw)
        assert (operation.state, operation.raw) == (OperationState.DONE, raw)
        assert operation.created_at == datetime(2026, 11, 22, 10, tzinfo=UTC)


def test_an_answer_about_another_operation_is_none() -> None:
    with pytest.raises(AnswerUnreadableError, match="another operation") as caught:
        operation_of(Response(200, {}, b'{"id":"e03other","done":true,"response":{}}'), "e03abc")
    assert caught.value.operation_id == "e03abc"


def test_a_long_number_beside_an_errors_code_does_not_hide_it() -> None:
    """By its code the service says that it has not accepted a submission."""
    assert read_refusal(b'{"code":13,"details":[{"n":18446744073709551615}]}').code == 13


@pytest.mark.parametrize("message", ["a\\ud800b", "a\\udfffb"])
def test_half_of_a_surrogate_pair_in_an_errors_message_is_replaced(message: str) -> None:
    raw = b'{"id":"e03abc","done":true,"error":{"code":3,"message":"%s"}}' % message.encode()
    assert read_operation(raw).error_message == "a\N{REPLACEMENT CHARACTER}b"
    assert read_refusal(b'{"code":3,"message":"%s"}' % message.encode()).message == "a\N{REPLACEMENT CHARACTER}b"


ACCEPTED: dict[str, bytes] = {
    "nested": b'{"id":"e03abc","done":' + NESTED + b"}",
    "of another type": b'{"done":"no","id":"e03abc"}',
    "cut off": b'{"createdAt":"2026-11-22T10:00:00Z","id":"e03abc","met',
    "no JSON": b'\xef\xbb\xbf{"done": false, "id" : "e03abc", "createdAt": 2026-11-22}',
    "an error that is none": b'{"id":"e03abc","error":"no"}',
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_the_id_in_an_accepted_submissions_answer_is_never_dropped(
    server: ScriptedServer, carry: Carrier, body: bytes
) -> None:
    server.script = [answer(200, body)]
    settings = RecognitionSettings(api_version="v3", audio_encoding="WAV")
    operation: Operation = carry(service_at(server.url).submit(settings, audio_uri="https://host/b/k.wav"))
    assert (operation.id, operation.state) == ("e03abc", OperationState.RUNNING)
    assert operation.api_version is ApiVersion.V3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'[{"id":"e03abc"}]',
        b'{"id":"e03',
        b'{"id":"e03abc","id":"e03xyz"',
        b'{"response":{"id":"e03abc"}',
        b'{"a":"\\",\\"id\\":\\"e03abc\\"',
        b'{"id":"../e03"',
        b'{"id":{"id":"e03abc"}',
        b'{"description":"}","id":"e03abc","met',
        b'{"metadata":{"id":"no"},"id":"e03abc","met',
        b'{"a":"b"","metadata":{"id":"e03abc"',
        b'{"a":"\\\\"id":"e03abc"',
        b'{"a":"' + b'\\"' * 30_000,
        b'<html>"id":"e03abc"',
        b'{"a":' + b" " * 100_000 + b'1,"id":"e03abc"',
    ],
)
def test_what_may_not_be_the_operations_id_is_not_taken_for_it(body: bytes) -> None:
    assert id_within(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"e03abc","metadata":{"id":"no"',
        b'{"done":false,"id":"e03abc","description":"x","createdAt":"20',
        b'\xef\xbb\xbf { "id" : "e03abc" , "a":[{"id":"no',
    ],
)
def test_the_operations_id_is_found_in_an_answer_that_is_cut_off(body: bytes) -> None:
    assert id_within(body) == "e03abc"


def test_a_public_key_in_place_of_the_private_one_is_refused() -> None:
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    key: dict[str, Any] = {"id": "ajek", "service_account_id": "ajes", "private_key": pem}
    with pytest.raises(ConnectionSettingsError, match="isn't a private RSA key"):
        AuthorizedKey.from_json(key).jwt(1.8e9)
