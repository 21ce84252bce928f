"""A sensor returns the same and fails the same in all modes."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from airflow_speechkit.errors import (
    ArchiveError,
    ConnectionSettingsError,
    OperationNotFoundError,
    RecognitionFailedError,
    ResultExpiredError,
    SettingsError,
)
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.retry import RetryPolicy
from tests.fixtures.direct import Desk
from tests.integration.sensors.modes import MODES, sensor, wait

FAILED = {"code": 3, "message": "Unsupported audio"}


class LazySequence:
    """The output of a mapped upstream: iterable, neither list nor tuple."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return iter(self.items)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_finished_operation_is_returned_and_archived(desk: Desk, mode: str) -> None:
    (operation_id,) = desk.emulator.stand_ins(processing_s=30)
    desk.on_record(operation_id)
    assert wait(mode, operation_id) == operation_id
    answer = desk.archive.answer(operation_id)
    assert answer is not None
    assert b"chunks" in answer.operation
    asked = desk.checks()
    assert wait(mode, operation_id) == operation_id
    assert desk.checks() == asked, "what is archived is not asked for again"


def test_operations_without_an_archive_record_are_waited_for(desk: Desk, mode: str) -> None:
    ids = desk.emulator.stand_ins(2, processing_s=30)
    assert wait(mode, ids) == ids
    assert all(desk.archive.answer(one) for one in ids)


def test_without_a_poke_interval_the_checks_come_when_the_end_is_predicted(desk: Desk, mode: str) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    assert wait(mode, desk.on_record(operation_id), poke_interval=None) == operation_id
    (stranger,) = desk.emulator.stand_ins()
    assert wait(mode, stranger, poke_interval=None) == stranger


def test_the_output_of_a_mapped_upstream_is_a_list(desk: Desk, mode: str) -> None:
    first, second, third = desk.emulator.stand_ins(3)
    assert wait(mode, LazySequence(first, [second, third])) == [first, second, third]


def test_a_list_can_have_operations_of_both_apis(desk: Desk, mode: str) -> None:
    (old,) = desk.emulator.stand_ins()
    (new,) = desk.emulator.stand_ins(api="v3")
    assert wait(mode, [new, old]) == [new, old]
    answer = desk.archive.answer(new)
    assert answer is not None
    assert answer.recognition


@pytest.mark.parametrize("more", [{}, {"soft_fail": True}], ids=str)
def test_a_failed_recognition_fails_the_task_and_a_retry_checks_nothing(
    desk: Desk, mode: str, more: dict[str, Any]
) -> None:
    (operation_id,) = desk.emulator.stand_ins(error=FAILED)
    desk.on_record(operation_id)
    with pytest.raises(RecognitionFailedError, match=r"Unsupported audio \(code 3\)") as raised:
        wait(mode, operation_id, **more)
    assert raised.value.code == 3
    assert raised.value.recording == f"s3://calls/{operation_id}.ogg"
    assert not isinstance(raised.value, AirflowException)
    asked = desk.checks()
    with pytest.raises(RecognitionFailedError, match="Unsupported audio"):
        wait(mode, operation_id, **more)
    assert desk.checks() == asked


def test_never_fail_skips(desk: Desk, mode: str) -> None:
    (operation_id,) = desk.emulator.stand_ins(error=FAILED)
    for _ in range(2):
        with pytest.raises(AirflowSkipException):
            wait(mode, operation_id, never_fail=True)


def test_a_list_fails_skips_or_records_failures_after_all_have_ended(desk: Desk, mode: str) -> None:
    (bad,) = desk.emulator.stand_ins(error=FAILED)
    (good,) = desk.emulator.stand_ins(processing_s=60)
    with pytest.raises(RecognitionFailedError, match="Unsupported audio"):
        wait(mode, [bad, good])
    assert desk.archive.answer(good) is not None
    assert wait(mode, [bad, good], on_failure="skip") == [good]
    assert wait(mode, [bad, good], on_failure="record") == [bad, good]
    with pytest.raises(AirflowSkipException):
        wait(mode, bad, on_failure="skip")
    bads = [bad, *desk.emulator.stand_ins(error=FAILED)]
    with pytest.raises(RecognitionFailedError, match="2 of 3 operations have no result"):
        wait(mode, [*bads, good])


def test_what_is_done_about_failures_can_be_set_later_as_cluster_policies_do(desk: Desk) -> None:
    (bad,) = desk.emulator.stand_ins(error=FAILED)
    task = sensor("poke", [bad], on_failure="record")
    task.on_failure = "fail"
    with pytest.raises(RecognitionFailedError, match="Unsupported audio"):
        task.execute({})


def test_an_expired_result_and_an_unknown_id_have_different_errors(desk: Desk, mode: str) -> None:
    old = desk.on_record("e03forgotten00000000", age=timedelta(days=4))
    for _ in range(2):
        with pytest.raises(ResultExpiredError, match="three days"):
            wait(mode, old)
    with pytest.raises(OperationNotFoundError, match="never existed"):
        wait(mode, "e03neverwas000000000")
    young = desk.on_record("e03othersfolder00000", age=timedelta(hours=1))
    with pytest.raises(OperationNotFoundError, match="connection"):
        wait(mode, young)
    assert desk.archive.outcome(young) is None


UNKNOWN = "e03neverwas000000000"


def test_an_unknown_id_in_a_list_is_one_failure_among_others(desk: Desk, mode: str) -> None:
    (bad,) = desk.emulator.stand_ins(error=FAILED)
    (good,) = desk.emulator.stand_ins()
    young = desk.on_record("e03othersfolder00000", age=timedelta(hours=1))
    with pytest.raises(RecognitionFailedError, match="3 of 4 operations have no result") as raised:
        wait(mode, [UNKNOWN, bad, young, good])
    assert "Unsupported audio" in str(raised.value)
    assert UNKNOWN in str(raised.value)
    assert wait(mode, [UNKNOWN, bad, young, good], on_failure="skip") == [good]
    with pytest.raises(AirflowSkipException):
        wait(mode, UNKNOWN, on_failure="skip")


def test_an_unknown_id_is_left_out_with_on_failure_record(
    desk: Desk, mode: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (bad,) = desk.emulator.stand_ins(error=FAILED)
    assert wait(mode, [UNKNOWN, bad], on_failure="record") == [bad]
    # Airflow 3 writes a task's log without the standard library.
    logged = capsys.readouterr().out + caplog.text
    assert "Left out: " in logged
    assert UNKNOWN in logged
    with pytest.raises(OperationNotFoundError, match="never existed"):
        wait(mode, UNKNOWN, on_failure="record")


def test_a_wait_that_takes_too_long_is_a_sensor_timeout(desk: Desk, mode: str) -> None:
    (operation_id,) = desk.emulator.stand_ins(processing_s=36_000)
    with pytest.raises(AirflowSensorTimeout):
        wait(mode, operation_id, timeout=1)
    with pytest.raises(AirflowSkipException):
        wait(mode, operation_id, timeout=timedelta(seconds=1), soft_fail=True)


def test_a_recording_refused_at_submission_is_passed_on_as_recorded(desk: Desk, mode: str) -> None:
    missing, good = f"s3://{desk.bucket}/{desk.prefix}/none.ogg", desk.put()
    submit = SpeechKitSubmitOperator(task_id="submit", audio=[missing, good], language="en-US", on_failure="record")
    refused, operation_id = submit.execute({})
    assert wait(mode, [refused, operation_id]) == [refused, operation_id]
    with pytest.raises(SettingsError, match="archive"):
        wait(mode, refused, archive=False)


def test_without_an_archive_nothing_is_archived(desk: Desk, mode: str) -> None:
    good, bad = *desk.emulator.stand_ins(), *desk.emulator.stand_ins(error=FAILED)
    assert wait(mode, good, archive=False) == good
    with pytest.raises(RecognitionFailedError, match="Unsupported audio"):
        wait(mode, bad, archive=False)
    with pytest.raises(OperationNotFoundError):
        wait(mode, "e03neverwas000000000", archive=False)
    assert list(desk.archive.operations()) == []


@pytest.mark.usefixtures("brief_pauses")
def test_a_wait_continues_after_errors_of_single_checks(desk: Desk, mode: str) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    desk.emulator.fault(500, on="operation")
    desk.emulator.fault("garbage", on="operation")
    desk.emulator.fault("drop_after", on="operation")
    assert wait(mode, operation_id, timeout=3600) == operation_id


@pytest.mark.usefixtures("brief_pauses")
@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_wait_continues_after_a_refusal_in_all_modes(desk: Desk, mode: str, status: int) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    desk.emulator.fault(status, on="operation", times=2)
    assert wait(mode, operation_id, timeout=3600) == operation_id


@pytest.mark.usefixtures("brief_pauses")
@pytest.mark.parametrize("mode", MODES[1:])
def test_an_archive_that_is_unreachable_for_a_while_does_not_end_the_wait(
    desk: Desk, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_speechkit.archive.store import Archive

    (operation_id,) = desk.emulator.stand_ins(processing_s=30)
    original, calls = Archive.outcome, 0

    def outcome(archive: Archive, one: str) -> Any:
        nonlocal calls
        calls += 1
        if 2 <= calls <= 4:
            raise ArchiveError("away")
        return original(archive, one)

    monkeypatch.setattr(Archive, "outcome", outcome)
    assert wait(mode, operation_id) == operation_id
    assert calls > 4


def test_a_wrong_connection_or_archive_ends_the_wait_at_once(desk: Desk, mode: str) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    with pytest.raises(ConnectionSettingsError, match="nobody"):
        wait(mode, operation_id, speechkit_conn_id="nobody", archive=desk.archive_url)
    with pytest.raises(ConnectionSettingsError, match="nobody"):
        wait(mode, operation_id, archive=f"s3://nobody@{desk.bucket}/archive")
    (desk.place / "file").write_text("")
    with pytest.raises(ArchiveError):
        wait(mode, operation_id, archive=str(desk.place / "file" / "archive"))
    desk.connect(extra={})
    with pytest.raises(SettingsError, match="archive"):
        wait(mode, operation_id)


def test_a_v3_result_is_deleted_after_archiving_if_requested(desk: Desk, mode: str) -> None:
    (operation_id,) = desk.emulator.stand_ins(api="v3")
    assert wait(mode, operation_id, delete_after_archiving=True) == operation_id
    assert desk.archive.answer(operation_id) is not None
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

    with SpeechKitHook() as hook:
        assert not hook.delete_recognition(operation_id)


def deleted(operation_id: str) -> bool:
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

    with SpeechKitHook() as hook:
        return not hook.delete_recognition(operation_id)


def test_a_result_that_was_archived_before_is_deleted_too(desk: Desk, mode: str) -> None:
    (first, second) = desk.emulator.stand_ins(2, api="v3")
    (old,) = desk.emulator.stand_ins()
    assert wait(mode, [first, old]) == [first, old]
    assert wait(mode, [first, old, second], delete_after_archiving=True) == [first, old, second]
    assert deleted(first)
    assert deleted(second)


def test_a_result_that_could_not_be_deleted_is_deleted_by_the_next_wait(
    desk: Desk, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_speechkit.api.exchange.REQUEST_RETRY", RetryPolicy(0.01, 30.0))
    (operation_id,) = desk.emulator.stand_ins(api="v3")
    desk.emulator.fault(503, on="delete", times=None)
    for _ in range(2):
        assert wait(mode, operation_id, delete_after_archiving=True) == operation_id
    desk.emulator.clear_faults()
    assert wait(mode, operation_id, delete_after_archiving=True) == operation_id
    assert deleted(operation_id)


def test_a_v3_result_that_is_not_found_is_an_error(desk: Desk, mode: str) -> None:
    (operation_id,) = desk.emulator.stand_ins(api="v3")
    desk.emulator.fault(404, on="recognition", times=None, message="not found")
    with pytest.raises((ResultExpiredError, OperationNotFoundError)):
        wait(mode, operation_id)


@pytest.mark.parametrize("given", [[], "", None, ["e03 a"], [17], "../../etc"], ids=str)
def test_an_invalid_operation_id_is_refused(desk: Desk, mode: str, given: Any) -> None:
    with pytest.raises(SettingsError, match="operation"):
        wait(mode, given)


def test_every_argument_reaches_the_trigger(desk: Desk) -> None:
    from airflow.providers.common.compat.sdk import TaskDeferred

    (operation_id,) = desk.emulator.stand_ins()
    desk.connect("other")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(
            "deferred",
            desk.on_record(operation_id),
            speechkit_conn_id="other",
            poke_interval=timedelta(seconds=7),
            timeout=timedelta(hours=2),
            cancel_on_kill=True,
            delete_after_archiving=True,
        ).execute({})
    _, kwargs = deferred.value.trigger.serialize()
    (waiting,) = kwargs.pop("waiting")
    assert waiting.pop("submitted_at") < time.time()
    assert waiting == {"operation_id": operation_id, "interval_s": 7.0, "audio_s": 1.0, "channels": 1}
    assert kwargs.pop("deadline") == pytest.approx(time.time() + 7200, abs=60)
    assert kwargs == {
        "speechkit_conn_id": "other",
        "archive": desk.archive_url,
        "cancel_on_kill": True,
        "delete_after_archiving": True,
        "resume_at": None,
    }
    assert deferred.value.timeout > timedelta(hours=2)
