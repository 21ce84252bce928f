"""A recording of five hours is recognised in parts, and its tables are those of one whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_speechkit.cli import main
from airflow_speechkit.recordings.audio import facts as limits
from speechkit_emulator.process import EmulatorProcess
from tests.fixtures.direct import Desk
from tests.fixtures.emulator import airflow_connections
from tests.integration.operators.long_recordings import (
    keys_of,
    said,
    seed_parts,
    submit,
    tables,
    transcript,
    wait,
    wav_of,
    words_of,
)

pytestmark = pytest.mark.usefixtures("instant_answers")


@pytest.fixture(scope="module")
def patient_emulator() -> Iterator[EmulatorProcess]:
    """An emulator that takes recordings of ten hours."""
    with EmulatorProcess("--max-hours", "10", speed=600.0) as process:
        yield process


def test_five_hours_in_parts_have_the_words_of_five_hours(
    desk: Desk, emulator_s3: Any, patient_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 5 * 3600.0
    spoken = words_of(seconds)
    recording = wav_of(spoken, seconds)
    audio = desk.put("long.wav", recording)
    starts = seed_parts(desk, emulator_s3, audio, spoken, failing=2, api_version="v3")
    assert len(starts) == 2
    assert 3.8 * 3_600_000 < starts[1] <= 4 * 3_600_000
    ids = submit(desk, audio, api_version="v3")
    wait(ids, on_failure="record")
    [failed] = tables(desk, ids, "failed")["recognitions"]
    assert failed["error_message"] == "Part 2 of 2: bad"
    # The failed part is forgotten, and the next run sends it alone.
    assert main(["archive", "forget", ids[1], "--archive", desk.archive_url, "--keep-copies"]) == 0
    [key] = [one for one in keys_of(desk, emulator_s3) if "-part2" in one]
    desk.emulator.seed(transcript(spoken, starts[1]), key=key)
    again = submit(desk, audio, api_version="v3")
    assert again[0] == ids[0]
    assert len([one for one in desk.emulator.billing() if desk.prefix in str(one)]) == 3
    wait(again)
    parts = tables(desk, again, "parts")

    other = Desk(patient_emulator, desk.place / "control", desk.prefix, monkeypatch)
    for name, value in airflow_connections(patient_emulator, other.place).items():
        if name.startswith("AIRFLOW_CONN_"):
            monkeypatch.setenv(name, value)
    other.connect()
    monkeypatch.setattr(limits, "MAX_CHANNEL_MS", 10 * 3_600_000)
    patient_emulator.put("whole.wav", recording, transcript(spoken))
    whole = submit(other, f"s3://{patient_emulator.bucket}/whole.wav", api_version="v3")
    wait(whole)
    control = tables(other, whole, "whole")
    assert said(parts["words"]) == said(control["words"])
    assert len(parts["words"]) == len(spoken[0])
    assert parts["recognitions"][0]["duration_ms"] == control["recognitions"][0]["duration_ms"] == 18_000_000
