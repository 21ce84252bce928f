"""A submit that fails each night for one invalid recording does not pay for the others again."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from airflow_speechkit.errors import ArchiveError, RecordingError
from airflow_speechkit.operators import visit
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from tests.fixtures.direct import Desk


def submit(audio: Any, **kwargs: Any) -> Any:
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, language="en-US", **kwargs).execute({})


def fail(desk: Desk, *good: str, **kwargs: Any) -> str:
    with pytest.raises(RecordingError, match=r"none\.ogg") as raised:
        submit([f"s3://{desk.bucket}/{desk.prefix}/none.ogg", *good], **kwargs)
    return str(raised.value)


@pytest.mark.parametrize("api_version", ["v2", "v3"])
def test_ended_operations_are_archived_before_the_task_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, api_version: str
) -> None:
    monkeypatch.setattr(visit, "OLD", timedelta(0))
    good = desk.put()
    operation_id = submit(good, api_version=api_version)
    until = time.monotonic() + 600
    while desk.archive.outcome(operation_id) is None:
        assert time.monotonic() < until
        fail(desk, good, api_version=api_version)
        time.sleep(0.1)
    assert "1 operations that were submitted before have ended; their answers are archived now" in caplog.text
    answer = desk.archive.answer(operation_id)
    assert answer is not None
    assert b"words" in (answer.recognition or answer.operation)
    caplog.clear()
    fail(desk, good, api_version=api_version)
    assert "accepted operation" not in caplog.text, "nothing is left to wait for"
    assert submit(good, api_version=api_version) == operation_id
    assert desk.billed() == 1


def test_running_operations_continue_and_their_last_day_is_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    good = desk.put()
    operation_id = submit(good)
    submission = desk.archive.submission(operation_id)
    assert submission is not None
    checks = desk.checks()
    fail(desk, good, desk.put("2.ogg"))
    assert desk.checks() == checks, "it can't have ended yet"
    last = f"{submission.submitted_at + timedelta(days=3):%Y-%m-%d %H:%M} UTC"
    assert "2 accepted operations have no archived answer" in caplog.text
    assert f"before {last}" in caplog.text


def test_an_error_of_the_collection_does_not_hide_why_the_task_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(visit, "OLD", timedelta(0))
    good = [desk.put("1.ogg"), desk.put("2.ogg")]
    ids = submit(good)
    desk.emulator.fault(429, on="operation", times=9)
    fail(desk, *good)
    assert caplog.text.count("is not archived") == 1, "once the quota is used up nothing more is asked"
    desk.emulator.clear_faults()
    desk.emulator.fault(500, on="operation", times=9)
    fail(desk, *good)
    assert all(f"Operation {one} is not archived" in caplog.text for one in ids)


def test_the_collection_leaves_checks_for_others(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "OLD", timedelta(0))
    monkeypatch.setattr(visit, "MOST", 1)
    good = [desk.put("1.ogg", processing_s=9999), desk.put("2.ogg", processing_s=9999)]
    submit(good)
    checks = desk.checks()
    fail(desk, *good)
    assert desk.checks() == checks + 1


def test_an_archive_error_during_the_collection_does_not_hide_the_tasks_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ArchiveError("a bad moment")

    monkeypatch.setattr(visit, "read_each", fails)
    assert "none.ogg" in fail(desk, desk.put())
