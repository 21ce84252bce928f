"""Whatever the answer to one check does, the poller goes on for the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

import pytest

from airflow_speechkit.api.http import Response
from airflow_speechkit.api.operation import Operation, operation_of
from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.polling.poller import shared_poller
from airflow_speechkit.polling.target import PollResult
from tests.unit.polling.in_virtual_time import in_virtual_time
from tests.unit.polling.pollers import Answering, Service, collect, operation, overdue, plenty

OTHERS = [f"e03{number}" for number in range(11)]
DEEP = 100_000


async def results_of(key: tuple[str, str], answer: Answering) -> dict[str, PollResult]:
    subject = shared_poller(key, Service(answer), plenty())
    return {one.operation_id: one for one in await collect(subject, overdue("e03bad", *OTHERS))}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":"e03bad","done":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"id":"e03bad","error":' + b'{"a":' * DEEP + b"}" * DEEP + b"}",
        b'{"id":"e03bad","error":[]}',
        b'{"id":"%s","done":true,"response":{}}' % OTHERS[0].encode(),
        b"[" * DEEP,
        b"\xff",
    ],
    ids=["nested", "nested error", "no error", "another's", "cut off", "bytes"],
)
@in_virtual_time
async def test_an_answer_that_cannot_be_read_ends_that_one_wait(key: tuple[str, str], raw: bytes) -> None:
    async def answer(name: str) -> Operation:
        body = raw if name == "e03bad" else b'{"id":"%s","done":true,"response":{}}' % name.encode()
        return operation_of(Response(200, {}, body), name)

    results = await results_of(key, answer)
    bad = results.pop("e03bad")
    assert bad.operation is None
    assert isinstance(bad.error, AnswerUnreadableError)
    assert sorted(results) == sorted(OTHERS)
    assert all(one.operation is not None and one.operation.id == name for name, one in results.items())


@pytest.mark.parametrize(
    "raw",
    [
        b'"createdAt":"0001-01-01T00:00:00+14:00","modifiedAt":"9999-12-31T23:59:59-14:00"',
        b'"createdAt":"0001-01-01T00:00:00Z","modifiedAt":"9999-12-31T23:59:59Z"',
        b'"createdAt":"9999-12-31T23:59:59Z","modifiedAt":"0001-01-01T00:00:00Z"',
    ],
)
@in_virtual_time
async def test_times_that_cannot_be_true_end_no_wait_and_teach_nothing(key: tuple[str, str], raw: bytes) -> None:
    async def answer(name: str) -> Operation:
        return operation_of(Response(200, {}, b'{"id":"%s","done":true,%s}' % (name.encode(), raw)), name)

    results = await results_of(key, answer)
    assert len(results) == 12
    assert all(one.operation is not None for one in results.values())
    assert await results_of(key, answer), "and the poller plans as before"


@pytest.mark.parametrize(
    "error",
    [RecursionError("привет"), OverflowError("привет"), UnicodeEncodeError("utf-8", "привет", 0, 1, "привет")],
    ids=lambda error: type(error).__name__,
)
@in_virtual_time
async def test_an_error_that_nobody_has_thought_of_ends_that_one_wait(
    key: tuple[str, str], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(name: str) -> Awaitable[Operation]:
        return somewhere(name)

    async def somewhere(name: str) -> Operation:
        if name == "e03bad":
            raise error
        return operation(name)

    with caplog.at_level(logging.ERROR):
        results = await results_of(key, answer)
    bad = results.pop("e03bad")
    assert bad.operation is None
    assert isinstance(bad.error, AnswerUnreadableError)
    assert type(error).__name__ in str(bad.error)
    assert all(one.operation is not None for one in results.values())
    assert len(results) == 11
    assert "e03bad" in caplog.text
    assert "in somewhere" in caplog.text
    # The error's own text may repeat what was read.
    assert "привет" not in caplog.text + str(bad.error)
    assert bad.error.__cause__ is None
    assert bad.error.__context__ is None
