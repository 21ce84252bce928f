"""The fuzzer itself: it runs the same cases each time, ends what hangs, and counts."""

from __future__ import annotations

import re
import signal

import pytest

from tests.fuzz import cases as frame
from tests.fuzz.cases import Hang, Reached, cases


def test_the_same_cases_run_each_time() -> None:
    once, again = ([case.chance.random() for case in cases("frame", 5)] for _ in range(2))
    assert once == again
    assert len(set(once)) == 5


def forever() -> None:
    while True:
        pass


@pytest.mark.parametrize("hang", [forever, lambda: re.match(r"(a|aa)+$", "a" * 60 + "b")])
def test_a_case_that_hangs_is_ended_and_named(monkeypatch: pytest.MonkeyPatch, hang) -> None:
    monkeypatch.setattr(frame, "HANG_S", 0.05)
    [case] = cases("frame", 1)
    with pytest.raises(Hang, match="frame/0"), case:
        hang()
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0.0


def test_an_error_names_its_case() -> None:
    [case] = cases("frame", 1)
    with pytest.raises(AssertionError) as caught, case:
        raise AssertionError
    assert "frame/0" in caught.value.__notes__[0]


@pytest.mark.parametrize(("of_four", "enough"), [(1, False), (2, True)])
def test_mutants_that_nothing_looks_into_are_too_few(of_four: int, enough: bool) -> None:
    reached = Reached()
    for number in range(4):
        reached.count(number < of_four)
    if enough:
        reached.check()
    else:
        with pytest.raises(AssertionError, match="1 of 4"):
            reached.check()
