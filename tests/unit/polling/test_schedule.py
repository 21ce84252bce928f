"""When to ask for an operation, and what is learned from those that have ended."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.polling.schedule import (
    FEWEST_CHECKS,
    LONGEST_INTERVAL_S,
    MOST_CHECKS,
    QUEUE_S,
    SHORTEST_INTERVAL_S,
    CheckPlan,
    DurationKind,
    DurationModel,
    documented_s,
    duration_kind,
)
from airflow_speechkit.polling.target import PollTarget

kinds = st.sampled_from(DurationKind)
numbers_of_checks = st.floats(0.0, 1e9)


def ages(
    checks: float, documented_s: float = 60.0, number: int = 40, model: DurationModel | None = None
) -> list[float]:
    """The ages at which an operation that never ends is asked for."""
    plan, model = CheckPlan.for_checks(checks), model or DurationModel(DurationKind.MEASURED)
    found = [plan.next_age_s(model, documented_s, 0.0)]
    while len(found) < number:
        found.append(plan.next_age_s(model, documented_s, found[-1]))
    return found


class TestTheDocumentedTime:
    def test_depends_on_length_and_channels(self) -> None:
        assert documented_s(PollTarget("a", audio_s=60.0, channels=1)) == pytest.approx(QUEUE_S + 10.0)
        assert documented_s(PollTarget("a", audio_s=60.0, channels=2)) == pytest.approx(QUEUE_S + 20.0)
        assert QUEUE_S + 10.0 < documented_s(PollTarget("a", audio_s=60.0)) < QUEUE_S + 20.0
        assert documented_s(PollTarget("a", audio_s=0.0, channels=0)) > 0.0

    def test_is_of_three_kinds(self) -> None:
        assert duration_kind(PollTarget("a", audio_s=60.0)) is DurationKind.MEASURED
        assert duration_kind(PollTarget("a")) is DurationKind.UNMEASURED
        assert duration_kind(PollTarget("a", audio_s=60.0, model="deferred-general")) is DurationKind.DEFERRED
        assert documented_s(PollTarget("a")) < documented_s(PollTarget("a", model="deferred-general"))


class TestThePlan:
    def test_of_more_checks_begins_earlier_and_has_them_closer_together(self) -> None:
        plans = [ages(checks) for checks in (1.0, 2.0, 4.0, 8.0, 30.0)]
        for fewer, more in itertools.pairwise(plans):
            assert more[0] < fewer[0]
            # Of the time in which most operations end.
            assert sum(at < 200.0 for at in more) >= sum(at < 200.0 for at in fewer)
        assert sum(at < 200.0 for at in plans[-1]) > 4 * sum(at < 200.0 for at in plans[1])

    def test_of_one_check_comes_when_the_operation_has_almost_certainly_ended(self) -> None:
        first = ages(0.1)[0]
        assert 1.5 * 60.0 < first < 10 * 60.0

    @pytest.mark.parametrize("checks", [1.5, 3.0, 10.0])
    def test_takes_about_the_checks_that_there_are_and_leaves_some(self, checks: float) -> None:
        chance, model, taken = random.Random(1), DurationModel(DurationKind.MEASURED), []
        at = ages(checks, number=2000)
        for _ in range(500):
            ends = 60.0 * math.exp(chance.gauss(0.0, model.spread))
            taken.append(next(number for number, age in enumerate(at, 1) if age >= ends))
        assert 0.5 * checks < sum(taken) / len(taken) < 1.05 * checks

    def test_asks_ever_more_rarely(self) -> None:
        at = ages(4.0)
        late = [later - earlier for earlier, later in itertools.pairwise(at) if earlier > 300.0]
        assert all(later > earlier for earlier, later in itertools.pairwise(late[:10]))

    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(numbers_of_checks, kinds, st.floats(1e-3, 1e6), st.floats(-20.0, 20.0), st.floats(0.1, 3.0))
    def test_has_intervals_within_bounds_whatever_was_learned(
        self, checks: float, kind: DurationKind, documented: float, log_ratio: float, spread: float
    ) -> None:
        model = DurationModel(kind)
        model.log_ratio, model.spread = log_ratio, spread
        found = ages(checks, documented, 10, model)
        assert found[0] >= SHORTEST_INTERVAL_S
        assert all(math.isfinite(at) for at in found)
        for earlier, later in itertools.pairwise(found):
            assert SHORTEST_INTERVAL_S - 1e-6 * later <= later - earlier <= LONGEST_INTERVAL_S + 1e-6 * later

    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(numbers_of_checks, numbers_of_checks)
    def test_is_earlier_and_denser_the_more_checks_there_are(self, one: float, other: float) -> None:
        fewer, more = (CheckPlan.for_checks(checks) for checks in sorted((one, other)))
        assert more.first <= fewer.first
        assert more.step <= fewer.step + 1e-9

    def test_is_bounded_by_what_a_recording_is_worth(self) -> None:
        assert CheckPlan.for_checks(0.0) == CheckPlan.for_checks(FEWEST_CHECKS)
        assert CheckPlan.for_checks(1e9) == CheckPlan.for_checks(10 * MOST_CHECKS)


def took_s(chance: random.Random, documented: float, factor: float) -> float:
    return documented * factor * math.exp(chance.gauss(0.0, 0.3))


def taught(factor: float, number: int, model: DurationModel | None = None, seed: int = 0) -> DurationModel:
    """A model that has seen so many operations of a service that is slower than documented by a factor."""
    model, chance = model or DurationModel(DurationKind.MEASURED), random.Random(seed)
    for _ in range(number):
        documented = 75.0 * math.exp(chance.gauss(0.0, 0.9))
        model.learn(documented, took_s(chance, documented, factor))
    return model


class TestTheModel:
    @pytest.mark.parametrize("factor", [1 / 3, 1.0, 2.0])
    @pytest.mark.parametrize("seed", range(3))
    def test_knows_the_speed_after_twenty_recordings(self, factor: float, seed: int) -> None:
        assert taught(factor, 20, seed=seed).ratio == pytest.approx(factor, rel=0.3)

    @pytest.mark.parametrize(("before", "after"), [(1.0, 1 / 3), (1.0, 2.0), (2.0, 1 / 3)])
    @pytest.mark.parametrize("seed", range(3))
    def test_follows_a_change_of_speed_within_tens_of_recordings(self, before: float, after: float, seed: int) -> None:
        model = taught(after, 40, taught(before, 300, seed=seed), seed=seed + 50)
        assert model.ratio == pytest.approx(after, rel=0.3)

    def test_expects_what_it_has_seen_the_more_closely_the_more_it_has_seen(self) -> None:
        assert taught(1.0, 60).spread < 0.75 * DurationModel(DurationKind.MEASURED).spread
        assert DurationModel(DurationKind.DEFERRED).spread > DurationModel(DurationKind.MEASURED).spread

    @pytest.mark.parametrize("stamp", [1e-9, 0.0, 3 * 24 * 3600.0, 1e12])
    def test_is_moved_little_by_one_odd_stamp(self, stamp: float) -> None:
        model = taught(1.0, 60)
        before = model.ratio
        model.learn(75.0, stamp)
        assert model.ratio == pytest.approx(before, rel=0.25)

    def test_learns_that_the_service_is_slow_from_those_that_have_not_ended_at_all(self) -> None:
        model = taught(1.0, 60)
        for _ in range(100):
            model.still_running(60.0, 180.0)
        assert 1.3 < model.ratio < 3.0
        assert model.ended == 60

    def test_learns_nothing_from_those_that_need_not_have_ended(self) -> None:
        model = taught(1.0, 60)
        before = model.ratio
        model.still_running(60.0, 30.0)
        assert model.ratio == before

    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1e6), st.floats(0.01, 1e7)), max_size=60), kinds)
    def test_stays_usable_whatever_it_learns(self, events: list[tuple[bool, float, float]], kind: DurationKind) -> None:
        model = DurationModel(kind)
        for has_ended, documented, age_s in events:
            if has_ended:
                model.learn(documented, age_s)
            else:
                model.still_running(documented, age_s)
        assert 0.0 < model.ratio < math.inf
        assert 0.0 < model.spread < 3.0

    def test_that_one_has_not_ended_is_learned_once_however_often_it_is_asked_for(self) -> None:
        often, rarely = DurationModel(DurationKind.MEASURED), DurationModel(DurationKind.MEASURED)
        ages = [60.0 * 1.02**number for number in range(200)]
        for before, age_s in itertools.pairwise(ages):
            often.still_running(60.0, age_s, before)
        for before, age_s in itertools.pairwise(ages[::40]):
            rarely.still_running(60.0, age_s, before)
        assert 1.0 < often.ratio < 1.2 * rarely.ratio
