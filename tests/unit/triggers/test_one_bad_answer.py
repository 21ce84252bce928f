"""Whatever archiving one answer does, the others of a task are archived."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.polling.target import PollTarget
from airflow_speechkit.triggers.wait import OperationWait
from tests.unit.triggers.service import Service


async def test_an_error_that_nobody_has_thought_of_is_that_operations_own(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error: Exception = UnicodeEncodeError("utf-8", "привет", 0, 1, "привет")
    keep_operation = Archive.keep_operation

    # None is known any more that could be provoked with an answer.
    def archive(archive: Archive, operation: object, *more: object) -> object:
        if operation.id == "e03bad":  # type: ignore[attr-defined]
            raise error
        return keep_operation(archive, operation, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Archive, "keep_operation", archive)
    targets = [PollTarget(name, time.time() - 1000.0, 6.0, 1) for name in ("e03a", "e03bad", "e03b")]
    wait = OperationWait(targets, speechkit_conn_id=service.conn_id, archive=str(tmp_path))
    with caplog.at_level(logging.ERROR):
        result = await wait.run(time.time() + 600.0)
    assert sorted(Archive.at(str(tmp_path)).operations()) == ["e03a", "e03b"]
    assert isinstance(result.error, AnswerUnreadableError)
    assert result.error.operation_id == "e03bad"
    assert "e03bad" in caplog.text
    assert "привет" not in caplog.text + str(result.error)
