"""A submit that frees its worker while the quota is used up: all is sent in the end, once, and at no time too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_speechkit.archive.batch import How
from airflow_speechkit.archive.ledger import Failure
from airflow_speechkit.errors import BudgetExceededError, QuotaExceededError, SettingsError, SubmissionsFailedError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.results.answer import Answer
from airflow_speechkit.settings import ApiVersion
from tests.fixtures.direct import OGG, Desk
from tests.integration.operators.deferring import Task

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

QUOTA = 50
HOUR_S = 3600


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


def put(desk: Desk, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        desk.emulator.put(f"{desk.prefix}/{number:03}.ogg", OGG + number.to_bytes(2))


@pytest.fixture
def recordings(desk: Desk) -> str:
    put(desk, 120)
    return f"s3://{desk.bucket}/{desk.prefix}/"


def task(desk: Desk, clock: Any, audio: Any, *, run_id: str = "monday", **kwargs: Any) -> Task:
    about = {"language": "en-US", "deferrable": True, "submits_per_hour": QUOTA, **kwargs}
    return Task(desk, SpeechKitSubmitOperator(task_id="submit", audio=audio, **about), clock, run_id)


def answers(desk: Desk) -> Counter[str]:
    """What the service answered to submits."""
    return Counter(desk.emulator.requests().get("submit", {}))


def fail(desk: Desk, operation_id: str, code: int) -> None:
    answer = Answer(operation_id=operation_id, api_version=ApiVersion.V2, operation=b"{}")
    desk.archive.keep(answer, Failure(code, "it failed"), now=datetime.now(UTC))


def test_120_recordings_are_sent_in_three_visits_of_what_the_quota_allows(
    desk: Desk, clock: Any, recordings: str
) -> None:
    submit = task(desk, clock, recordings)
    assert submit.start() is None
    assert desk.billed() == 50
    assert submit.go_on() is None
    assert desk.billed() == 100
    ids = submit.go_on()
    assert answers(desk) == {"200": 120}
    submissions = [desk.archive.submission(one) for one in ids]
    assert [one.audio_uri[-7:] for one in submissions if one] == [f"{number:03}.ogg" for number in range(120)]
    for deferral in submit.deferrals:
        assert set(deferral.kwargs) <= {"began_at", "refused_since"}
        assert all(isinstance(one, float) for one in deferral.kwargs.values())


def test_each_visit_is_late_enough_to_send_50_or_the_rest(desk: Desk, clock: Any) -> None:
    put(desk, 70)
    audio = [f"s3://{desk.bucket}/{desk.prefix}/{number:03}.ogg" for number in range(70)]
    submit = task(desk, clock, audio[:20])
    assert len(submit.start()) == 20
    submit.wait(HOUR_S / 2)
    submit = task(desk, clock, audio)
    assert submit.start() is None
    assert desk.billed() == 50
    assert submit.deferrals[0].moment - datetime.now(UTC) > timedelta(minutes=29), "20 are left, and 20 can go then"
    assert len(submit.go_on()) == 70
    assert answers(desk) == {"200": 70}


@pytest.mark.parametrize("visits", [1, 2])
@pytest.mark.parametrize("reuse", [True, False])
def test_who_is_cleared_between_visits_goes_on_where_it_was(
    desk: Desk, clock: Any, recordings: str, visits: int, reuse: bool
) -> None:
    submit = task(desk, clock, recordings, reuse=reuse)
    assert submit.start() is None
    for _ in range(visits - 1):
        assert submit.go_on() is None
    sent = desk.billed()
    assert submit.start() is None, "the quota is used up as before"
    assert desk.billed() == sent
    ids = submit.finish()
    assert len(set(ids)) == 120
    assert answers(desk) == {"200": 120}


def test_what_is_paid_again_on_purpose_is_so_once(desk: Desk, clock: Any) -> None:
    put(desk, 60)
    audio = f"s3://{desk.bucket}/{desk.prefix}/"
    first = task(desk, clock, audio)
    before = first.finish(first.start())
    submit = task(desk, clock, audio, run_id="tuesday", reuse=False)
    submit.wait(HOUR_S)
    ids = submit.finish(submit.start())
    assert not set(ids) & set(before)
    assert answers(desk) == {"200": 120}


def test_another_run_knows_what_has_used_up_the_quota(desk: Desk, clock: Any, recordings: str) -> None:
    monday, tuesday = task(desk, clock, recordings), task(desk, clock, recordings, run_id="tuesday")
    assert monday.start() is None
    assert tuesday.start() is None
    ids = monday.finish()
    assert tuesday.finish() == ids
    assert answers(desk) == {"200": 120}


def test_a_limit_holds_for_all_visits_together(desk: Desk, clock: Any) -> None:
    put(desk, 60)
    audio = f"s3://{desk.bucket}/{desk.prefix}/"
    seconds = 15
    submit = task(desk, clock, audio, max_billed_seconds=62 * seconds, on_failure="skip")
    assert submit.start() is None
    put(desk, 5, first=60)
    ids = submit.finish()
    assert len(ids) == desk.billed() == 62


def test_more_than_the_limit_is_refused_before_the_first_visit_sends_anything(
    desk: Desk, clock: Any, recordings: str
) -> None:
    with pytest.raises(BudgetExceededError, match="120 recordings would be billed 1800 seconds"):
        task(desk, clock, recordings, max_billed_seconds=1799).start()
    assert desk.billed() == 0


def test_when_others_use_up_the_quota_the_service_is_left_alone_for_a_while(
    desk: Desk, clock: Any, recordings: str
) -> None:
    submit = task(desk, clock, recordings, submits_per_hour=500)
    assert submit.start() is None
    assert desk.billed() == 50
    assert submit.deferrals[-1].moment - datetime.now(UTC) > timedelta(seconds=8)
    pauses = []
    while submit.go_on() is None and desk.billed() == 50:
        pauses.append(round((submit.deferrals[-1].moment - datetime.now(UTC)).total_seconds()))
    assert pauses == sorted(pauses)
    assert max(pauses) <= 600
    ids = submit.finish()
    assert len(ids) == 120
    assert answers(desk)["200"] == 120


def test_a_pause_that_the_service_asks_for_is_kept_to(desk: Desk, clock: Any, recordings: str) -> None:
    desk.emulator.fault("429", on="submit", after=10, times=1, retry_after="1800")
    submit = task(desk, clock, recordings)
    assert submit.start() is None
    assert desk.billed() < 30
    assert submit.deferrals[-1].moment - datetime.now(UTC) > timedelta(seconds=1790)
    assert len(submit.finish()) == 120


def test_a_quota_that_stays_used_up_fails_the_task_after_two_hours(desk: Desk, clock: Any, recordings: str) -> None:
    submit = task(desk, clock, recordings)
    assert submit.start() is None
    desk.emulator.fault("429", on="submit", times=0)
    with pytest.raises(QuotaExceededError):
        submit.finish()
    refused_since = submit.deferrals[-1].kwargs["refused_since"]
    assert datetime.now(UTC).timestamp() - refused_since == pytest.approx(7200, abs=60)
    desk.emulator.clear_faults()
    assert len(submit.finish(submit.start())) == 120
    assert desk.billed() == 120


def test_what_the_service_refused_is_not_sent_to_it_again_at_each_visit(
    desk: Desk, clock: Any, recordings: str
) -> None:
    bad = [f"/{number:03}.ogg" for number in range(60)]
    for name in bad:
        desk.emulator.fault("400", on="submit", times=0, match=name, message="no sound")
    submit = task(desk, clock, recordings, on_failure="skip")
    ids = submit.finish(submit.start())
    assert len(ids) == desk.billed() == 60
    assert answers(desk) == {"200": 60, "400": 60}
    cleared = task(desk, clock, recordings)
    assert cleared.start() is None, "a new try sends them again"
    with pytest.raises(SubmissionsFailedError, match="60 of 120 recordings"):
        cleared.finish()
    assert answers(desk) == {"200": 60, "400": 120}


def test_what_failed_meanwhile_is_handed_on_and_not_paid_again(desk: Desk, clock: Any, recordings: str) -> None:
    submit = task(desk, clock, recordings)
    assert submit.start() is None
    [first, *_] = [one["operation_id"] for one in desk.emulator.billing() if "/000.ogg" in str(one)][-1:]
    fail(desk, first, 13)
    ids = submit.finish()
    assert ids[0] == first
    assert answers(desk) == {"200": 120}
    cleared = submit.start()
    assert cleared is None or cleared[0] != first, "a new try sends it again, as ever"


def test_only_new_hands_on_what_no_other_run_was_handed(desk: Desk, clock: Any, recordings: str) -> None:
    monday = task(desk, clock, recordings, only_new=True)
    ids = monday.finish(monday.start())
    assert len(ids) == 120
    for operation_id in ids:
        desk.archive.keep(Answer(operation_id, ApiVersion.V2, b"{}"), now=datetime.now(UTC))
    tuesday = task(desk, clock, recordings, run_id="tuesday", only_new=True)
    with pytest.raises(AirflowSkipException, match="nothing new"):
        tuesday.start()
    put(desk, 60, first=120)
    new = tuesday.finish(tuesday.start())
    assert len(new) == 60
    assert not set(new) & set(ids)
    assert monday.start() == [*ids, *new], "it hasn't seen the new ones, and nobody has their answers yet"


def test_local_files_are_uploaded_once(desk: Desk, clock: Any, tmp_path: Path) -> None:
    audio = []
    for number in range(60):
        (tmp_path / f"{number:02}.ogg").write_bytes(OGG + number.to_bytes(2))
        audio.append(str(tmp_path / f"{number:02}.ogg"))

    def uploaded() -> dict[str, Any]:
        found = desk.emulator.s3().list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}/uploads/")
        return {one["Key"]: one["LastModified"] for one in found["Contents"]}

    submit = task(desk, clock, audio, upload_to=f"s3://{desk.bucket}/{desk.prefix}/uploads/")
    assert submit.start() is None
    before = uploaded()
    assert len(submit.finish()) == 60
    assert uploaded() == before
    assert answers(desk) == {"200": 60}


def test_without_an_archive_nothing_is_deferred(
    desk: Desk, clock: Any, recordings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"`deferrable` needs an archive.*pay for all of it again"):
        task(desk, clock, recordings, archive=False).start()
    assert desk.billed() == 0
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert SpeechKitSubmitOperator(task_id="submit", audio=recordings).deferrable
    assert not SpeechKitSubmitOperator(task_id="submit", audio=recordings, archive=False).deferrable
    assert not SpeechKitSubmitOperator(task_id="submit", audio=recordings, deferrable=False).deferrable


def test_execution_timeout_counts_from_the_first_visit(desk: Desk, clock: Any, recordings: str) -> None:
    operator = SpeechKitSubmitOperator(
        task_id="submit",
        audio=recordings,
        language="en-US",
        deferrable=True,
        submits_per_hour=QUOTA,
        execution_timeout=timedelta(hours=10),
    )
    with pytest.raises(TaskDeferred) as first:
        operator.execute({})
    assert first.value.timeout is not None
    assert timedelta(hours=9, minutes=50) < first.value.timeout <= timedelta(hours=10)
    began_at = datetime.now(UTC).timestamp() - 3 * HOUR_S
    with pytest.raises(TaskDeferred) as later:
        operator.execute_complete({}, began_at=began_at)
    assert later.value.timeout is not None
    assert timedelta(hours=6, minutes=50) < later.value.timeout <= timedelta(hours=7)


def test_one_visit_tells_how_far_it_is(desk: Desk, clock: Any, recordings: str, caplog: Any) -> None:
    caplog.set_level("INFO")
    submit = task(desk, clock, recordings)
    assert submit.start() is None
    said = [one.getMessage() for one in caplog.records if one.name.startswith("airflow_speechkit")]
    assert "120 recordings: 120 new, which will be billed 1,800 seconds" in said
    assert len([one for one in said if "recordings" in one]) <= 6, said
    caplog.clear()
    submit.finish()
    assert "120 recordings: 50 submitted, 70 left to send" in caplog.text
    assert "120 of 120 recordings done (120 submitted), 0 waiting" in caplog.text
    assert not [one for one in caplog.records if ".ogg" in one.getMessage()], "nothing for each recording"


def test_an_operator_built_on_it_decides_itself_what_to_do_between_visits(
    desk: Desk, clock: Any, recordings: str
) -> None:
    operator = SpeechKitSubmitOperator(
        task_id="submit", audio=recordings, language="en-US", deferrable=True, submits_per_hour=QUOTA
    )
    with operator.visit({}) as visit:
        assert visit.left == 70
        assert visit.next_at is not None
        assert [one.how for one in visit.outcomes] == [How.SUBMITTED] * 50
        assert all(visit.archive.submission(one.operation_id or "") for one in visit.outcomes)
