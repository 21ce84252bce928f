from __future__ import annotations

import json

import pytest

from airflow_speechkit.api.exchange import read_refusal, refused
from airflow_speechkit.api.http import Request, Response
from airflow_speechkit.errors import (
    AuthenticationError,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RefusedError,
    ServiceFaultError,
    SpeechKitError,
)
from airflow_speechkit.redaction import without_secrets

STATUS = {"code": 16, "message": "Token is invalid or has expired.", "details": []}


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (STATUS, 16, "Token is invalid or has expired."),
        ({"error": {"grpcCode": 8, "httpCode": 429, "message": "quota", "details": []}}, 8, "quota"),
        ({"error": {"grpcCode": 5, "message": "operation data is not ready"}}, 5, "operation data is not ready"),
        ({"error_code": "BAD_REQUEST", "error_message": "too long"}, None, "too long"),
        ({"code": 3}, 3, None),
        ([1], None, None),
        ("text", None, None),
    ],
)
def test_each_form_of_an_errors_body_is_read(body: object, code: int | None, message: str | None) -> None:
    found = read_refusal(json.dumps(body).encode())
    assert (found.code, found.message) == (code, message)


@pytest.mark.parametrize("body", [b"", b"<html><h1>502</h1></html>", b"\xff\xfe", b'{"code":'])
def test_a_body_that_the_service_did_not_write_is_ignored(body: bytes) -> None:
    assert read_refusal(body).message is None


@pytest.mark.parametrize(
    "secret",
    [
        "AQVNabcdefghijklmnop",
        "t1.9euelZqabcdefgh.abcdefghijkl",
        "eyJhbGciOiJQUzI1NiJ9.eyJpc3MiOiJh.c2ln",
        "y0_AgAAAABhunter2hunter2hunter2",
        "YCAJEhunter2hunter2hunter2hunter2",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
    ],
)
def test_secrets_are_taken_out_of_the_services_texts(secret: str) -> None:
    assert secret not in without_secrets(f"Unknown api key '{secret}' (CE9D1A49)")
    assert "CE9D1A49" in without_secrets(f"Unknown api key '{secret}' (CE9D1A49)")


def test_the_query_of_a_link_is_taken_out() -> None:
    text = without_secrets("no such object https://storage.yandexcloud.net/b/k.ogg?X-Amz-Signature=hunter2 !")
    assert text == "no such object https://storage.yandexcloud.net/b/k.ogg !"


def error_of(status: int, body: object = STATUS, *, submission: bool = False, **more: str) -> RefusedError:
    request = Request(method="POST", url="https://s", purpose="the submission", is_submission=submission)
    headers = {"x-request-id": "rq", "x-server-trace-id": "tr", **more}
    return refused(request, Response(status, headers, json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("status", "kind", "retry_can_help"),
    [
        (400, RefusedError, False),
        (401, AuthenticationError, False),
        (403, PermissionDeniedError, False),
        (404, OperationNotFoundError, False),
        (409, RefusedError, False),
        (413, RefusedError, False),
        (429, QuotaExceededError, True),
        (500, ServiceFaultError, True),
        (501, ServiceFaultError, True),
        (503, ServiceFaultError, True),
        (504, ServiceFaultError, True),
        (302, RefusedError, False),
    ],
)
def test_each_status_is_an_error_of_its_own_with_the_ids_for_the_support(
    status: int, kind: type[RefusedError], retry_can_help: bool
) -> None:
    error = error_of(status)
    assert type(error) is kind
    assert error.http_status == status
    assert error.grpc_code == 16
    assert (error.request_id, error.server_trace_id) == ("rq", "tr")
    assert "x-request-id rq" in str(error)
    assert error.retry_can_help is retry_can_help
    assert not error.may_have_been_accepted


@pytest.mark.parametrize(
    ("status", "may"),
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (413, False),
        (429, False),
        (501, False),
        (408, True),
        (499, True),
        (500, True),
        (502, True),
        (503, True),
        (504, True),
    ],
)
def test_a_submissions_error_has_whether_it_may_have_been_accepted(status: int, may: bool) -> None:
    assert error_of(status, submission=True).may_have_been_accepted is may


@pytest.mark.parametrize(
    ("status", "code", "may"),
    [(500, 13, False), (503, 14, False), (500, 14, True), (503, 13, True), (502, 14, True), (504, 4, True)],
)
def test_the_services_own_code_means_that_nothing_was_accepted(status: int, code: int, may: bool) -> None:
    assert error_of(status, {"code": code, "message": "no"}, submission=True).may_have_been_accepted is may
    gateway = {"error": {"grpcCode": code, "httpCode": status, "message": "no"}}
    assert error_of(status, gateway, submission=True).may_have_been_accepted is may


def test_a_submission_that_is_not_found_is_no_missing_operation() -> None:
    assert type(error_of(404, submission=True)) is RefusedError


def test_retry_after_reaches_the_caller() -> None:
    error = error_of(429, **{"retry-after": "77"})
    assert isinstance(error, QuotaExceededError)
    assert error.retry_after_s == 77.0


def test_a_mismatch_of_folders_names_the_field() -> None:
    text = {"error": {"message": "Specified folder ID 'a' does not match with service account folder ID 'b'"}}
    assert "`folder_id`" in str(error_of(400, text, submission=True))


def test_errors_cross_processes_whole() -> None:
    import pickle

    sent: SpeechKitError = error_of(503, submission=True)
    arrived = pickle.loads(pickle.dumps(sent))
    assert arrived.may_have_been_accepted
    assert str(arrived) == str(sent)
