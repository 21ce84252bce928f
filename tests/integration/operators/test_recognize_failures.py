"""Recordings that fail or are refused: their errors, and what a retry of the task pays for."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_speechkit.archive import submit_queue
from airflow_speechkit.cli import main
from airflow_speechkit.errors import RecognitionFailedError, SpeechKitError, SubmissionsFailedError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.retry import RetryPolicy
from tests.fixtures.direct import OGG
from tests.integration.operators.recognizing import Runs, recognize

if TYPE_CHECKING:
    from tests.fixtures.direct import Desk

CONTENTS = [OGG + bytes([number]) for number in range(3)]
INTERNAL = {"code": 13, "message": "Internal"}


@pytest.fixture
def _brief_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_queue, "_REFUSED_RETRY", RetryPolicy(0.1, 0.1))


def failure(operator: Any) -> Exception:
    with pytest.raises((SpeechKitError, AirflowFailException)) as raised:
        Runs(operator).finish()
    return raised.value


def test_a_failed_recognition_is_paid_again_by_a_clear_but_not_by_a_retry(desk: Desk) -> None:
    audio = [desk.put("good.ogg"), desk.put("bad.ogg", error=INTERNAL)]
    error = failure(recognize(desk, audio))
    # Airflow doesn't try again after this one.
    assert isinstance(error, AirflowFailException)
    assert isinstance(error.__cause__, RecognitionFailedError)
    for word in ("Internal", "bad.ogg", "not tried again", "Clear"):
        assert word in str(error)
    assert desk.billed() == 2
    failure(recognize(desk, audio))
    assert desk.billed() == 3, "a cleared task sends it again"


def test_a_recording_that_would_fail_again_is_not_sent_again(desk: Desk) -> None:
    audio = desk.put("bad.ogg", error={"code": 3, "message": "Unsupported audio"})
    error = failure(recognize(desk, audio))
    assert isinstance(error, AirflowFailException)
    again = failure(recognize(desk, audio))
    assert desk.billed() == 1
    # The wait and the next submit name the same command, which can be run as it stands.
    [command], [same] = (re.findall("`(.*?)`", str(one)) for one in (error, again))
    assert command == same
    program, *arguments = shlex.split(command)
    assert program == "airflow-speechkit"
    assert main(arguments) == 0
    desk.put("bad.ogg", text="two words")
    assert Runs(recognize(desk, audio)).finish()
    assert desk.billed() == 2


def test_a_recording_that_failed_without_a_transcript_is_submitted_again_with_one(desk: Desk) -> None:
    desk.emulator.put(f"{desk.prefix}/ru.ogg", OGG)
    audio = f"s3://{desk.bucket}/{desk.prefix}/ru.ogg"
    error = failure(recognize(desk, audio, language="ru-RU"))
    assert f"no transcript for {audio}" in str(error)
    assert "format that was declared" not in str(error)
    assert "Clear it to send again" in str(error)
    desk.put("ru.ogg", text="два слова")
    assert Runs(recognize(desk, audio, language="ru-RU")).finish()
    assert desk.billed() == 2


@pytest.mark.usefixtures("_brief_pauses")
def test_a_failure_next_to_a_temporary_refusal_is_not_paid_again(desk: Desk) -> None:
    audio = [desk.put("bad.ogg", error=INTERNAL), desk.put("refused.ogg")]
    desk.emulator.fault(500, on="submit", times=0, match="/refused.ogg", code=13)
    error = failure(recognize(desk, audio))
    assert isinstance(error, AirflowFailException)
    assert "2 of 2" in str(error)
    assert "refused.ogg" in str(error)


@pytest.mark.usefixtures("_brief_pauses")
@pytest.mark.parametrize(("code", "is_final"), [(13, True), (3, False)])
def test_a_recorded_failure_next_to_a_refusal_is_not_paid_again(desk: Desk, code: int, is_final: bool) -> None:
    audio = [desk.put("bad.ogg", error={"code": code, "message": "bad"}), desk.put("refused.ogg")]
    desk.emulator.fault(503, on="submit", times=0, match="/refused.ogg", code=14)
    error = failure(recognize(desk, audio, on_failure="record"))
    assert "refused.ogg" in str(error)
    # A retry sends the refused one again, and is welcome where it sends nothing else.
    assert isinstance(error, AirflowFailException) == is_final


@pytest.mark.usefixtures("_brief_pauses")
@pytest.mark.parametrize("count", [1, 2])
def test_refusals_fail_the_task_with_the_same_error_as_a_submit(desk: Desk, count: int) -> None:
    audio = [desk.put(f"{number}.ogg", content=CONTENTS[number]) for number in range(3)]
    for number in range(count):
        desk.emulator.fault(500, on="submit", times=0, match=f"/{number}.ogg", code=13)
    with pytest.raises(SpeechKitError) as raised:
        SpeechKitSubmitOperator(task_id="submit", audio=audio, language="en-US").execute({})
    error = failure(recognize(desk, audio))
    assert type(error) is type(raised.value)
    assert isinstance(error, SpeechKitError)
    assert error.retry_can_help
    assert desk.billed() == 3 - count


def test_the_error_names_all_commands_that_settle_lost_submissions(desk: Desk) -> None:
    audio = [desk.put(f"{number}.ogg", content=CONTENTS[number]) for number in range(3)]
    for number in range(2):
        desk.emulator.fault(504, on="submit", times=1, match=f"/{number}.ogg")
    error = failure(recognize(desk, audio))
    assert isinstance(error, SubmissionsFailedError)
    assert str(error).count("archive adopt") == 2


@pytest.mark.parametrize("on_failure", ["fail", "skip"])
def test_all_of_many_failures_are_named(
    desk: Desk, on_failure: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.emulator.seed({"error": {"code": 3, "message": "bad"}, "processing_s": 0}, glob=f"*{desk.prefix}/b*")
    audio = [desk.put("good.ogg")]
    for number in range(30):
        desk.emulator.put(f"{desk.prefix}/b{number:02}.ogg", OGG + number.to_bytes())
        audio.append(f"s3://{desk.bucket}/{desk.prefix}/b{number:02}.ogg")
    if on_failure == "skip":
        assert len(Runs(recognize(desk, audio, on_failure=on_failure)).finish()) == 1
        output = capsys.readouterr().out + caplog.text
    else:
        output = str(failure(recognize(desk, audio)))
        assert "30 of 31" in output
        assert "and 20 more" in output
    for number in range(30):
        assert f"/b{number:02}.ogg" in output
