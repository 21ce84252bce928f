"""What one process may send to the operations host, in virtual time."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.settings import ApiVersion

HOUR_S = 3600.0


def demand(limiter: RateLimiter, start: float, end: float, *, reserved: bool = False) -> Iterator[float]:
    """When requests go out where there is always one more to send."""
    now, tries = start, 0
    while now < end:
        wait_s = limiter.wait_s(now, reserved=reserved)
        assert wait_s < math.inf
        if wait_s > 0.0:
            now += wait_s + 1e-6
            tries += 1
            assert tries < 5000, "waits end"
            continue
        tries = 0
        limiter.spend(now)
        yield now


def most_within(sent: list[float], seconds: float) -> int:
    most = first = 0
    for last, at in enumerate(sent):
        while sent[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def longest_gap(sent: list[float]) -> float:
    return max(later - earlier for earlier, later in itertools.pairwise(sent))


class TestTheLimit:
    def test_is_80_percent_of_the_quota_by_default(self) -> None:
        assert RateLimiter.for_checks("v2").limit == 2000
        assert RateLimiter.for_checks(ApiVersion.V3).limit == 4

    def test_is_divided_among_triggerers_and_set_by_a_connection(self) -> None:
        assert RateLimiter.for_checks("v2", triggerers=4).limit == 500
        assert RateLimiter.for_checks("v2", checks_per_hour=300, checks_per_second=2).limit == 300
        assert RateLimiter.for_checks("v3", checks_per_hour=300, checks_per_second=2).limit == 2

    @pytest.mark.parametrize(
        ("version", "checks_per_hour", "triggerers"),
        [
            ("v2", None, 1),
            ("v2", 300, 1),
            ("v2", 7, 1),
            ("v2", 4, 1),
            ("v2", 3, 1),
            ("v2", 2, 1),
            ("v2", None, 8),
            ("v3", None, 1),
            ("v3", None, 3),
        ],
    )
    @pytest.mark.parametrize("reserved", [False, True])
    def test_holds_in_every_window_and_sustained_demand_uses_all_of_it_in_each(
        self, version: str, checks_per_hour: float | None, triggerers: int, reserved: bool
    ) -> None:
        limiter = RateLimiter.for_checks(version, checks_per_hour=checks_per_hour, triggerers=triggerers)
        window_s, windows = (HOUR_S, 5) if version == "v2" else (1.0, 500)
        sent = list(demand(limiter, 0.0, windows * limiter.window_s, reserved=reserved))
        whole = max(math.floor(limiter.limit), 1)
        assert most_within(sent, window_s) <= whole
        in_each = Counter(int(at / limiter.window_s) for at in sent)
        assert min(in_each[window] for window in range(1, windows)) >= 0.95 * whole - 1
        assert sum(in_each[window] for window in range(1, windows)) >= (windows - 1) * 0.95 * whole - 1

    def test_of_less_than_one_request_in_a_window_is_one_in_a_longer_window(self) -> None:
        limiter = RateLimiter.for_checks("v3", triggerers=40)
        sent = list(demand(limiter, 0.0, 200.0))
        assert limiter.rate(0.0) == pytest.approx(0.1, rel=0.1)
        assert most_within(sent, 10.0) == 1
        assert longest_gap(sent) < 12.0

    @settings(deadline=None, derandomize=True, max_examples=60)
    @given(
        st.sampled_from([(10.0, 600.0), (40.0, 600.0), (3.0, 600.0), (0.4, 600.0)]),
        st.sampled_from([0.1, 1.0]),
        st.lists(
            st.tuples(st.sampled_from(["burst", "idle", "too many"]), st.floats(0.0, 1500.0), st.booleans()),
            min_size=1,
            max_size=40,
        ),
    )
    def test_holds_in_every_window_whatever_happens(
        self, limit: tuple[float, float], share: float, happens: list[tuple[str, float, bool]]
    ) -> None:
        limiter = RateLimiter(*limit, share=share)
        sent: list[float] = []
        now = 0.0
        for what, seconds, reserved in happens:
            if what == "burst":
                sent += demand(limiter, now, now + seconds / 10.0, reserved=reserved)
                now += seconds / 10.0
            elif what == "too many":
                assert limiter.refused(now, seconds if reserved else None) > 0.0
            else:
                now += seconds
        assert most_within(sent, limit[1]) <= max(limit[0], 1)

    def test_counts_requests_that_nobody_allowed_too(self) -> None:
        limiter = RateLimiter(2, 100.0)
        limiter.spend(0.0)
        limiter.spend(0.0)
        assert limiter.wait_s(1.0) == pytest.approx(99.0)
        assert limiter.left(1.0) == 0


class TestABurst:
    def test_is_a_quarter_of_the_hours_limit_at_most_and_checks_still_flow_after_it(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        # An idle hour after the start.
        limiter.wait_s(0.0)
        sent = list(demand(limiter, HOUR_S + 2.0, 2 * HOUR_S))
        assert 400 <= most_within(sent, 60.0) <= 500 + 60 * 2000 / HOUR_S
        assert longest_gap(sent) < 20.0
        assert len(sent) > 1900

    def test_goes_out_at_a_rate_that_is_kind_to_the_service(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        limiter.wait_s(0.0)
        sent = list(demand(limiter, HOUR_S + 2.0, HOUR_S + 20.0))
        assert most_within(sent, 1.0) <= 21
        assert len(sent) > 300

    def test_leaves_a_tenth_to_those_who_have_asked_least(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        limiter.wait_s(0.0)
        now = max(demand(limiter, HOUR_S + 2.0, HOUR_S + 60.0))
        sent = list(demand(limiter, now, now + 10.0, reserved=True))
        assert len(sent) >= 45

    def test_of_a_small_limit_is_one_request_and_a_task_that_has_asked_most_gets_it_too(self) -> None:
        sent = list(demand(RateLimiter(3, HOUR_S), 0.0, 4 * HOUR_S))
        assert sum(at < 60.0 for at in sent) == 1
        assert len(sent) >= 11


class TestASuccessor:
    def test_does_not_spend_what_its_predecessor_has_spent(self) -> None:
        sent = list(demand(RateLimiter.for_checks("v2"), 0.0, 2 * HOUR_S))
        sent += demand(RateLimiter.for_checks("v2"), 2 * HOUR_S, 4 * HOUR_S)
        assert most_within(sent, HOUR_S) <= 2500

    def test_can_ask_at_once(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        assert limiter.wait_s(0.0) == 0.0
        assert 0 < limiter.available(0.0) <= limiter.left(0.0) <= 250

    def test_that_cannot_know_who_else_asks_starts_at_a_tenth(self) -> None:
        limiter = RateLimiter.for_checks("v2", cautious=True)
        assert limiter.rate(0.0) * HOUR_S == pytest.approx(200.0, rel=0.01)
        assert limiter.available(0.0) == pytest.approx(51.0, abs=0.1)
        assert len(list(demand(limiter, 0.0, 600.0))) <= 150
        assert limiter.rate(HOUR_S) * HOUR_S == pytest.approx(2000.0, rel=0.01)
        assert RateLimiter.for_checks("v3", cautious=True).rate(0.0) == pytest.approx(0.4, rel=0.1)


class TestA429:
    def test_halves_the_rate_and_holds_off_for_minutes_and_an_hour_brings_it_back(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        before = limiter.rate(0.0)
        pause_s = limiter.refused(0.0)
        assert 60.0 <= pause_s <= 600.0
        assert limiter.wait_s(0.0, reserved=True) == pytest.approx(pause_s)
        assert limiter.rate(0.0) == pytest.approx(before / 2, rel=0.1)
        assert limiter.rate(900.0) == pytest.approx(before * 0.75)
        assert limiter.rate(HOUR_S) == pytest.approx(before)

    def test_in_a_row_holds_off_longer_each_time_however_many_there_are(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        now, pauses = 0.0, []
        for _ in range(2000):
            pauses.append(limiter.refused(now))
            now += pauses[-1] + 0.1
        assert [round(pause) for pause in pauses[:4]] == [120, 240, 480, 600]
        assert round(pauses[-1]) == 600
        assert limiter.rate(now) > 0.0
        limiter.answered(now)
        assert limiter.refused(now) == pytest.approx(120.0)

    def test_of_the_quota_by_the_second_holds_off_for_seconds(self) -> None:
        limiter = RateLimiter.for_checks("v3")
        assert 1.0 < limiter.refused(0.0) < 15.0
        assert limiter.rate(0.0) < 2.0

    def test_of_what_was_under_way_already_is_no_other_429(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        pause_s, rate = limiter.refused(0.0), limiter.rate(0.0)
        limiter.answered(0.05)
        assert limiter.refused(0.1) == pytest.approx(pause_s - 0.1)
        assert limiter.rate(0.1) == pytest.approx(rate, rel=0.01)

    @pytest.mark.parametrize("version", ["v2", "v3"])
    @pytest.mark.parametrize("cautious", [False, True])
    def test_is_over_after_an_hour_for_sustained_demand_too(self, version: str, cautious: bool) -> None:
        limiter = RateLimiter.for_checks(version, cautious=cautious)
        limiter.spend(0.0)
        limiter.refused(0.2)
        sent = list(demand(limiter, 0.2, 3 * HOUR_S if version == "v2" else HOUR_S + 10.0))
        window_s = HOUR_S if version == "v2" else 1.0
        assert most_within([at for at in sent if at > 2 * HOUR_S or version == "v3"], window_s) >= 0.95 * limiter.limit

    def test_halves_the_rate_whatever_was_spent_before(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        limiter.spend(0.0)
        pause_s = limiter.refused(0.2)
        sent = list(demand(limiter, 0.2, pause_s + 600.0, reserved=True))
        assert sent[0] == pytest.approx(0.2 + pause_s, abs=1.0)
        assert 0.8 * 1000 / 6 < len(sent) < 1.4 * 1000 / 6, "it recovers meanwhile"
        assert longest_gap(sent) < 10.0

    def test_says_how_long_to_hold_off_and_that_is_kept_to(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        assert limiter.refused(0.0, 1500.0) == 1500.0
        assert limiter.wait_s(0.0, reserved=True) == 1500.0
        assert limiter.refused(1.0, 1800.0) == 1800.0, "also of what was under way"
        assert limiter.wait_s(1.0, reserved=True) == 1800.0

    def test_takes_the_service_at_its_word_once(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        assert limiter.refused(0.0, 4.0) == 4.0
        assert limiter.refused(5.0, 4.0) > 120.0, "it was refused again as soon as that was over"

    @pytest.mark.parametrize("looks", [1, 100])
    def test_is_followed_by_one_request_and_not_by_a_burst(self, looks: int) -> None:
        limiter = RateLimiter.for_checks("v2")
        limiter.wait_s(0.0)
        pause_s = limiter.refused(HOUR_S)
        for look in range(looks):
            assert limiter.wait_s(HOUR_S + pause_s * look / looks) > 0.0
        now = HOUR_S + pause_s
        sent = list(demand(limiter, now, now + 60.0, reserved=True))
        assert most_within(sent, 2.0) == 1
        assert len(sent) > 5

    def test_after_a_burst_does_not_stop_the_checks_until_the_burst_has_left_the_window(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        limiter.wait_s(0.0)
        now = max(demand(limiter, HOUR_S + 2.0, HOUR_S + 1200.0))
        for _ in range(2):
            now += limiter.refused(now) + 0.1
        assert 0.0 < limiter.wait_s(now) < 900.0, "the limit grows meanwhile"
        sent = list(demand(limiter, now, now + 1800.0))
        assert len(sent) > 200


class Quota:
    """The service's side: so many answers in every hour, whoever asks."""

    def __init__(self, limit: int = 2500) -> None:
        self._limit = limit
        self._answered: list[float] = []
        self._first = 0

    def takes(self, at: float) -> bool:
        while self._first < len(self._answered) and self._answered[self._first] <= at - HOUR_S:
            self._first += 1
        if len(self._answered) - self._first >= self._limit:
            return False
        self._answered.append(at)
        return True


@pytest.mark.parametrize("checks_per_hour", [1, 2])
def test_after_a_pause_longer_than_the_window_a_small_limit_lets_one_out_again(checks_per_hour: int) -> None:
    limiter = RateLimiter.for_checks("v2", checks_per_hour=checks_per_hour)
    for _ in range(checks_per_hour):
        now = limiter.wait_s(0.0)
        limiter.spend(now)
    limiter.refused(now, 2 * HOUR_S)
    assert limiter.wait_s(now + 2 * HOUR_S) == 0.0


@pytest.mark.parametrize("cautious", [(), (2,)], ids=["triggerers", "one in poke mode"])
def test_three_who_do_not_know_of_each_other_share_the_quota(cautious: tuple[int, ...]) -> None:
    limiters = [RateLimiter.for_checks("v2", cautious=one in cautious) for one in range(3)]
    quota, answered, refused = Quota(), [0, 0, 0], 0
    now = [0.0, 300.0, 700.0]
    while (at := min(now)) < 4 * HOUR_S:
        one = now.index(at)
        limiter = limiters[one]
        if (wait_s := limiter.wait_s(at, reserved=True)) > 0.0:
            now[one] += wait_s + 1e-3
            continue
        limiter.spend(at)
        now[one] += 0.2
        taken = quota.takes(at + 0.1)
        if taken:
            limiter.answered(now[one])
        else:
            limiter.refused(now[one])
        if at >= HOUR_S:
            answered[one] += taken
            refused += not taken
    assert refused < 0.01 * (sum(answered) + refused)
    assert min(answered) >= 0.5 * sum(answered) / 3
    assert sum(answered) >= 0.9 * 3 * 2500
