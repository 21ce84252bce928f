"""Whatever archiving one answer does, the others of a task are archived."""

from __future__ import annotations

import logging

import pytest
from airflow_speechkit.archive.keeping import Keep
from airflow_speechkit.triggers.finishing import Finisher

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.triggers import archiving


def no_hook() -> None:
    raise AssertionError("nothing is fetched")


async def test_an_error_that_nobody_has_thought_of_is_that_operations_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = []
    error: Exception = UnicodeEncodeError("utf-8", "привет", 0, 1, "привет")

    # None is known any more that could be provoked with an answer.
    async def keep(url: str, operation: Operation, step: Keep) -> None:
        if operation.id == "e03bad":
            raise error
        kept.append(operation.id)

    monkeypatch.setattr(archiving, "keep", keep)
    finisher = Finisher(no_hook, "file:///archive", delete_after_archiving=False)  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        for name in ("e03a", "e03bad", "e03b"):
            operation = Operation(id=name, state=OperationState.DONE, api_version=ApiVersion.V2, raw=b"{}")
            assert await finisher.finish(operation)
    assert kept == ["e03a", "e03b"]
    [told] = finisher.errors
    assert isinstance(told, AnswerUnreadableError)
    assert told.operation_id == "e03bad"
    assert "e03bad" in caplog.text
    assert "привет" not in caplog.text + str(told)
