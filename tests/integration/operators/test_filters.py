"""Recordings that aren't worth it are left out, counted, and on request rows of `recognitions`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_speechkit.errors import RecordingError, SettingsError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import Desk
from tests.integration.operators.recognizing import Runs, recognize
from tests.unit.recordings.sounds import of_samples

RATE = 8_000
OPUS = ("libopus", "ogg")


def sound(seconds: float, amplitude: float = 3_000, rate: int = 48_000, *, form: tuple[str, str] = OPUS) -> bytes:
    count = round(seconds * rate)
    tone = amplitude * np.sin(np.arange(count) / 30)
    # Of two channels one is always silent.
    return of_samples(np.stack([np.zeros(count), tone]), *form, rate=rate)


#: Name -> its content, and why it is left out with `LIMITS`.
NIGHT: dict[str, tuple[bytes, str | None]] = {
    "long.mp3": (sound(30, form=("libmp3lame", "mp3")), "too_long"),
    "normal.ogg": (sound(10), None),
    "short.ogg": (sound(2), "too_short"),
    "shorter than a word.ogg": (sound(0.04), "too_short"),
    "silent and short.ogg": (sound(2, amplitude=0), "too_short"),
    "silent.ogg": (sound(10, amplitude=50), "silent"),
    "silent.mp3": (sound(10, amplitude=50, form=("libmp3lame", "mp3")), "silent"),
}
LIMITS: dict[str, Any] = {"min_duration_s": "{{ params.least }}", "max_duration_s": 20, "skip_silent": True}
#: These are converted, or unwrapped from their WAV.
CONVERTED: dict[str, tuple[bytes, str | None]] = {
    "long.wav": (sound(30, rate=RATE, form=("pcm_alaw", "wav")), "too_long"),
    "normal.m4a": (sound(10, form=("aac", "mp4")), None),
    "normal.wav": (sound(10, rate=RATE, form=("pcm_s16le", "wav")), None),
    "short.flac": (sound(2, form=("flac", "flac")), "too_short"),
    "shorter than a word.wav": (sound(0.04, rate=RATE, form=("pcm_s16le", "wav")), "too_short"),
    "silent.flac": (sound(10, amplitude=50, form=("flac", "flac")), "silent"),
    "silent.wav": (sound(10, amplitude=50, rate=RATE, form=("pcm_s16le", "wav")), "silent"),
    "silent.webm": (sound(10, amplitude=50, form=("libopus", "webm")), "silent"),
}


def operator(desk: Desk, audio: Any, **kwargs: Any) -> SpeechKitSubmitOperator:
    made = SpeechKitSubmitOperator(task_id="submit", audio=audio, language="en-US", **{**LIMITS, **kwargs})
    made.render_template_fields({"params": {"least": 5}})
    return made


def submit(desk: Desk, audio: Any, **kwargs: Any) -> Any:
    return operator(desk, audio, **kwargs).execute({})


def put(desk: Desk, night: dict[str, tuple[bytes, str | None]]) -> str:
    for name, (content, _) in night.items():
        desk.put(name, content)
    return f"s3://{desk.bucket}/{desk.prefix}/"


def upload_to(desk: Desk) -> str:
    return f"s3://{desk.bucket}/{desk.prefix}-copies/"


def copies(desk: Desk, client: Any) -> list[str]:
    listed = client.list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}-copies/")
    return [one["Key"].rpartition("/")[2] for one in listed.get("Contents", ())]


def billed(desk: Desk) -> int:
    return sum(desk.prefix in str(one) for one in desk.emulator.billing())


def submitted(desk: Desk, ids: list[str]) -> set[str]:
    found = [desk.archive.submission(one) for one in ids]
    return {one.audio_uri.rpartition("/")[2] for one in found if one is not None}


def rows(ids: Any, target: Path) -> dict[str, dict[str, Any]]:
    SpeechKitRecognitionSensor(task_id="wait", operation_id=ids, poke_interval=0.1, deferrable=False).execute({})
    SpeechKitTransformOperator(task_id="rows", operation_id=ids, target=str(target)).execute({})
    files = sorted((target / "recognitions").rglob("*.parquet"))
    every = [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    return {row["audio_uri"].rpartition("/")[2]: row for row in every}


def test_only_what_is_worth_it_is_sent(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ids = submit(desk, put(desk, NIGHT))
    assert submitted(desk, ids) == {"normal.ogg"}
    assert billed(desk) == len(ids) == 1
    assert "6 recordings are left out: 3 shorter than 5 s, 1 longer than 20 s, 2 silent" in caplog.text
    with pytest.raises(AirflowSkipException, match="Every recording was skipped"):
        submit(desk, f"s3://{desk.bucket}/{desk.prefix}/silent.ogg")


def test_what_is_left_out_becomes_rows(desk: Desk, tmp_path: Path) -> None:
    ids = submit(desk, put(desk, NIGHT), on_filtered="record", labels={"night": "1"})
    found = rows(ids, tmp_path / "tables")
    assert {name: row["filter_reason"] for name, row in found.items()} == {
        name: reason for name, (_, reason) in NIGHT.items()
    }
    assert billed(desk) == 1
    row = found["short.ogg"]
    assert row["recognition_id"] in ids
    assert (row["status"], row["operation_id"], row["billed_seconds"], row["error_code"], row["error_message"]) == (
        "filtered",
        None,
        0,
        None,
        None,
    )
    assert (row["duration_ms"], row["channels"], row["labels"]) == (2_000, 2, '{"night":"1"}')
    assert sum(row["billed_seconds"] for row in found.values()) == 15


@pytest.mark.parametrize("identity", ["address", "content"])
def test_only_new_leaves_out_what_another_run_has_got(
    desk: Desk, identity: str, caplog: pytest.LogCaptureFixture
) -> None:
    def run(run_id: str) -> Any:
        ti = type("TaskInstance", (), {"dag_id": "calls", "run_id": run_id, "task_id": "submit", "map_index": -1})()
        made = operator(desk, audio, only_new=True, on_filtered="record", identity=identity)
        return made.execute({"ti": ti})

    audio = put(desk, {"short.ogg": NIGHT["short.ogg"]})
    [short] = run("monday")
    assert run("monday") == [short], "a retry"
    with pytest.raises(AirflowSkipException, match="There is nothing new"):
        run("tuesday")
    put(desk, {"another.ogg": NIGHT["silent and short.ogg"], "copy.ogg": NIGHT["short.ogg"]})
    caplog.set_level(logging.INFO)
    ids = run("wednesday")
    assert len(ids) == 2
    assert "3 recordings are left out: 3 shorter than 5 s" in caplog.text
    # A copy has rows of its own, which the one operation brings.
    assert (short in ids) is (identity == "content")
    assert run("wednesday") == ids
    with pytest.raises(AirflowSkipException, match="There is nothing new"):
        run("thursday")


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"min_duration_s": 5}, ["short.ogg", "shorter than a word.ogg", "silent and short.ogg"]),
        ({"max_duration_s": 20}, ["long.mp3"]),
        ({"skip_silent": True}, ["silent and short.ogg", "silent.mp3", "silent.ogg"]),
    ],
    ids=["short", "long", "silent"],
)
def test_each_filter_works_alone(desk: Desk, given: dict[str, Any], left_out: list[str]) -> None:
    audio = put(desk, NIGHT)
    nothing = {"min_duration_s": None, "max_duration_s": None, "skip_silent": False}
    # Without a limit the service's own refuses what is shorter than a word.
    ids = submit(desk, audio, on_failure="skip", **{**nothing, **given})
    assert sorted({*NIGHT, "shorter than a word.ogg"} - submitted(desk, ids)) == sorted(
        {*left_out, "shorter than a word.ogg"}
    )


def test_a_filter_that_is_relaxed_sends_them(desk: Desk, tmp_path: Path) -> None:
    audio = put(desk, {name: NIGHT[name] for name in ("short.ogg", "silent.ogg")})
    before = submit(desk, audio, on_filtered="record")
    after = submit(desk, audio, on_filtered="record", min_duration_s=1, skip_silent=False)
    assert len({*before, *after}) == 4
    assert billed(desk) == 2
    assert submit(desk, audio) == after, "they have their operations"
    found = rows(after, tmp_path / "tables")
    assert {row["status"] for row in found.values()} == {"finished"}


@pytest.mark.parametrize("api_version", ["v2", "v3"])
def test_what_would_be_converted_is_left_out_before_anything_is_uploaded(
    desk: Desk, emulator_s3: Any, api_version: str
) -> None:
    audio = put(desk, CONVERTED)
    given = {"upload_to": upload_to(desk), "api_version": api_version, "on_filtered": "record"}
    ids = submit(desk, audio, **given)
    found = [desk.archive.submission(one) for one in ids]
    reasons = {one.audio_uri.rpartition("/")[2]: one.filter_reason for one in found if one is not None}
    assert reasons == {name: reason for name, (_, reason) in CONVERTED.items()}
    assert billed(desk) == 2
    assert len(copies(desk, emulator_s3)) == (2 if api_version == "v2" else 1)


@pytest.mark.parametrize("api_version", ["v2", "v3"])
def test_copies_that_are_there_are_measured(desk: Desk, emulator_s3: Any, api_version: str) -> None:
    desk.put("normal.flac", sound(10, form=("flac", "flac")))
    desk.put("five.flac", sound(5, form=("flac", "flac")))
    audio = put(desk, {name: CONVERTED[name] for name in ("silent.flac", "silent.webm", "normal.m4a", "short.flac")})
    given = {"upload_to": upload_to(desk), "api_version": api_version}
    assert len(submit(desk, audio, skip_silent=False, min_duration_s=None, **given)) == 6
    before = billed(desk)
    ids = submit(desk, audio, archive=str(desk.place / "another"), on_filtered="record", **given)
    assert [one.startswith("filtered-") for one in ids] == [False, False, False, True, True, True]
    assert len(copies(desk, emulator_s3)) == 6
    assert billed(desk) == before + 3


@pytest.mark.parametrize("api_version", ["v2", "v3"])
def test_local_files_are_left_out_before_they_are_uploaded(
    desk: Desk, emulator_s3: Any, tmp_path: Path, api_version: str
) -> None:
    files = {**NIGHT, **CONVERTED}
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    given = {"upload_to": upload_to(desk), "api_version": api_version, "on_filtered": "record"}
    ids = submit(desk, [str(tmp_path / name) for name in files], **given)
    found = [desk.archive.submission(one) for one in ids]
    assert [one.filter_reason for one in found if one is not None] == [reason for _, reason in files.values()]
    assert len(copies(desk, emulator_s3)) == billed(desk) == 3


def test_local_files_of_v3_are_left_out_too(desk: Desk, tmp_path: Path) -> None:
    before = len(desk.emulator.billing())
    paths = [tmp_path / name.replace(" ", "-") for name in NIGHT]
    for path, (content, _) in zip(paths, NIGHT.values(), strict=True):
        path.write_bytes(content)
    ids = submit(desk, list(map(str, paths)), api_version="v3", on_filtered="record")
    assert sum(one.startswith("filtered-") for one in ids) == len(NIGHT) - 1
    assert submit(desk, list(map(str, paths)), api_version="v3", on_filtered="record") == ids
    assert len(desk.emulator.billing()) == before + 1


def test_what_has_its_operation_is_not_counted_as_left_out(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "short.ogg"
    path.write_bytes(sound(2))
    sent = submit(desk, str(path), api_version="v3", min_duration_s=None)
    assert submit(desk, str(path), api_version="v3") == sent
    assert "left out" not in caplog.text


def test_what_cannot_be_read_stays_an_error(desk: Desk) -> None:
    empty, broken = desk.put("empty.ogg", b""), desk.put("broken.ogg", sound(10)[:5_000])
    for audio in (empty, broken):
        with pytest.raises(RecordingError, match=r"empty|truncated"):
            submit(desk, audio, min_duration_s=3600, max_duration_s=None)


def test_what_another_rule_refuses_may_be_left_out_first(desk: Desk) -> None:
    """API v2 takes no WAV, and nothing is to be converted."""
    audio = desk.put("1.wav", CONVERTED["normal.wav"][0])
    with pytest.raises(RecordingError, match="API v2 takes no WAV"):
        submit(desk, audio)
    with pytest.raises(AirflowSkipException):
        submit(desk, audio, min_duration_s=11)


@pytest.mark.parametrize("deferrable", [True, False])
def test_recognize_neither_waits_for_them_nor_fails(
    desk: Desk, tmp_path: Path, deferrable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    audio = put(desk, NIGHT)
    given = {**LIMITS, "min_duration_s": 5, "deferrable": deferrable}
    left = Runs(recognize(desk, audio, **given)).finish()
    assert submitted(desk, left) == {"normal.ogg"}
    assert "6 recordings are left out: 3 shorter than 5 s, 1 longer than 20 s, 2 silent" in caplog.text
    ids = Runs(recognize(desk, audio, on_filtered="record", **given)).finish()
    assert len(ids) == len(NIGHT)
    assert {name: row["filter_reason"] for name, row in rows(ids, tmp_path).items()} == {
        name: reason for name, (_, reason) in NIGHT.items()
    }
    assert billed(desk) == 1
    with pytest.raises(AirflowSkipException):
        Runs(recognize(desk, [f"{audio}short.ogg"], **given)).finish()


def test_wrong_keywords_are_refused_before_anything_is_sent(desk: Desk) -> None:
    audio = put(desk, {"normal.ogg": NIGHT["normal.ogg"]})
    for given, what in (
        ({"min_duration_s": 30}, "no recording is between them"),
        ({"on_filtered": "drop"}, "`on_filtered`"),
        ({"on_filtered": "record", "archive": False}, "`on_filtered='record'` needs an archive"),
    ):
        with pytest.raises(SettingsError, match=what):
            submit(desk, audio, **given)
    assert not billed(desk)


@pytest.mark.parametrize("archive", [False, "another"])
def test_a_sensor_without_the_archive_says_what_it_needs(desk: Desk, tmp_path: Path, archive: str | bool) -> None:
    [filtered] = submit(desk, [put(desk, {"short.ogg": NIGHT["short.ogg"]}) + "short.ogg"], on_filtered="record")
    sensor = SpeechKitRecognitionSensor(
        task_id="wait",
        operation_id=filtered,
        archive=archive and str(tmp_path / archive),
        deferrable=False,
        timeout=10,
    )
    with pytest.raises(SettingsError, match="a recording that was not submitted, and only an archive knows why"):
        sensor.execute({})
