"""Timeouts of the recognize operator, an unreachable archive, and a task that is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_speechkit import compat
from airflow_speechkit.errors import ArchiveError, NotFinishedError, SettingsError
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.operators import visit
from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.triggers.wait import WaitResult
from tests.fixtures.direct import OGG, TaskInstance, again, events_of
from tests.integration.operators.recognizing import Runs, put, recognize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.direct import Desk

MODES = [True, False]


@pytest.mark.parametrize("name", ["timeout", "poke_interval"])
@pytest.mark.parametrize("value", [0, -5, float("nan"), float("inf"), "1h", True, timedelta(0)], ids=str)
def test_an_invalid_time_is_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"`{name}`"):
        SpeechKitRecognizeOperator(task_id="recognize", audio="s3://calls/", **{name: value})


def test_all_deferrals_together_take_at_most_the_execution_timeout(desk: Desk) -> None:
    operator = recognize(desk, desk.put(processing_s=36_000), execution_timeout=timedelta(hours=10))
    with pytest.raises(TaskDeferred) as first:
        operator.execute({"ti": TaskInstance()})
    assert first.value.timeout is not None
    assert first.value.timeout <= timedelta(hours=10)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=9)), pytest.raises(TaskDeferred) as later:
        again(operator).execute_complete({"ti": TaskInstance()}, event=WaitResult(left=1).to_event())
    assert later.value.timeout is not None
    assert later.value.timeout <= timedelta(hours=1)


def test_the_wait_for_the_quota_ends_with_the_task(desk: Desk) -> None:
    runs = Runs(recognize(desk, put(desk, 51), submits_per_hour=50, timeout=600))
    assert runs.start() is None
    assert runs.deferred is not None
    _, about = runs.deferred.trigger.serialize()
    assert about["resume_at"] == about["deadline"]
    assert runs.deferred.timeout is not None
    assert runs.deferred.timeout <= timedelta(seconds=600 + 300)


def test_nothing_is_submitted_after_the_timeout(desk: Desk) -> None:
    # On a slow machine the time is over before the first visit ends.
    with pytest.raises(NotFinishedError, match=r"1 recordings are not submitted|50 operations have not ended"):
        Runs(recognize(desk, put(desk, 51), deferrable=False, submits_per_hour=50, timeout=8)).start()
    assert desk.billed() == 50


def test_nothing_is_submitted_by_a_worker_that_resumes_after_the_timeout(desk: Desk) -> None:
    audio = put(desk, 51)
    runs = Runs(recognize(desk, audio, submits_per_hour=50, timeout=600))
    assert runs.start() is None
    # The quota would allow it.
    resumed = again(recognize(desk, audio, timeout=600))
    with (
        time_machine.travel(datetime.now(UTC) + timedelta(seconds=601)),
        pytest.raises(NotFinishedError, match="1 recordings are not submitted"),
    ):
        resumed.execute_complete(runs.context, event=WaitResult(left=50).to_event())
    assert desk.billed() == 50


def test_operations_that_ended_in_time_are_returned_however_late_the_worker_resumes(desk: Desk) -> None:
    runs = Runs(recognize(desk, desk.put(), timeout=120))
    assert runs.start() is None
    assert runs.deferred is not None
    [event] = events_of(runs.deferred.trigger.serialize())
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        assert again(runs.operator).execute_complete(runs.context, event=event)


@pytest.mark.usefixtures("brief_pauses")
def test_an_archive_that_is_unreachable_for_a_while_ends_the_first_visit_only(desk: Desk) -> None:
    archive, elsewhere = desk.place / "archive", desk.place / "elsewhere"
    pauses: list[float] = []

    def put_back(seconds: float) -> None:
        pauses.append(seconds)
        archive.unlink()
        elsewhere.rename(archive)

    archive.write_text("in the way")
    desk.environment.setattr("time.sleep", put_back)
    runs = Runs(recognize(desk, desk.put()))
    with pytest.raises(ArchiveError):
        runs.start()
    assert not pauses
    archive.unlink()
    assert runs.start() is None
    assert runs.deferred is not None
    [event] = events_of(runs.deferred.trigger.serialize())
    archive.rename(elsewhere)
    archive.write_text("in the way")
    assert again(runs.operator).execute_complete(runs.context, event=event)
    assert len(pauses) == 1
    assert desk.billed() == 1


@pytest.mark.usefixtures("brief_pauses")
@pytest.mark.parametrize("step", ["record_delivery", "remove_run"])
def test_an_archive_that_is_unreachable_at_the_end_loses_nothing(desk: Desk, step: str) -> None:
    original, calls = getattr(visit, step), 0

    def away_at_first(*about: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ArchiveError("away")
        original(*about)

    desk.environment.setattr(visit, step, away_at_first)
    assert Runs(recognize(desk, desk.put(), only_new=True)).finish()
    assert calls >= 1


def test_a_result_that_was_archived_before_is_deleted_too(desk: Desk) -> None:
    audio = desk.put()
    operation_id = Runs(recognize(desk, audio, api_version="v3")).finish()
    assert Runs(recognize(desk, audio, api_version="v3", delete_after_archiving=True)).finish() == operation_id
    with SpeechKitHook() as hook:
        assert not hook.delete_recognition(operation_id), "there is nothing left to delete"


class _KilledError(BaseException):
    pass


@pytest.fixture
def _killable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compat, "read_task_state", lambda task_instance: "failed")
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("_killable")
@pytest.mark.parametrize("deferrable", MODES)
def test_a_task_killed_while_submitting_cancels_its_operations(desk: Desk, deferrable: bool) -> None:
    audio = [desk.put(f"{n}.ogg", OGG + bytes([n]), processing_s=36_000) for n in range(2)]
    desk.emulator.fault("slow", on="submit", match="/1.ogg", seconds=10)
    operator = recognize(desk, audio, deferrable=deferrable, cancel_on_kill=True)

    def on_signal(*_: Any) -> None:
        operator.on_kill()
        raise _KilledError

    signal.signal(signal.SIGUSR1, on_signal)

    def kill() -> None:
        while operator._submitter is None or not operator._submitter.done:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(_KilledError):
        operator.execute({"ti": TaskInstance()})
    killer.join()
    states = {str(one["recording"])[-5:]: one["state"] for one in desk.emulator.billing() if desk.prefix in str(one)}
    assert states == {"0.ogg": "cancelled", "1.ogg": "running"}
