from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies

from airflow_speechkit.api.operation import LARGE_BODY, OperationState, read_operation
from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.settings import ApiVersion

V2_RESPONSE = {"@type": "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"}
WORD = {"startTime": "0.879999999s", "endTime": "1s", "word": 'слово\n"error"', "confidence": 1}


def body(**fields: Any) -> bytes:
    return json.dumps({"id": "e03abc", "createdAt": "2025-08-09T20:48:53Z", **fields}, ensure_ascii=False).encode()


def large(**fields: Any) -> bytes:
    chunks = [{"alternatives": [{"words": [WORD] * 10, "text": "слово " * 10}], "channelTag": "1"}] * 300
    response = {**V2_RESPONSE, "chunks": chunks}
    made = body(**{"done": True, "response": response, **fields})
    assert len(made) > LARGE_BODY
    return made


def test_the_submits_answer_is_running() -> None:
    operation = read_operation(body(done=False, modifiedAt="2025-08-09T20:48:53.123456789Z"))
    assert operation.state is OperationState.RUNNING
    assert operation.api_version is ApiVersion.V2
    assert operation.created_at == datetime(2025, 8, 9, 20, 48, 53, tzinfo=UTC)
    assert operation.modified_at is not None
    assert operation.modified_at.tzinfo is not None


def test_done_left_out_means_running() -> None:
    assert read_operation(body()).state is OperationState.RUNNING


@pytest.mark.parametrize("make", [body, large])
def test_done_with_a_response_is_done(make: Any) -> None:
    made = make(done=True) if make is large else body(done=True, response=V2_RESPONSE)
    operation = read_operation(made)
    assert (operation.id, operation.state, operation.api_version) == ("e03abc", OperationState.DONE, ApiVersion.V2)
    assert operation.raw == made


@pytest.mark.parametrize("make", [body, large])
@pytest.mark.parametrize("done", [True, False])
def test_an_error_comes_before_done(make: Any, done: bool) -> None:
    error = {"code": 3, "message": "ogg header has not been found", "details": [{"a": 1}]}
    operation = read_operation(make(done=done, error=error))
    assert operation.state is OperationState.FAILED
    assert (operation.error_code, operation.error_message) == (3, "ogg header has not been found")


@pytest.mark.parametrize("make", [body, large])
@pytest.mark.parametrize("error", [None, {}, {"code": 0, "message": ""}])
def test_an_empty_error_is_none(make: Any, error: object) -> None:
    response = {} if make is large else {"response": V2_RESPONSE}
    operation = read_operation(make(done=True, error=error, **response))
    assert operation.state is OperationState.DONE
    assert operation.error_code is None


@pytest.mark.parametrize("make", [body, large])
def test_a_code_written_as_a_string_is_read(make: Any) -> None:
    assert read_operation(make(error={"code": "5", "message": "gone"})).error_code == 5


def test_v3_is_recognised_by_its_description_its_missing_response_or_its_id() -> None:
    assert read_operation(body(description="STT v3 async recognition", done=False)).api_version is ApiVersion.V3
    assert read_operation(body(done=True)).api_version is ApiVersion.V3
    assert read_operation(body(id="f8dabc", done=False)).api_version is ApiVersion.V3
    assert read_operation(body(id="f8dabc", done=True, response=V2_RESPONSE)).api_version is ApiVersion.V2


def test_unknown_fields_do_no_harm() -> None:
    assert read_operation(large(metadata={"a": [1, {"b": None}]}, newest=[[]])).state is OperationState.DONE


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"done":true}',
        b'{"id":7}',
        b'{"id":"e03","done":"yes"}',
        b"\xff",
    ],
)
def test_what_is_no_operation_is_refused(raw: bytes) -> None:
    with pytest.raises(AnswerUnreadableError):
        read_operation(raw)


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b + b[:40], lambda b: b + b])
def test_a_large_answer_that_is_cut_off_or_runs_on_is_refused(spoil: Any) -> None:
    with pytest.raises(AnswerUnreadableError):
        read_operation(spoil(large()))


def test_a_repr_shows_no_transcript() -> None:
    assert "слово" not in repr(read_operation(large()))


_JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=5),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    strategies.fixed_dictionaries(
        {},
        optional={
            "done": strategies.booleans() | strategies.none(),
            "error": strategies.none()
            | strategies.fixed_dictionaries({}, optional={"code": strategies.integers(0, 16)}),
            "description": strategies.text(max_size=5),
            "response": strategies.just(V2_RESPONSE) | strategies.none(),
            "later": _JSON,
        },
    )
)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_a_large_answer_is_read_like_a_small_one(fields: dict[str, Any]) -> None:
    small, padded = body(**fields), body(**fields, padding="x" * LARGE_BODY)
    one, other = read_operation(small), read_operation(padded)
    assert (one.id, one.state, one.api_version, one.error_code) == (
        other.id,
        other.state,
        other.api_version,
        other.error_code,
    )


def test_the_error_of_an_operation_has_no_secrets() -> None:
    message = (
        "can't read https://storage.yandexcloud.net/b/k.ogg?X-Amz-Signature=hunter2 with AQVNhunter2hunter2\n at all"
    )
    raw = json.dumps({"id": "e03abc", "done": True, "error": {"code": 7, "message": message}}).encode()
    told = read_operation(raw).error_message
    assert told == "can't read https://storage.yandexcloud.net/b/k.ogg with *** at all"
