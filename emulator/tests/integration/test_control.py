"""The control endpoints refuse invalid values, and the emulator keeps working."""

from __future__ import annotations

from typing import Any

import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.caller import OGG_HEAD, Caller, quick, transcript_of

NAN, INFINITY = float("nan"), float("inf")


def still_works(speechkit: EmulatorProcess, caller: Caller) -> None:
    assert speechkit.faults() == []
    operation_id = caller.submit(speechkit.put("a.ogg", OGG_HEAD, transcript_of("hello"))).json()["id"]
    assert "response" in caller.finished(operation_id)


@pytest.mark.parametrize(
    "seconds", [NAN, INFINITY, -INFINITY, 1e300, 10**400, 1e9 + 1, -1, "NaN", "inf", "60", True, None, [60]]
)
def test_the_clock_advances_by_valid_numbers_only(speechkit: EmulatorProcess, caller: Caller, seconds: Any) -> None:
    before = speechkit.clock()["now_s"]
    with pytest.raises(RuntimeError, match=r"400 .*advance_s must be a number from 0 to 1000000000"):
        speechkit.ask("POST", "/emulator/clock", {"advance_s": seconds})
    assert before <= speechkit.clock()["now_s"] < before + 1e6
    still_works(speechkit, caller)


def test_the_clock_has_a_last_date_and_keeps_its_time_across_a_restart() -> None:
    with quick() as emulator:
        caller = Caller(emulator)
        for _ in range(218):
            emulator.advance(1e9)
        with pytest.raises(RuntimeError, match=r"400 .*time ends at 8941-"):
            emulator.advance(1e9)
        emulator.restart()
        assert emulator.clock()["now"] > "8930"
        still_works(emulator, caller)
        caller.session.close()


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "slow", "seconds": "abc"},
        {"kind": "slow", "seconds": NAN},
        {"kind": "slow", "seconds": 1e300},
        {"kind": "slow", "seconds": -1},
        {"kind": "slow", "seconds": None},
        {"kind": "500", "times": "x"},
        {"kind": "500", "times": -1},
        {"kind": "500", "times": 1.5},
        {"kind": "500", "times": True},
        {"kind": "500", "after": "x"},
        {"kind": "500", "after": None},
        {"kind": "500", "match": 5},
        {"kind": "500", "match": None},
        {"kind": "cut", "keep": "x"},
        {"kind": "cut", "keep": NAN},
        {"kind": "cut", "keep": 2},
        {"kind": "429", "retry_after": 5},
        {"kind": "429", "retry_after": "5\r\nx: y"},
        {"kind": "500", "message": 5},
        {"kind": "500", "message": "\ud800"},
        {"kind": "500", "code": "x"},
        {"kind": "500", "code": 0},
        {"kind": "500", "code": 99},
        {"kind": "500", "form": ["bare"]},
        {"kind": "500", "on": ["submit"]},
        {"kind": "²"},
        {"kind": ["500"]},
    ],
)
def test_a_fault_with_an_invalid_field_is_refused(
    speechkit: EmulatorProcess, caller: Caller, fault: dict[str, Any]
) -> None:
    with pytest.raises(RuntimeError, match=r"400 .*(must be|is not Unicode)"):
        speechkit.ask("POST", "/emulator/faults", fault)
    still_works(speechkit, caller)


@pytest.mark.parametrize("times", [0, None])
def test_a_fault_without_a_limit_fires_until_it_is_removed(
    speechkit: EmulatorProcess, caller: Caller, times: int | None
) -> None:
    speechkit.fault(503, on="operation", times=times)
    assert {caller.ask("GET", "/operations/e03").status_code for _ in range(5)} == {503}
    speechkit.clear_faults()
    assert caller.ask("GET", "/operations/e03").status_code == 404


@pytest.mark.parametrize(
    "asked",
    [
        {"count": 0},
        {"count": 1e300},
        {"count": "many"},
        {"api": ["v2"]},
        {"processing_s": NAN},
        {"processing_s": "soon"},
        {"spread_s": INFINITY},
        {"spread_s": "x"},
        {"result_bytes": "x"},
        {"duration_ms": 1e300},
        {"channels": 0},
        {"error": {}},
        {"error": {"code": "x", "message": "no"}},
        {"error": {"code": 13, "message": "\ud800"}},
        {"error": [13]},
        {"mood": "good"},
    ],
)
def test_stand_ins_with_an_invalid_field_are_refused(
    speechkit: EmulatorProcess, caller: Caller, asked: dict[str, Any]
) -> None:
    with pytest.raises(RuntimeError, match="400 "):
        speechkit.ask("POST", "/emulator/operations", asked)
    still_works(speechkit, caller)


@pytest.mark.parametrize("path", ["faults", "clock", "operations"])
@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' * 200 + b"1" + b"}" * 200]
)
def test_a_control_request_without_an_object_is_refused(caller: Caller, path: str, body: bytes) -> None:
    answer = caller.ask("POST", f"/emulator/{path}", body)
    assert answer.status_code == 400
    assert answer.json()["error"]
