"""What the operations host may be asked."""

from __future__ import annotations

import json

import pytest
from airflow_speechkit.polling.budget import CheckBudget, Limit
from airflow_speechkit.polling.waiting import Waiting
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.settings import ApiVersion


def spend_greedily(budget: CheckBudget, start: float, end: float) -> list[float]:
    sent, now = [], start
    while now < end:
        wait_s = budget.wait_s(now)
        if wait_s > 0.0:
            now += wait_s + 1e-6
            continue
        budget.spend(now)
        sent.append(now)
        now += 0.01
    return sent


def most_within(sent: list[float], seconds: float) -> int:
    most = first = 0
    for last, at in enumerate(sent):
        while sent[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_the_default_is_80_percent_of_the_quota() -> None:
    assert CheckBudget.of("v2").limits[0].requests == 2000
    assert CheckBudget.of("v3").limits[0].requests == 4


def test_triggerers_divide_it_among_them() -> None:
    assert CheckBudget.of("v2", triggerers=4).limits[0].requests == 500
    halves = CheckBudget.of("v3", triggerers=8)
    assert halves.limits[0].requests == 1
    assert halves.per_second < 0.5


def test_a_connection_can_set_it() -> None:
    assert CheckBudget.of("v2", checks_per_hour=300).limits[0].requests == 300
    assert CheckBudget.of("v3", checks_per_second=2).limits[0].requests == 2


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_no_stretch_ever_has_more_than_the_budget(version: str) -> None:
    budget = CheckBudget.of(version)
    budget.start(1000.0)
    sent = spend_greedily(budget, 1000.0, 1000.0 + (3 * 3600.0 if version == "v2" else 60.0))
    limit = budget.limits[0]
    assert most_within(sent, 3600.0 if version == "v2" else 1.0) <= limit.requests
    assert len(sent) > 2 * limit.requests


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.floats(0.0, 400.0), min_size=1, max_size=60))
def test_no_stretch_ever_has_more_than_the_budget_whatever_the_rhythm(pauses: list[float]) -> None:
    budget = CheckBudget((Limit(10, 600.0), Limit(3, 60.0)))
    sent, now = [], 0.0
    for pause in pauses:
        now += pause
        if budget.wait_s(now) == 0.0:
            budget.spend(now)
            sent.append(now)
    assert most_within(sent, 600.0) <= 10
    assert most_within(sent, 60.0) <= 3


def test_a_successor_does_not_spend_what_its_predecessor_has_spent() -> None:
    before = CheckBudget.of("v2")
    before.start(0.0)
    sent = spend_greedily(before, 0.0, 7200.0)
    after = CheckBudget.of("v2")
    after.start(7200.0)
    sent += spend_greedily(after, 7200.0, 14400.0)
    assert most_within(sent, 3600.0) <= 2500


def test_a_new_triggerer_can_ask_at_once() -> None:
    budget = CheckBudget.of("v2")
    budget.start(0.0)
    assert budget.wait_s(0.0) == 0.0
    assert 0 < budget.left(0.0) <= 250


def test_requests_that_nobody_allowed_count_too() -> None:
    budget = CheckBudget((Limit(2, 100.0),))
    budget.spend(0.0)
    budget.spend(0.0)
    assert budget.wait_s(1.0) == pytest.approx(99.0)
    assert budget.left(1.0) == 0


def test_a_429_pauses_everything_and_slows_down_then_the_rate_is_found_again() -> None:
    budget = CheckBudget.of("v2", checks_per_hour=3600)
    before = budget.per_second
    assert budget.refused(0.0) >= 5.0
    assert budget.wait_s(0.0) >= 5.0
    assert budget.per_second == pytest.approx(before / 2)
    now = 10.0
    while budget.per_second < before:
        budget.answered(now)
        now += 30.0
    assert now < 1800.0


def test_429s_in_a_row_pause_longer_each_time() -> None:
    budget = CheckBudget.of("v2")
    now, pauses = 0.0, []
    for _ in range(10):
        pauses.append(budget.refused(now))
        now += pauses[-1] + 0.1
    assert [round(pause) for pause in pauses[:4]] == [5, 10, 20, 40]
    assert round(pauses[-1]) == 300


def test_answers_to_what_was_under_way_already_are_one_429() -> None:
    budget = CheckBudget.of("v2")
    first = budget.refused(0.0)
    assert budget.refused(0.1) == pytest.approx(first - 0.1)


def test_retry_after_is_kept() -> None:
    budget = CheckBudget.of("v2")
    assert budget.refused(0.0, 120.0) == 120.0
    assert budget.wait_s(0.0) == 120.0


def test_what_was_not_sent_after_all_is_left() -> None:
    budget = CheckBudget((Limit(2, 100.0), Limit(1, 10.0)))
    budget.spend(0.0)
    budget.spend(20.0)
    assert budget.wait_s(21.0) > 0.0
    budget.take_back(20.0)
    assert budget.wait_s(21.0) == 0.0
    assert budget.left(21.0) == 1


@pytest.mark.parametrize("version", [ApiVersion.V3, "v3"])
def test_an_api_version_is_one_as_a_string_too(version: ApiVersion | str) -> None:
    assert CheckBudget.of(version).limits == CheckBudget.of(ApiVersion.V3).limits
    assert Waiting("a", 0.0, api_version=version).api_version is ApiVersion.V3
    assert json.dumps(Waiting("a", 0.0, api_version=version).api_version) == '"v3"'
