"""What later runs, backfills and corrections make of a recording in parts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import time_machine
from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_speechkit.cli import main
from airflow_speechkit.errors import RecordingError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.recordings.audio import facts as limits
from tests.fixtures.direct import Desk, TaskInstance
from tests.integration.operators.long_recordings import seed_parts, submit, tables, transcript, wait, wav_of, words_of
from tests.unit.recordings.clicks import written

pytestmark = pytest.mark.usefixtures("instant_answers")

#: 50 seconds, which are silent, or in a format that is looked into by its conversion only.
SILENT = wav_of([[]], 50)
FLAC = written("flac", "flac", 8_000, 1, samples=np.random.default_rng(1).normal(scale=0.1, size=(1, 400_000)))


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client believes that the service takes 20 s of one channel."""
    monkeypatch.setattr(limits, "MAX_CHANNEL_MS", 20_000)


@pytest.mark.parametrize(
    ("name", "content", "filters"),
    [("silent.wav", SILENT, {"skip_silent": True}), ("long.flac", FLAC, {"max_duration_s": 30})],
    ids=["silent", "long"],
)
def test_a_filter_that_is_set_later_leaves_out_what_has_its_parts_already(
    desk: Desk, emulator_s3: Any, name: str, content: bytes, filters: dict[str, Any]
) -> None:
    audio = desk.put(name, content)
    assert len(seed_parts(desk, emulator_s3, audio, [[]])) > 1
    with pytest.raises(AirflowSkipException):
        submit(desk, audio, **filters)
    assert not list(desk.archive.operations())


def test_a_backfill_is_skipped_while_parts_are_running(desk: Desk, emulator_s3: Any) -> None:
    spoken = words_of(50)
    audio = desk.put("long.wav", wav_of(spoken, 50))
    seed_parts(desk, emulator_s3, audio, spoken)
    ids = submit(desk, audio)

    def backfill() -> dict[str, Any]:
        target = str(desk.place / "backfill")
        return SpeechKitTransformOperator(task_id="rows", operation_prefix="", target=target).execute({})

    for ended in ids[:1], ids[1:2]:
        with pytest.raises(AirflowSkipException, match="None of the 3 operations has ended"):
            backfill()
        wait(ended)
    wait(ids)
    assert backfill()["rows"]["words"] == len(spoken[0])


def test_a_side_that_is_replaced_between_visits_is_not_submitted_as_what_it_was(desk: Desk) -> None:
    spoken = words_of(25, channels=2)
    sides = [desk.put(f"7-{name}.wav", wav_of(spoken[n : n + 1], 25)) for n, name in enumerate(("in", "out"))]
    about = {"upload_to": f"s3://{desk.bucket}/{desk.prefix}-copies/", "split": True}

    def visit(*, is_first: bool) -> Any:
        operator = SpeechKitSubmitOperator(
            task_id="submit", audio=[sides], language="en-US", deferrable=True, submits_per_hour=2, **about
        )
        return operator.execute(context) if is_first else operator.execute_complete(context, None)

    context: Any = {"ti": TaskInstance()}
    with pytest.raises(TaskDeferred):
        visit(is_first=True)
    # Another sound, with the same pauses.
    side = wav_of(spoken[1:], 25)
    desk.put("7-out.wav", side[:44] + side[44:].replace(b"\x01", b"\x02"))
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=2)), pytest.raises(RecordingError, match="replaced"):
        visit(is_first=False)
    assert len(list(desk.archive.operations())) == 2


def test_labels_of_a_part_or_of_the_recognition_are_those_of_the_recording(desk: Desk) -> None:
    audio = desk.put("long.wav", wav_of(words_of(50), 50))
    desk.emulator.seed({"channels": [{"utterances": [{"text": "yes"}]}], "processing_s": 0}, glob=f"*{desk.prefix}*")
    ids = submit(desk, audio, labels={"call": "7"})
    wait(ids)
    [row] = tables(desk, ids, "rows")["recognitions"]
    for number, about in enumerate([ids[1], row["recognition_id"]]):
        assert main(["archive", "label", about, f"call={number}", "--archive", desk.archive_url]) == 0
        [now] = tables(desk, ids, "rows")["recognitions"]
        assert json.loads(now["labels"]) == {"call": str(number)}
        assert {desk.archive.submission(one).labels["call"] for one in ids} == {str(number)}  # type: ignore[union-attr]


@pytest.mark.parametrize("api_version", ["v2", "v3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_without_a_header_are_cut_too(desk: Desk, emulator_s3: Any, api_version: str, channels: int) -> None:
    spoken = words_of(30, channels)
    audio = desk.put("long.pcm", wav_of(spoken, 30)[44:])
    about = {
        "api_version": api_version,
        "audio_encoding": "LINEAR16_PCM",
        "sample_rate_hertz": 8_000,
        "audio_channel_count": channels,
    }
    seed_parts(desk, emulator_s3, audio, spoken, **about)
    ids = submit(desk, audio, **about)
    wait(ids)
    found = tables(desk, ids, "rows")
    assert found["recognitions"][0]["duration_ms"] == 30_000
    assert len(found["words"]) == sum(map(len, spoken))


def test_the_operations_of_an_older_run_do_not_bring_back_its_failure(desk: Desk, emulator_s3: Any) -> None:
    spoken = words_of(50)
    audio = desk.put("long.wav", wav_of(spoken, 50))
    starts = seed_parts(desk, emulator_s3, audio, spoken)
    listed = emulator_s3.list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}-copies/")["Contents"]
    [key] = [one["Key"] for one in listed if "-part2" in one["Key"]]
    # The service was in trouble: such a recording is sent again.
    desk.emulator.seed({"error": {"code": 13, "message": "internal"}, "processing_s": 0}, key=key)
    ids = submit(desk, audio)
    wait(ids, on_failure="record")
    desk.emulator.seed(transcript(spoken, starts[1], starts[2]), key=key)
    again = submit(desk, audio)
    wait(again)
    assert again[1] != ids[1]
    for number, given in enumerate([again, ids, ids[1:2]]):
        found = tables(desk, given, f"rows{number}")
        assert found["recognitions"][0]["status"] == "finished"
        assert len(found["words"]) == len(spoken[0])


def test_all_parts_are_forgotten_by_the_id_in_the_tables(desk: Desk) -> None:
    audio = desk.put("long.wav", wav_of(words_of(50), 50))
    ids = submit(desk, audio)
    wait(ids)
    [row] = tables(desk, ids, "rows")["recognitions"]
    forget = ["archive", "forget", "--keep-copies", "--archive", desk.archive_url]
    assert main([*forget, "parts-0"]) == 1
    assert main([*forget, row["recognition_id"]]) == 0
    assert not list(desk.archive.operations())
