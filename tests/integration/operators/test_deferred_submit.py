"""A submit that frees its worker while the quota is used up: it sends each recording once, within the quota."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_speechkit.archive.submit_rules import SubmitStatus
from airflow_speechkit.errors import QuotaExceededError, SettingsError, SubmissionsFailedError
from airflow_speechkit.models import Answer
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.recordings.audio import facts as limits
from airflow_speechkit.settings import ApiVersion
from tests.fixtures.direct import OGG, Desk
from tests.integration.operators.deferring import Task, TaskInstance
from tests.integration.operators.long_recordings import wav_of, words_of
from tests.unit.recordings.clicks import written

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

HOUR_S = 3600

#: The service's submits per hour, and the operator's default.
QUOTA, OWN_QUOTA = 50, 10

MONO = written("pcm_s16le", "wav", 8_000, 1)


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    """A service that takes 50 recordings in any hour, by the same clock as the worker's."""
    from speechkit_emulator.process import EmulatorProcess

    with EmulatorProcess("--submits-per-hour", str(QUOTA), speed=1) as process:
        process.seed({"channels": [{"utterances": [{"text": "two words"}]}], "processing_s": 0}, glob="*")
        yield process


@pytest.fixture
def clock(emulator: EmulatorProcess) -> Iterator[Any]:
    emulator.advance(HOUR_S)
    emulator.clear_requests()
    with time_machine.travel(datetime.now(UTC)) as traveller:
        yield traveller


def put(desk: Desk, count: int, first: int = 0) -> str:
    """Put recordings into the bucket, and return the prefix of all."""
    for number in range(first, first + count):
        desk.emulator.put(f"{desk.prefix}/{number:03}.ogg", OGG + number.to_bytes(2))
    return f"s3://{desk.bucket}/{desk.prefix}/"


def task(desk: Desk, clock: Any, audio: Any, *, run_id: str = "monday", **kwargs: Any) -> Task:
    about = {"language": "en-US", "deferrable": True, "submits_per_hour": OWN_QUOTA, **kwargs}
    return Task(desk, SpeechKitSubmitOperator(task_id="submit", audio=audio, **about), clock, run_id)


def answers(desk: Desk) -> Counter[str]:
    """What the service answered to submits."""
    return Counter(desk.emulator.requests().get("submit", {}))


def test_120_recordings_are_sent_in_three_visits_within_the_quota(desk: Desk, clock: Any) -> None:
    submit = task(desk, clock, put(desk, 120), submits_per_hour=QUOTA)
    assert submit.start() is None
    assert desk.billed() == 50
    assert submit.go_on() is None
    assert desk.billed() == 100
    ids = submit.go_on()
    assert answers(desk) == {"200": 120}
    submissions = [desk.archive.submission(one) for one in ids]
    assert [one.audio_uri[-7:] for one in submissions if one] == [f"{number:03}.ogg" for number in range(120)]
    assert not any(deferral.kwargs for deferral in submit.deferrals)


@pytest.mark.parametrize("reuse", [True, False])
def test_a_task_cleared_between_visits_continues_where_it_was(desk: Desk, clock: Any, reuse: bool) -> None:
    submit = task(desk, clock, put(desk, 25), reuse=reuse)
    assert submit.start() is None
    assert submit.start() is None, "the quota is used up as before"
    assert desk.billed() == 10
    assert submit.go_on() is None
    assert submit.start() is None
    assert desk.billed() == 20
    ids = submit.finish()
    assert len(set(ids)) == 25
    assert answers(desk) == {"200": 25}


def test_recordings_that_arrive_between_visits_are_left_to_the_next_run(desk: Desk, clock: Any) -> None:
    submit = task(desk, clock, put(desk, 15), max_billed_seconds=15 * 15)
    assert submit.start() is None
    put(desk, 5, first=15)
    ids = submit.finish()
    assert len(ids) == desk.billed() == 15


def test_labels_are_those_of_the_first_visit(desk: Desk, clock: Any) -> None:
    prefix = put(desk, 15)
    for number in range(15):
        desk.emulator.put(f"{desk.prefix}/{number:03}.json", b'{"n": %d}' % number)
    submit = task(desk, clock, prefix, labels_from_sidecar="{stem}.json", sidecar_fields=["n"])
    assert submit.start() is None
    for number in range(15):
        desk.emulator.put(f"{desk.prefix}/{number:03}.json", b"{")
    submissions = [desk.archive.submission(one) for one in submit.finish()]
    assert [one.labels for one in submissions if one] == [{"n": str(number)} for number in range(15)]


def test_parts_that_are_left_are_sent_by_the_next_visit(
    desk: Desk, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CHANNEL_MS", 20_000)
    prefix = put(desk, 8)
    desk.emulator.put(f"{desk.prefix}/long.wav", wav_of(words_of(50), 50))
    about = {"split": True, "upload_to": f"s3://{desk.bucket}/{desk.prefix}-copies/"}
    submit = task(desk, clock, prefix, **about)
    assert submit.start() is None
    ids = submit.finish()
    assert answers(desk) == {"200": 11}
    parts = [one.part for one in map(desk.archive.submission, ids) if one and one.part]
    assert [(one.number, one.of) for one in parts] == [(1, 3), (2, 3), (3, 3)]
    assert len({one.fingerprints for one in parts}) == 1
    assert task(desk, clock, prefix, run_id="tuesday", **about).start() == ids
    assert answers(desk) == {"200": 11}


@pytest.mark.parametrize("first", ["execute", "a retry"])
def test_a_recording_replaced_between_tries_is_sent_in_its_new_version(desk: Desk, clock: Any, first: str) -> None:
    submit = task(desk, clock, put(desk, 15))
    assert submit.start() is None
    if first == "a retry":
        assert len(submit.finish()) == 15
    desk.emulator.put(f"{desk.prefix}/001.ogg", OGG + b"a new one")
    ids = submit.finish(submit.start())
    assert len(ids) == 15
    assert desk.billed() == 16


def test_an_archive_that_was_removed_between_visits_is_not_created_again(
    desk: Desk, clock: Any, tmp_path: Path
) -> None:
    archive = tmp_path / "mounted"
    archive.mkdir()
    submit = task(desk, clock, put(desk, 15), archive=archive.as_uri())
    assert submit.start() is None
    archive.rename(tmp_path / "elsewhere")
    archive.mkdir()
    with pytest.raises(AirflowFailException, match="Is the disk mounted"):
        submit.go_on()
    assert desk.billed() == 10
    assert not list(archive.iterdir())
    archive.rmdir()
    (tmp_path / "elsewhere").rename(archive)
    assert len(submit.finish(submit.start())) == desk.billed() == 15


@pytest.mark.parametrize("api_version", ["v2", "v3"])
def test_if_others_use_up_the_quota_the_task_pauses(desk: Desk, clock: Any, api_version: str) -> None:
    submit = task(desk, clock, put(desk, 60), submits_per_hour=500, api_version=api_version)
    assert submit.start() is None
    assert desk.billed() == 50
    pauses = []
    while submit.go_on() is None and desk.billed() == 50:
        pauses.append(round((submit.deferrals[-1].moment - datetime.now(UTC)).total_seconds()))
    assert pauses == sorted(pauses)
    assert max(pauses) <= 600
    assert desk.billed() == answers(desk)["200"] == 60
    assert len(submit.start()) == 60


def test_a_pause_requested_by_the_service_is_respected(desk: Desk, clock: Any) -> None:
    desk.emulator.fault("429", on="submit", after=5, times=1, retry_after="1800")
    submit = task(desk, clock, put(desk, 25), submits_per_hour=QUOTA)
    assert submit.start() is None
    assert desk.billed() < 25
    assert submit.deferrals[-1].moment - datetime.now(UTC) > timedelta(seconds=1790)
    assert len(submit.finish()) == 25


def test_a_quota_used_up_for_two_hours_fails_the_task(desk: Desk, clock: Any) -> None:
    submit = task(desk, clock, put(desk, 15))
    assert submit.start() is None
    desk.emulator.fault("429", on="submit", times=0)
    refused_since = submit.deferrals[-1].moment
    with pytest.raises(QuotaExceededError):
        submit.finish()
    assert (datetime.now(UTC) - refused_since).total_seconds() == pytest.approx(2 * HOUR_S, abs=120)
    desk.emulator.clear_faults()
    assert len(submit.finish(submit.start())) == desk.billed() == 15


def test_refused_recordings_are_not_sent_again_at_each_visit(desk: Desk, clock: Any) -> None:
    recordings = put(desk, 24)
    for number in range(12):
        desk.emulator.fault("400", on="submit", times=0, match=f"/{number:03}.ogg", message="no sound")
    submit = task(desk, clock, recordings, on_failure="skip")
    ids = submit.finish(submit.start())
    assert len(ids) == desk.billed() == 12
    assert answers(desk) == {"200": 12, "400": 12}
    cleared = task(desk, clock, recordings)
    assert cleared.start() is None, "a new try sends them again"
    with pytest.raises(SubmissionsFailedError, match="12 of 24 recordings"):
        cleared.finish()
    assert answers(desk) == {"200": 12, "400": 24}


@pytest.mark.parametrize("by_prefix", [True, False])
def test_recordings_deleted_or_replaced_after_sending_are_still_returned(
    desk: Desk, clock: Any, by_prefix: bool
) -> None:
    recordings = put(desk, 15)
    keys = [f"{desk.prefix}/{number:03}.ogg" for number in range(15)]
    audio: Any = recordings if by_prefix else [f"s3://{desk.bucket}/{key}" for key in keys]
    submit = task(desk, clock, audio, labels={"call": "17"})
    assert submit.start() is None
    desk.emulator.put(keys[1], OGG + b"a new one")
    desk.emulator.s3().delete_object(Bucket=desk.bucket, Key=keys[2])
    ids = submit.finish()
    assert answers(desk) == {"200": 15}
    submissions = [desk.archive.submission(one) for one in ids]
    assert sorted(one.audio_uri for one in submissions if one) == [f"s3://{desk.bucket}/{key}" for key in keys]
    assert {one.labels["call"] for one in submissions if one} == {"17"}


@pytest.mark.parametrize("on_failure", ["fail", "skip"])
def test_sent_recordings_are_returned_although_all_objects_were_deleted(
    desk: Desk, clock: Any, on_failure: str
) -> None:
    submit = task(desk, clock, put(desk, 15), on_failure=on_failure)
    assert submit.start() is None
    for number in range(15):
        desk.emulator.s3().delete_object(Bucket=desk.bucket, Key=f"{desk.prefix}/{number:03}.ogg")
    if on_failure == "fail":
        with pytest.raises(SubmissionsFailedError, match="5 of 15 recordings"):
            submit.go_on()
    else:
        assert len(submit.go_on()) == 10
    with pytest.raises(AirflowSkipException):
        submit.start()


def test_only_new_returns_recordings_that_no_other_run_received(desk: Desk, clock: Any) -> None:
    recordings = put(desk, 15)
    monday = task(desk, clock, recordings, only_new=True)
    ids = monday.finish(monday.start())
    assert len(ids) == 15
    for operation_id in ids:
        desk.archive.keep(Answer(operation_id, ApiVersion.V2, b"{}"), now=datetime.now(UTC))
    tuesday = task(desk, clock, recordings, run_id="tuesday", only_new=True)
    with pytest.raises(AirflowSkipException, match="nothing new"):
        tuesday.start()
    put(desk, 15, first=15)
    new = tuesday.finish(tuesday.start())
    assert len(new) == 15
    assert not set(new) & set(ids)


def test_local_files_are_uploaded_once(desk: Desk, clock: Any, tmp_path: Path) -> None:
    audio = []
    for number in range(15):
        (tmp_path / f"{number:02}.ogg").write_bytes(OGG + number.to_bytes(2))
        audio.append(str(tmp_path / f"{number:02}.ogg"))

    def uploaded() -> dict[str, Any]:
        found = desk.emulator.s3().list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}/uploads/")
        return {one["Key"]: one["LastModified"] for one in found["Contents"]}

    submit = task(desk, clock, audio, upload_to=f"s3://{desk.bucket}/{desk.prefix}/uploads/")
    assert submit.start() is None
    before = uploaded()
    assert len(submit.finish()) == 15
    assert uploaded() == before
    assert answers(desk) == {"200": 15}


def test_without_an_archive_nothing_is_deferred(desk: Desk, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = put(desk, 1)
    with pytest.raises(SettingsError, match=r"`deferrable` needs an archive.*Set an archive"):
        task(desk, clock, recordings, archive=False).start()
    assert desk.billed() == 0
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert SpeechKitSubmitOperator(task_id="submit", audio=recordings).deferrable
    assert not SpeechKitSubmitOperator(task_id="submit", audio=recordings, archive=False).deferrable
    assert not SpeechKitSubmitOperator(task_id="submit", audio=recordings, deferrable=False).deferrable


def test_execution_timeout_counts_from_the_first_visit(desk: Desk, clock: Any) -> None:
    submit = task(desk, clock, put(desk, 25), execution_timeout=timedelta(hours=10))
    assert submit.start() is None
    submit.wait(5 * HOUR_S)
    assert submit.go_on() is None
    first, later = (one.timeout for one in submit.deferrals)
    assert timedelta(hours=9) < first <= timedelta(hours=10)
    assert timedelta(hours=4) < later <= timedelta(hours=5)


def test_the_log_has_found_remaining_and_finished_recordings(
    desk: Desk, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    submit = task(desk, clock, put(desk, 25), submits_per_hour=15)
    assert submit.start() is None
    assert (
        "25 recordings: 0 known, 0 are being submitted elsewhere, 25 new, which will be billed 375 seconds\n"
        in caplog.text
    )
    assert "submitted 15 of 25, refused 0, the next go out at " in caplog.text
    submit.finish()
    assert caplog.messages[-1] == "submitted 25 of 25, refused 0"
    logged = [one.getMessage() for one in caplog.records if "airflow_speechkit" in one.name]
    assert not [one for one in logged if ".ogg" in one], "nothing for each recording"
    assert not [one for one in logged if "request-id" in one]


def test_a_derived_operator_can_change_what_happens_between_visits(desk: Desk, clock: Any) -> None:
    recordings = put(desk, 15)
    operator = SpeechKitSubmitOperator(task_id="submit", audio=recordings, language="en-US", submits_per_hour=OWN_QUOTA)
    context: Any = {"ti": TaskInstance("monday")}
    with operator.visit(context) as visit:
        assert len(visit.run.left) == 5
        assert visit.run.next_at is not None
        assert [one.status for one in visit.run.done] == [SubmitStatus.SUBMITTED] * 10
        assert all(visit.archive.submission(one.operation_id or "") for one in visit.run.done)
    clock.shift(HOUR_S)
    with operator.visit(context, is_first=False) as visit:
        assert not visit.run.left
        assert visit.run.next_at is None
        assert len(visit.returned_ids()) == 15


def test_pairs_are_pairs_in_later_visits(desk: Desk, clock: Any) -> None:
    """And a side that is replaced between visits is a new submission, in which both sides are of one version."""
    for number in range(12):
        for side in ("in", "out"):
            desk.emulator.put(f"{desk.prefix}/{number:02}-{side}.wav", MONO)
    about = {
        "upload_to": f"s3://{desk.bucket}/{desk.prefix}/copies/",
        "pair": ("{call}-in.wav", "{call}-out.wav"),
        "channel_labels": ("agent", "customer"),
        "audio": f"s3://{desk.bucket}/{desk.prefix}/",
    }
    submit = task(desk, clock, **about)
    assert submit.start() is None
    before = desk.billed()
    assert before < 12
    desk.emulator.put(f"{desk.prefix}/11-out.wav", written("pcm_alaw", "wav", 8_000, 1))
    ids = submit.finish()
    found = [desk.archive.submission(one) for one in ids]
    root = f"s3://{desk.bucket}/{desk.prefix}"
    assert [(one.audio_uri, one.paired_uri, one.channels, one.labels) for one in found if one] == [
        (
            f"{root}/{number:02}-in.wav",
            f"{root}/{number:02}-out.wav",
            2,
            {"channel_0": "agent", "channel_1": "customer"},
        )
        for number in range(12)
    ]
    assert desk.billed() == 12
    submit = task(desk, clock, **about)
    assert submit.finish(submit.start()) == ids
