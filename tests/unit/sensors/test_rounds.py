"""Asking round after round on a worker, by a clock of its own: whose turn it is, and how errors are survived."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from airflow_speechkit.polling.blocking import BlockingAllowance
from airflow_speechkit.polling.waiting import Waiting
from airflow_speechkit.sensors.checking import Checked, HowEnded
from airflow_speechkit.sensors.rounds import Rounds
from airflow_speechkit.sensors.setbacks import Setbacks

from airflow_speechkit.errors import (
    AnswerUnreadableError,
    ArchiveError,
    AuthenticationError,
    ConnectionSettingsError,
    QuotaExceededError,
    ServiceFaultError,
    SpeechKitError,
)

OUTAGE = ServiceFaultError("in trouble", http_status=503)
REVOKED = AuthenticationError("no such key", http_status=401)
GARBAGE = AnswerUnreadableError("not JSON")
RUNNING = Checked(None)
START = 1_000_000.0
#: As if each could be asked for as often as the test likes.
PLENTY = BlockingAllowance(per_second=1000.0, at_once=1000, pause_s=0.25)


class World:
    """A clock that only sleeping moves, and a service that answers as it is told."""

    def __init__(self, answers: dict[str, Iterable[Any]] | None = None, *, by_default: Any = RUNNING) -> None:
        self.now = START
        self.asked: list[str] = []
        self.slept: list[float] = []
        self.by_default = by_default
        self._answers = {one: iter(some) for one, some in (answers or {}).items()}

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def check(self, operation_id: str) -> Checked:
        self.asked.append(operation_id)
        answer = next(self._answers.get(operation_id, iter(())), self.by_default)
        if isinstance(answer, SpeechKitError):
            raise answer
        assert isinstance(answer, Checked)
        return answer

    def rounds(
        self,
        *ids: str,
        began: float | None = None,
        interval_s: float | None = 10.0,
        allowance: BlockingAllowance = PLENTY,
        unknown: Iterable[str] = (),
    ) -> Rounds:
        clock: Callable[[], float] = lambda: self.now  # noqa: E731
        return Rounds(
            [Waiting(one, START - 1000.0, interval_s=interval_s) for one in ids],
            set(unknown),
            self.check,
            allowance,
            Setbacks(began=began, clock=clock, sleep=self.sleep),
            clock=clock,
            sleep=self.sleep,
        )

    def ask(self, rounds: Rounds) -> list[str]:
        self.asked.clear()
        rounds.ask()
        return list(self.asked)

    def survived(self, rounds: Rounds) -> tuple[int, float]:
        """Ask until the wait is given up; return the checks in vain and the seconds that took."""
        began, checks = self.now, 0
        while True:
            try:
                checks += len(self.ask(rounds))
            except SpeechKitError:
                return checks + len(self.asked), self.now - began
            self.now += max(rounds.held_s(), 1.0)


def quota(retry_after_s: float | None = None) -> QuotaExceededError:
    return QuotaExceededError("used up", retry_after_s=retry_after_s)


@pytest.mark.parametrize("began", [None, START - 7200], ids=["poke", "reschedule"])
def test_at_the_first_429_a_round_ends_and_nothing_is_asked_for_until_the_service_allows(began: float | None) -> None:
    world = World({"b": [quota(retry_after_s=700)]})
    rounds = world.rounds("a", "b", "c", "d", began=began)
    assert world.ask(rounds) == ["a", "b"]
    assert rounds.held_s() == 700
    assert rounds.next_in_s() == 700
    world.now += 699
    assert world.ask(rounds) == []
    world.now += 1
    assert world.ask(rounds)[:3] == ["c", "d", "b"], "those that missed their turn, and whoever was refused comes last"


def test_after_429s_without_a_time_each_pause_is_longer_and_the_wait_never_ends_by_them() -> None:
    world = World(by_default=quota())
    rounds = world.rounds("a", "b")
    held = []
    for _ in range(30):
        assert len(world.ask(rounds)) == 1
        held.append(rounds.held_s())
        world.now += held[-1]
    assert held[:4] == [5, 10, 20, 40]
    assert max(held) == 300
    assert world.now - START > 7200


def test_a_rescheduled_task_that_remembers_no_429_holds_back_the_longer_the_more_it_has_waited() -> None:
    held = []
    for waited in (0, 600, 36_000):
        world = World(by_default=quota())
        rounds = world.rounds("a", began=START - waited)
        world.ask(rounds)
        held.append(rounds.held_s())
    assert held == [5, 60, 300]


def test_an_outage_ends_the_round_and_each_pause_after_it_is_longer() -> None:
    world = World(by_default=OUTAGE)
    rounds = world.rounds("a", "b", "c")
    held = []
    for _ in range(4):
        assert len(world.ask(rounds)) == 1
        held.append(rounds.held_s())
        world.now += held[-1]
    assert held == [5, 10, 20, 40]
    world.by_default = RUNNING
    world.now += 1000
    assert sorted(world.ask(rounds)) == ["a", "b", "c"]
    assert rounds.held_s() == 0


def test_one_that_fails_waits_alone_while_the_others_are_asked_for_and_does_not_end_their_wait_early() -> None:
    world = World({"b": [GARBAGE] * 100})
    rounds = world.rounds("a", "b", "c", interval_s=1.0)
    times = []
    for _ in range(40):
        asked = world.ask(rounds)
        assert {"a", "c"} <= set(asked)
        times += [world.now] if "b" in asked else []
        world.now += 1.0
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    assert pauses[-1] > 3 * pauses[0]


@pytest.mark.parametrize(
    ("error", "least_checks", "least_s"), [(OUTAGE, 8, 3600), (GARBAGE, 8, 3600), (REVOKED, 5, 600)]
)
def test_the_wait_survives_errors_as_long_as_a_triggerers_poller_would(
    error: SpeechKitError, least_checks: int, least_s: float
) -> None:
    world = World(by_default=error)
    checks, seconds = world.survived(world.rounds("a"))
    assert checks >= least_checks
    assert least_s <= seconds < least_s + 400


@pytest.mark.parametrize(("error", "tries", "lasts_s"), [(OUTAGE, 8, 3600), (REVOKED, 5, 600)])
def test_a_rescheduled_task_counts_from_its_beginning_and_tries_as_often_within_a_poke(
    error: SpeechKitError, tries: int, lasts_s: float
) -> None:
    young = World(by_default=error)
    assert young.ask(young.rounds("a", "b", began=START - lasts_s + 60)) == ["a"]
    assert young.slept == []

    old = World(by_default=error)
    with pytest.raises(type(error)):
        old.ask(old.rounds("a", "b", began=START - lasts_s))
    assert old.asked == ["a"] * tries
    assert old.slept == [5, 10, 20, 40, 80, 160, 300][: tries - 1]

    mended = World({"a": [error, error]})
    assert mended.ask(mended.rounds("a", "b", began=START - 20 * 3600)) == ["a", "a", "a", "b"]


def test_a_key_that_is_refused_once_after_a_long_outage_does_not_end_the_wait() -> None:
    world = World({"a": [*[OUTAGE] * 12, REVOKED, *[OUTAGE] * 2]})
    rounds = world.rounds("a")
    for _ in range(15):
        world.ask(rounds)
        world.now += max(rounds.held_s(), 1.0)
    assert world.ask(rounds) == ["a"]


def test_what_a_person_has_to_mend_ends_the_wait_at_once() -> None:
    for error in (ConnectionSettingsError("no key"), ArchiveError("damaged", retry_can_help=False)):
        world = World(by_default=error)
        with pytest.raises(type(error)):
            world.rounds("a").ask()


def test_no_more_are_asked_for_at_once_than_allowed_and_whoever_missed_a_turn_has_it_next() -> None:
    ids = [f"o{number}" for number in range(7)]
    world = World()
    rounds = world.rounds(*ids, allowance=BlockingAllowance(1000.0, 3, 0.25), unknown=ids)
    assert world.ask(rounds) == ids[:3]
    assert world.slept == [0.25, 0.25]
    assert world.ask(rounds) == ids[3:6]
    assert world.ask(rounds)[0] == ids[6]


def test_an_operation_of_unknown_age_has_the_age_that_the_service_says() -> None:
    begun = datetime.fromtimestamp(START - 500, UTC)
    world = World({"a": [Checked(None, begun)], "b": [Checked(HowEnded.DONE)]})
    rounds = world.rounds("a", "b", unknown=["a", "b"])
    world.ask(rounds)
    assert [one.submitted_at for one in rounds.left] == [START - 500]
    assert rounds.ended == {"b": HowEnded.DONE}
    assert not rounds.of_unknown_age


def test_what_was_asked_for_in_vain_has_been_spent() -> None:
    world = World(by_default=GARBAGE)
    rounds = world.rounds("a", "b", interval_s=None, allowance=BlockingAllowance(0.01, 10))
    world.now += 3600
    asked = world.ask(rounds)
    assert asked
    assert rounds.next_in_s() == pytest.approx(len(asked) / 0.01)


def test_a_beginning_that_cannot_be_true_is_not_planned_by() -> None:
    world = World({"a": [Checked(None, datetime(1, 1, 1, tzinfo=UTC))]})
    rounds = world.rounds("a", unknown=["a"], interval_s=None)
    world.ask(rounds)
    assert START - rounds.left[0].submitted_at <= 7 * 24 * 3600.0
    assert 0.0 < rounds.next_in_s() <= 24 * 3600.0
