"""Errors in a row."""

from __future__ import annotations

import math

from airflow_speechkit.polling.outage import LASTING, TRANSIENT, Failures, Outage, Patience

BRIEF = Patience(3, 10.0)


def test_both_bounds_have_to_be_reached() -> None:
    subject = Failures()
    assert [subject.add(BRIEF, now) for now in (0.0, 1.0, 2.0, 9.9, 10.0)] == [False, False, False, False, True]
    subject.clear()
    assert subject.number == 0
    assert not subject.add(BRIEF, 20.0)


def test_each_kind_is_judged_by_itself() -> None:
    subject = Failures()
    for minute in range(16):
        assert not subject.add(TRANSIENT, 60.0 * minute)
    lasting = [subject.add(LASTING, 3600.0 + 180.0 * number) for number in range(5)]
    assert lasting == [False, False, False, False, True]


def test_the_pause_doubles_up_to_five_minutes() -> None:
    subject, pauses = Failures(), []
    for number in range(9):
        subject.add(TRANSIENT, float(number))
        pauses.append(subject.backoff_s)
    assert pauses == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_what_was_under_way_when_the_last_one_failed_says_nothing_new() -> None:
    subject = Outage()
    for _ in range(8):
        subject.failed(TRANSIENT, asked_at=0.0, now=1.0)
    assert subject.number == 1
    assert subject.until == 6.0
    subject.failed(TRANSIENT, asked_at=6.0, now=7.0)
    assert subject.until == 17.0
    subject.over()
    assert subject.until == -math.inf


def test_the_others_are_held_back_while_one_tries() -> None:
    subject = Outage()
    subject.trying(0.0)
    assert subject.until == -math.inf
    subject.failed(TRANSIENT, asked_at=0.0, now=1.0)
    subject.trying(10.0)
    assert subject.until == 15.0
