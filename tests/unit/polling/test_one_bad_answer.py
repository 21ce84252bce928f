"""Whatever the answer to one check does, the poller goes on for the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

import pytest
from airflow_speechkit.polling.waiting import Ending, Finished, Unanswered

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.api.service import operation_of
from airflow_speechkit.api.steps import Response
from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.polling import outage, poller
from airflow_speechkit.polling.poller import shared_poller
from tests.unit.polling.pollers import Answering, Client, budget, collect, operation, overdue

OTHERS = [f"e03{number}" for number in range(11)]
DEEP = 100_000


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(poller, "TRANSIENT", outage.Patience(2, 0.0))


async def endings_of(key: str, answer: Answering) -> dict[str, Ending]:
    subject = shared_poller(key, Client(answer).open, budget())
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
async def test_an_answer_that_cannot_be_read_ends_that_one_wait(key: str, raw: bytes) -> None:
    async def answer(name: str) -> Operation:
        body = raw if name == "e03bad" else b'{"id":"%s","done":true,"response":{}}' % name.encode()
        return operation_of(Response(200, {}, body), name)

    endings = await endings_of(key, answer)
    bad = endings.pop("e03bad")
    assert isinstance(bad, Unanswered)
    assert isinstance(bad.error, AnswerUnreadableError)
    assert sorted(endings) == sorted(OTHERS)
    assert all(isinstance(one, Finished) and one.operation.id == name for name, one in endings.items())


@pytest.mark.parametrize(
    "raw",
    [
        b'"createdAt":"0001-01-01T00:00:00+14:00","modifiedAt":"9999-12-31T23:59:59-14:00"',
        b'"createdAt":"0001-01-01T00:00:00Z","modifiedAt":"9999-12-31T23:59:59Z"',
        b'"createdAt":"9999-12-31T23:59:59Z","modifiedAt":"0001-01-01T00:00:00Z"',
    ],
)
async def test_times_that_cannot_be_true_end_no_wait_and_teach_nothing(key: str, raw: bytes) -> None:
    async def answer(name: str) -> Operation:
        return operation_of(Response(200, {}, b'{"id":"%s","done":true,%s}' % (name.encode(), raw)), name)

    endings = await endings_of(key, answer)
    assert len(endings) == 12
    assert all(isinstance(one, Finished) for one in endings.values())
    assert await endings_of(key, answer), "and the poller plans as before"


@pytest.mark.parametrize(
    "error",
    [RecursionError("привет"), OverflowError("привет"), UnicodeEncodeError("utf-8", "привет", 0, 1, "привет")],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_that_nobody_has_thought_of_ends_that_one_wait(
    key: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(name: str) -> Awaitable[Operation]:
        return somewhere(name)

    async def somewhere(name: str) -> Operation:
        if name == "e03bad":
            raise error
        return operation(name)

    with caplog.at_level(logging.ERROR):
        endings = await endings_of(key, answer)
    bad = endings.pop("e03bad")
    assert isinstance(bad, Unanswered)
    assert isinstance(bad.error, AnswerUnreadableError)
    assert type(error).__name__ in str(bad.error)
    assert all(isinstance(one, Finished) for one in endings.values())
    assert len(endings) == 11
    assert "e03bad" in caplog.text
    assert "in somewhere" in caplog.text
    # The error's own text may repeat what was read.
    assert "привет" not in caplog.text + str(bad.error)
    assert bad.error.__cause__ is None
    assert bad.error.__context__ is None
