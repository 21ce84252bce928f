"""Told to misbehave, the emulator does, and says in its records what really happened."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from speechkit_emulator.process import EmulatorProcess
from tests.caller import OGG_HEAD, Caller, quick, transcript_of


@pytest.fixture
def link(speechkit: EmulatorProcess) -> str:
    speechkit.clear_requests()
    return speechkit.put("a.ogg", OGG_HEAD, transcript_of("hello"))


@pytest.mark.parametrize(("status", "code"), [(400, 3), (401, 16), (403, 7), (404, 5), (429, 8), (500, 13), (503, 14)])
def test_a_planned_status_is_returned_and_nothing_is_accepted(
    speechkit: EmulatorProcess, caller: Caller, link: str, status: int, code: int
) -> None:
    before = len(speechkit.billing())
    speechkit.fault(status, on="submit", times=2, message="planned", retry_after="7")
    answers = [caller.submit(link) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert answers[0].json()["code"] == code
    assert answers[0].json()["message"] == "planned"
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[0].headers["x-request-id"]
    assert len(speechkit.billing()) == before + 1


def test_v3_errors_have_the_gateways_form_by_default(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.fault(503, on="recognition")
    speechkit.fault(503, on="recognition", form="bare")
    path = "/stt/v3/getRecognition?operation_id=f8d"
    assert caller.ask("GET", path).json()["error"]["httpStatus"] == "Service Unavailable"
    assert caller.ask("GET", path).json()["code"] == 14


def test_a_drop_before_the_request_leaves_no_operation(speechkit: EmulatorProcess, caller: Caller, link: str) -> None:
    before = len(speechkit.billing())
    speechkit.fault("drop_before", on="submit")
    with pytest.raises(requests.ConnectionError):
        caller.submit(link)
    assert len(speechkit.billing()) == before
    assert speechkit.requests() == {"submit": {"dropped": 1}}


def test_a_drop_after_the_request_leaves_a_billed_operation(
    speechkit: EmulatorProcess, caller: Caller, link: str
) -> None:
    before = len(speechkit.billing())
    speechkit.fault("drop_after", on="submit")
    with pytest.raises(requests.ConnectionError):
        caller.submit(link)
    lines = speechkit.billing()
    assert len(lines) == before + 1
    assert lines[-1]["recording"] == link
    assert lines[-1]["billed_seconds"] == 15


def test_an_answer_can_be_cut_slow_or_garbage(speechkit: EmulatorProcess, caller: Caller) -> None:
    operation_id = speechkit.stand_ins(1, result_bytes=50_000)[0]
    path = f"/operations/{operation_id}"
    speechkit.fault("cut", on="operation", keep=0.5)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        caller.ask("GET", path)
    speechkit.fault("garbage", on="operation")
    answer = caller.ask("GET", path)
    assert answer.status_code == 200
    assert answer.text.startswith("<html>")
    speechkit.fault("slow", on="operation", seconds=0.3)
    before = time.monotonic()
    assert caller.ask("GET", path).json()["done"] is True
    assert time.monotonic() - before >= 0.3


def test_a_fault_can_fail_an_operation(speechkit: EmulatorProcess, caller: Caller, link: str) -> None:
    speechkit.fault("operation_error", code=3, message="planned")
    operation = caller.finished(caller.submit(link).json()["id"])
    assert operation["error"] == {"code": 3, "message": "planned"}
    assert speechkit.billing()[-1]["state"] == "failed"


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_an_operation_can_have_an_error_before_it_is_done(speechkit: EmulatorProcess, caller: Caller, api: str) -> None:
    failure = {"code": 13, "message": "planned"}
    link = speechkit.put("early.ogg", OGG_HEAD, transcript_of("hello", processing_s=100_000))
    speechkit.fault("error_before_done", **failure)
    operation_id = (caller.submit if api == "v2" else caller.submit_v3)(link).json()["id"]
    early = caller.ask("GET", f"/operations/{operation_id}").json()
    assert (early["done"], early["error"]) == (False, failure)
    assert speechkit.billing()[-1]["state"] == "running"
    speechkit.advance(100_000)
    assert caller.finished(operation_id)["error"] == failure
    assert speechkit.billing()[-1]["state"] == "failed"


def test_times_can_have_nine_decimals(speechkit: EmulatorProcess, caller: Caller) -> None:
    words = [{"word": "hello", "start_ms": 0, "end_ms": 880}, {"word": "you", "start_ms": 1000, "end_ms": 1001}]
    link = speechkit.put("nine.ogg", OGG_HEAD, {"duration_ms": 2000, "channels": [{"utterances": [{"words": words}]}]})
    speechkit.fault("nine_decimals")
    operation = caller.finished(caller.submit(link).json()["id"])
    (alternative,) = operation["response"]["chunks"][0]["alternatives"]
    times = [(word["startTime"], word["endTime"]) for word in alternative["words"]]
    assert times == [("0s", "0.879999999s"), ("0.999999999s", "1.000999999s")]


@pytest.mark.parametrize("planned", [True, False])
def test_an_operation_can_fail_with_the_code_of_a_cancellation(
    speechkit: EmulatorProcess, caller: Caller, planned: bool
) -> None:
    failure = {"code": 1, "message": "planned"}
    link = speechkit.put(
        "one.ogg", OGG_HEAD, transcript_of("hello", processing_s=100_000, **({} if planned else {"error": failure}))
    )
    if planned:
        speechkit.fault("operation_error", **failure)
    operation_id = caller.submit(link).json()["id"]
    assert not caller.ask("GET", f"/operations/{operation_id}").json()["done"]
    assert speechkit.billing()[-1]["state"] == "running"
    speechkit.advance(100_000)
    assert caller.finished(operation_id)["error"] == failure
    assert speechkit.billing()[-1]["state"] == "failed"


def test_a_fault_can_match_one_recording(speechkit: EmulatorProcess, caller: Caller, link: str) -> None:
    other = speechkit.put("other.ogg", OGG_HEAD, transcript_of("hello"))
    speechkit.fault(500, match="other.ogg", times=None)
    assert [caller.submit(one).status_code for one in (link, other, link, other)] == [200, 500, 200, 500]
    (fault,) = speechkit.faults()
    assert (fault["seen"], fault["fired"]) == (2, 2)
    speechkit.clear_faults()
    assert caller.submit(other).status_code == 200
    assert speechkit.faults() == []


def test_faults_can_fire_for_iam_and_the_metadata_service(speechkit: EmulatorProcess, caller: Caller) -> None:
    speechkit.fault(503, on="iam")
    speechkit.fault(500, on="metadata")
    assert caller.ask("POST", "/iam/v1/tokens", {}).status_code == 503
    assert caller.ask("GET", "/computeMetadata/v1/instance/service-accounts/default/token").status_code == 500


def test_an_unknown_fault_is_an_error_that_lists_the_kinds(speechkit: EmulatorProcess) -> None:
    with pytest.raises(RuntimeError, match="kind must be one of"):
        speechkit.fault("earthquake")


def test_requests_are_counted_and_logged_with_their_times(
    speechkit: EmulatorProcess, caller: Caller, link: str
) -> None:
    operation_id = caller.submit(link).json()["id"]
    caller.ask("GET", "/operations/e03nothing")
    assert speechkit.requests() == {"operation": {"404": 1}, "submit": {"200": 1}}
    first, second = speechkit.request_log()
    assert (first["kind"], first["outcome"]) == ("submit", "200")
    assert second["path"] == "/operations/e03nothing"
    assert first["wall_s"] <= second["wall_s"]
    assert operation_id.startswith("e03")


@pytest.mark.parametrize(("option", "window_s"), [("--submits-per-hour=3", 3600), ("--v2-checks-per-hour=3", 3600)])
def test_a_used_up_quota_returns_429_until_the_window_moves_on(option: str, window_s: float) -> None:
    with EmulatorProcess(option, speed=1) as emulator:
        caller = Caller(emulator)
        link = emulator.put("a.ogg", OGG_HEAD, transcript_of("hello"))
        operation_id = emulator.stand_ins(1)[0]

        def ask() -> requests.Response:
            if "submits" in option:
                return caller.submit(link)
            return caller.ask("GET", f"/operations/{operation_id}")

        answers = [ask() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].json()["code"] == 8
        emulator.advance(window_s)
        assert ask().status_code == 200
        caller.session.close()


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_stand_ins_can_be_polled_and_read_like_other_operations(api: str) -> None:
    with quick() as emulator:
        caller = Caller(emulator)
        ids = emulator.stand_ins(500, api=api, processing_s=100_000)
        big = emulator.stand_ins(2, api=api, result_bytes=1_000_000)
        failed = emulator.stand_ins(1, api=api, error={"code": 13, "message": "planned"})
        assert len(set(ids)) == 500
        assert caller.ask("GET", f"/operations/{ids[0]}").json()["done"] is False
        path = f"/operations/{big[0]}" if api == "v2" else f"/stt/v3/getRecognition?operation_id={big[0]}"
        assert 800_000 < len(caller.ask("GET", path).content) < 1_300_000
        assert caller.finished(failed[0])["error"]["message"] == "planned"
        assert emulator.billing() == []
        emulator.advance(100_000)
        assert _done(caller, ids[-1])
        caller.session.close()


def _done(caller: Caller, operation_id: str) -> Any:
    return caller.ask("GET", f"/operations/{operation_id}").json()["done"]
