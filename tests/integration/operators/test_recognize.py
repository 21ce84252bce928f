"""The operator that submits, waits and archives: answers are archived while later recordings wait for the quota."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_speechkit.errors import (
    ConnectionSettingsError,
    NotFinishedError,
    SettingsError,
)
from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from tests.integration.operators.recognizing import Runs, archived, operations, put, recognize

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.direct import Desk

#: The service's hour is so many seconds long here.
HOUR_S = 10.0
MODES = [True, False]


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    """A service that takes 50 recordings in its hour."""
    from speechkit_emulator.process import EmulatorProcess

    with EmulatorProcess("--submits-per-hour", "50", speed=3600.0 / HOUR_S) as process:
        yield process


@pytest.fixture(autouse=True)
def _quota(emulator: EmulatorProcess) -> None:
    emulator.advance(3600)
    emulator.clear_requests()


def test_answers_are_archived_while_later_recordings_wait_for_the_quota(desk: Desk) -> None:
    runs = Runs(recognize(desk, put(desk, 200)))
    assert runs.start() is None
    assert desk.billed() == 50
    result = runs.go_on()
    # The worker and the triggerer are killed: the task starts again.
    assert result is None
    result = runs.finish()
    assert len(set(result)) == desk.billed() == desk.emulator.requests()["submit"]["200"] == 200
    expect_stream(desk, result)


def expect_stream(desk: Desk, ids: list[str]) -> None:
    """The first answer is archived before the 100th recording is submitted."""
    outcomes, submissions = (
        [one for one in map(read, ids) if one] for read in (desk.archive.outcome, desk.archive.submission)
    )
    assert len(outcomes) == len(submissions) == len(ids)
    assert min(one.at for one in outcomes) < sorted(one.submitted_at for one in submissions)[99]


def test_recognize_works_in_a_worker_too(desk: Desk) -> None:
    expect_stream(desk, Runs(recognize(desk, put(desk, 120), deferrable=False)).finish())


@pytest.mark.parametrize("deferrable", MODES)
def test_one_recording_returns_one_id(desk: Desk, deferrable: bool) -> None:
    operation_id = Runs(recognize(desk, desk.put(), deferrable=deferrable)).finish()
    assert isinstance(operation_id, str)
    assert archived(desk, [operation_id]) == 1
    checks = desk.checks()
    assert (
        Runs(recognize(desk, f"s3://{desk.bucket}/{desk.prefix}/1.ogg", deferrable=deferrable)).finish() == operation_id
    )
    assert desk.checks() == checks, "what is archived is not asked for again"


@pytest.mark.parametrize("deferrable", MODES)
def test_the_final_error_names_refused_and_failed_recordings(desk: Desk, deferrable: bool) -> None:
    good = desk.put("good.ogg")
    bad = desk.put("bad.ogg", error={"code": 3, "message": "Unsupported audio"})
    missing = f"s3://{desk.bucket}/{desk.prefix}/missing.ogg"
    audio = [good, bad, missing]
    with pytest.raises(AirflowFailException, match="2 of 3") as raised:
        Runs(recognize(desk, audio, deferrable=deferrable)).finish()
    assert "Unsupported audio" in str(raised.value)
    assert "bad.ogg" in str(raised.value)
    assert "missing.ogg" in str(raised.value)
    assert archived(desk, operations(desk)) == 2
    billed = desk.billed()
    [left] = Runs(recognize(desk, audio, deferrable=deferrable, on_failure="skip")).finish()
    submission = desk.archive.submission(left)
    assert submission is not None
    assert submission.audio_uri == good
    assert len(Runs(recognize(desk, audio, deferrable=deferrable, on_failure="record")).finish()) == 3
    assert desk.billed() == billed
    with pytest.raises(AirflowSkipException):
        Runs(recognize(desk, [bad], deferrable=deferrable, on_failure="skip")).finish()


@pytest.mark.parametrize("deferrable", MODES)
def test_a_timeout_fails_the_task_and_a_retry_continues_the_wait(desk: Desk, deferrable: bool) -> None:
    slow = desk.put("slow.ogg", processing_s=7200)
    with pytest.raises(NotFinishedError, match="1 operations have not ended"):
        Runs(recognize(desk, slow, deferrable=deferrable, timeout=1.5)).finish()
    assert Runs(recognize(desk, slow, deferrable=deferrable)).finish()
    assert desk.billed() == 1


def test_an_error_in_the_wait_fails_the_task_with_that_error(desk: Desk) -> None:
    runs = Runs(recognize(desk, desk.put(processing_s=600), deferrable=True))
    assert runs.start() is None
    desk.environment.delenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT")
    with pytest.raises(ConnectionSettingsError):
        runs.go_on()


def test_recognize_without_an_archive_is_refused() -> None:
    with pytest.raises(SettingsError, match="archive"):
        SpeechKitRecognizeOperator(task_id="recognize", audio="s3://calls/", archive=False)
    with pytest.raises(SettingsError, match="poke_interval"):
        SpeechKitRecognizeOperator(task_id="recognize", audio="s3://calls/", poke_interval=0)
