"""The numbers of operations in the log of a wait."""

from __future__ import annotations

import re

import pytest

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from tests.fixtures.direct import Desk, wait_for
from tests.integration.sensors.modes import MODES, wait

_PROGRESS = re.compile(r"(?:Waiting |All of [\d,]+ op|submitted \d|\d+ recordings: )[^\[\n]*")
FAILED = {"error": {"code": 3, "message": "Unsupported audio"}}


@pytest.fixture
def progress(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Progress:
    caplog.set_level("INFO")
    return Progress(caplog, capsys)


class Progress:
    """The lines about progress since the last time."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
        self._caplog, self._capsys = caplog, capsys

    def lines(self) -> list[str]:
        # Airflow 3 writes a task's log without the standard library, which has the number of found recordings.
        text = self._capsys.readouterr().out + self._caplog.text
        self._caplog.clear()
        lines = dict.fromkeys(one.strip() for one in _PROGRESS.findall(text))
        return sorted(lines, key=lambda line: " recordings: " not in line)


@pytest.mark.parametrize("mode", MODES)
def test_a_sensor_logs_how_many_are_left_and_how_many_failed(desk: Desk, mode: str, progress: Progress) -> None:
    ids = desk.emulator.stand_ins(25, processing_s=30)
    failed = desk.emulator.stand_ins(2, processing_s=30, **FAILED)
    for operation_id in ids + failed:
        desk.on_record(operation_id)
    before = ids[:10] + failed[:1]
    wait(mode, before, on_failure="skip")
    progress.lines()
    wait(mode, ids + failed, on_failure="skip")
    start, *_, end = progress.lines()
    where = "in the triggerer" if mode == "deferred" else "in this worker"
    assert start == f"Waiting {where} for 16 of 27 operations"
    assert end == "All of 27 operations have ended; 2 failed"
    wait(mode, ids)
    assert progress.lines() == [f"Waiting {where} for 0 of 25 operations", "All of 25 operations have ended; 0 failed"]


def test_without_an_archive_a_sensor_logs_its_own_counts(desk: Desk, progress: Progress) -> None:
    ids = desk.emulator.stand_ins(2, processing_s=30) + desk.emulator.stand_ins(1, processing_s=30, **FAILED)
    wait("deferred", ids, archive=False, on_failure="skip")
    assert progress.lines() == [
        "Waiting in the triggerer for 3 of 3 operations",
        "All of 3 operations have ended; 1 failed",
    ]


@pytest.mark.parametrize("deferrable", [True, False])
def test_recognize_logs_its_progress_once_per_visit(desk: Desk, progress: Progress, *, deferrable: bool) -> None:
    first, second = desk.put("1.ogg"), desk.put("2.ogg", text="other words")
    bad = desk.put("bad.ogg", **FAILED)

    def recognize(audio: list[str]) -> list[str]:
        operator = SpeechKitRecognizeOperator(
            task_id="recognize",
            audio=audio,
            language="en-US",
            poke_interval=0.2,
            on_failure="record",
            deferrable=deferrable,
        )
        wait_for(operator)
        return progress.lines()

    # One is there twice.
    found, start, end = recognize([first, bad, first])
    assert found == "2 recordings: 0 known, 0 are being submitted elsewhere, 2 new, which will be billed 30 seconds"
    assert start == "submitted 2 of 2, ended 0, failed 0, refused 0"
    assert end == "submitted 2 of 2, ended 2, failed 1, refused 0"
    found, start, end = recognize([first, bad, second])
    known = "2 known (1 reused, 1 failed), 0 are being submitted elsewhere"
    assert found == f"3 recordings: {known}, 1 new, which will be billed 15 seconds"
    assert start == "submitted 3 of 3, ended 2, failed 1, refused 0"
    assert end == "submitted 3 of 3, ended 3, failed 1, refused 0"


def test_a_deferred_submit_logs_its_progress_once_per_visit(desk: Desk, progress: Progress) -> None:
    recording = desk.put()
    SpeechKitSubmitOperator(task_id="submit", audio=[recording, recording], language="en-US", deferrable=True).execute(
        {}
    )
    assert progress.lines() == [
        "1 recordings: 0 known, 0 are being submitted elsewhere, 1 new, which will be billed 15 seconds",
        "submitted 1 of 1, refused 0",
    ]
