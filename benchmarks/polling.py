"""Waiting schedules compared in virtual time: checks spent against the delay until an end is noticed.

    python benchmarks/polling.py [--json FILE] [--seeds 20] [--scenario NAME ...]

Every schedule runs on the same seeded traces against the same quota (2,500 checks in every 3,600 s; what is over it is
answered by 429 and tells nothing). "ours" is the provider's own `Dispatcher`: the object that its poller drives, with
virtual time in place of the clock. What the traces are made of is in docs/waiting.md.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import math
import random
import statistics
import sys
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.schedule import QUEUE_S, documented_s
from airflow_speechkit.polling.scheduler import Scheduler
from airflow_speechkit.polling.target import PollTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUOTA, QUOTA_WINDOW_S = 2500, 3600.0
#: The way there and back; the service looks at the operation half-way.
LATENCY_S = 0.2
EPOCH_S = 1_795_000_000.0

# docs/waiting.md says where these come from.
MEDIAN_AUDIO_S, AUDIO_SIGMA, LONGEST_AUDIO_S = 300.0, 0.9, 4 * 3600.0
NOISE_SIGMA, QUEUE_MEAN_S = 0.3, 10.0
DEFERRED_MEDIAN_S, DEFERRED_SIGMA, DEFERRED_LONGEST_S = 2 * 3600.0, 1.0, 24 * 3600.0


@dataclass(frozen=True)
class Scenario:
    """What is submitted.

    :param title: what the table calls it, where its name isn't enough
    """

    name: str
    recordings_per_hour: int = 500
    title: str = ""
    factor: float = 1.0
    noise: float = NOISE_SIGMA
    durations_known: bool = True
    deferred: bool = False
    at_once: bool = False

    @property
    def label(self) -> str:
        return self.title or self.name


SCENARIOS = [
    Scenario("base"),
    Scenario("faster", factor=1 / 3),
    Scenario("slower", factor=2.0),
    Scenario("base", 5, "5 an hour"),
    Scenario("base", 2500, "2,500 an hour"),
    Scenario("at once", at_once=True),
    Scenario("at once", 1000, "1,000 at once", at_once=True),
    Scenario("durations unknown", durations_known=False),
    Scenario("deferred model", deferred=True),
    Scenario("noise doubled", noise=2 * NOISE_SIGMA),
]


@dataclass(frozen=True)
class Recording:
    submitted_s: float
    audio_s: float
    channels: int
    took_s: float


@dataclass(frozen=True)
class Outcome:
    """What one schedule did with one trace."""

    checks: int
    responses_429: int
    delays_s: list[float]
    busiest_hour: int


def trace(scenario: Scenario, seed: int) -> list[Recording]:
    """Recordings submitted at random moments of one hour, or all at one moment; every other one stereo."""
    chance = random.Random(f"{scenario.label} {seed}")
    hour_s = 0.0 if scenario.at_once else 3600.0
    moments = sorted(chance.uniform(0.0, hour_s) for _ in range(scenario.recordings_per_hour))
    made = []
    for number, submitted_s in enumerate(moments):
        audio_s = min(MEDIAN_AUDIO_S * math.exp(chance.gauss(0.0, AUDIO_SIGMA)), LONGEST_AUDIO_S)
        channels = 1 + number % 2
        if scenario.deferred:
            took_s = min(DEFERRED_MEDIAN_S * math.exp(chance.gauss(0.0, DEFERRED_SIGMA)), DEFERRED_LONGEST_S)
        else:
            work_s = audio_s / 60.0 * 10.0 * channels * scenario.factor
            took_s = chance.expovariate(1.0 / QUEUE_MEAN_S) + work_s * math.exp(chance.gauss(0.0, scenario.noise))
        made.append(Recording(submitted_s, audio_s, channels, took_s))
    return made


class Quota:
    """The service's side: how many checks it answers."""

    def __init__(self) -> None:
        self._answered: deque[float] = deque()
        self.refusals = 0
        self._asked: deque[float] = deque()
        self.busiest = 0

    def takes(self, at_s: float) -> bool:
        self._asked.append(at_s)
        while self._asked[0] <= at_s - QUOTA_WINDOW_S:
            self._asked.popleft()
        self.busiest = max(self.busiest, len(self._asked))
        while self._answered and self._answered[0] <= at_s - QUOTA_WINDOW_S:
            self._answered.popleft()
        if len(self._answered) < QUOTA:
            self._answered.append(at_s)
            return True
        self.refusals += 1
        return False


# the schedules to compare with: each yields the pauses between checks


def every(seconds: float) -> Callable[[int], Iterator[float]]:
    def pauses(_number: int) -> Iterator[float]:
        while True:
            yield seconds

    return pauses


def exponential(first_s: float, ratio: float, longest_s: float) -> Callable[[int], Iterator[float]]:
    def pauses(_number: int) -> Iterator[float]:
        pause_s = first_s
        while True:
            yield pause_s
            pause_s = min(pause_s * ratio, longest_s)

    return pauses


def airflow_exponential_backoff(poke_interval: float) -> Callable[[int], Iterator[float]]:
    """`exponential_backoff=True` in poke mode.

    The formula of `BaseSensorOperator._get_next_poke_interval`, airflow/sdk/bases/sensor.py of task-sdk 1.3.2: between
    one and two times max(int(poke_interval * 2**(poke_count - 2)), 1) seconds, by a hash of the task; no `max_wait`,
    as is the default. `execute` pokes at once, then counts from 1.
    """

    def pauses(number: int) -> Iterator[float]:
        yield 0.0
        poke_count = 1
        while True:
            least = max(int(poke_interval * (2 ** (poke_count - 2))), 1)
            about = f"calls#wait_{number}#{float(number)}#{poke_count}".encode()
            run_hash = int(hashlib.sha1(about, usedforsecurity=False).hexdigest(), 16)
            yield float(least + run_hash % least)
            poke_count += 1

    return pauses


OTHERS: dict[str, Callable[[int], Iterator[float]]] = {
    "every 10 s": every(10.0),
    "every 60 s": every(60.0),
    "x2 from 10 s": exponential(10.0, 2.0, math.inf),
    "x1.5 to 300 s": exponential(10.0, 1.5, 300.0),
    "Airflow's backoff": airflow_exponential_backoff(60.0),
}


def run_pauses(recordings: list[Recording], pauses: Callable[[int], Iterator[float]]) -> Outcome:
    quota = Quota()
    checks, delays_s = 0, []
    own = [pauses(number) for number in range(len(recordings))]
    events = [(recording.submitted_s + next(own[n]), n) for n, recording in enumerate(recordings)]
    heapq.heapify(events)
    while events:
        at_s, number = heapq.heappop(events)
        recording = recordings[number]
        checks += 1
        ended_s = recording.submitted_s + recording.took_s
        if quota.takes(at_s + LATENCY_S / 2) and ended_s <= at_s + LATENCY_S / 2:
            delays_s.append(at_s + LATENCY_S - ended_s)
        else:
            heapq.heappush(events, (at_s + LATENCY_S + next(own[number]), number))
    return Outcome(checks, quota.refusals, delays_s, quota.busiest)


def waiting_for(number: int, recording: Recording, scenario: Scenario) -> PollTarget:
    return PollTarget(
        str(number),
        EPOCH_S + recording.submitted_s,
        recording.audio_s if scenario.durations_known else None,
        recording.channels if scenario.durations_known else None,
        "deferred-general" if scenario.deferred else "general",
    )


def run_one_guess(recordings: list[Recording], scenario: Scenario) -> Outcome:
    """Ask 30 s + 1.3 times the documented time after the submission, and then at half as much again of the age.

    In that order, within the same budget as ours.
    """
    budget, quota = RateLimiter.for_checks("v2"), Quota()
    checks, delays_s = 0, []
    waitings = [waiting_for(number, recording, scenario) for number, recording in enumerate(recordings)]
    events = [
        (r.submitted_s + 30.0 + 1.3 * (documented_s(w) - QUEUE_S if scenario.durations_known else documented_s(w)), n)
        for n, (r, w) in enumerate(zip(recordings, waitings, strict=True))
    ]
    heapq.heapify(events)
    now_s = recordings[0].submitted_s
    while events:
        due_s, number = heapq.heappop(events)
        now_s = max(now_s, due_s)
        while (wait_s := budget.wait_s(now_s, reserved=True)) > 0.0:
            now_s += wait_s + 1e-4
        budget.spend(now_s)
        checks += 1
        recording = recordings[number]
        ended_s = recording.submitted_s + recording.took_s
        if quota.takes(now_s + LATENCY_S / 2) and ended_s <= now_s + LATENCY_S / 2:
            delays_s.append(now_s + LATENCY_S - ended_s)
        else:
            heapq.heappush(events, (now_s + 0.5 * (now_s - recording.submitted_s), number))
    return Outcome(checks, quota.refusals, delays_s, quota.busiest)


def run_ours(recordings: list[Recording], scenario: Scenario, *, stamped: bool) -> Outcome:
    """Drive the scheduler as the poller does.

    :param stamped: whether answers carry when the operation ended (`modifiedAt`, in whole seconds)
    """
    scheduler = Scheduler(RateLimiter.for_checks("v2"))
    quota = Quota()
    checks, delays_s = 0, []
    coming = deque(enumerate(recordings))
    answers: deque[tuple[float, int]] = deque()
    now_s = recordings[0].submitted_s
    while len(delays_s) < len(recordings):
        while coming and coming[0][1].submitted_s <= now_s:
            number, recording = coming.popleft()
            scheduler.add(waiting_for(number, recording, scenario), "batch", EPOCH_S + now_s)
        while answers and answers[0][0] <= now_s:
            at_s, number = answers.popleft()
            recording = recordings[number]
            ended_s = recording.submitted_s + recording.took_s
            if not quota.takes(at_s - LATENCY_S / 2):
                scheduler.refused(str(number), EPOCH_S + now_s)
            elif ended_s <= at_s - LATENCY_S / 2:
                delays_s.append(now_s - ended_s)
                took_s = math.floor(ended_s) - math.floor(recording.submitted_s)
                scheduler.ended(str(number), EPOCH_S + now_s, float(took_s) if stamped else None)
            else:
                scheduler.running(str(number), EPOCH_S + now_s)
        turn = scheduler.turn(EPOCH_S + now_s)
        if turn.operation_id is not None:
            checks += 1
            answers.append((now_s + LATENCY_S, int(turn.operation_id)))
            continue
        then_s = [now_s + turn.wait_s + 1e-4]
        if coming:
            then_s.append(coming[0][1].submitted_s)
        if answers:
            then_s.append(answers[0][0])
        now_s = min(then_s)
    return Outcome(checks, quota.refusals, delays_s, quota.busiest)


OURS, OURS_UNSTAMPED = "ours", "ours, no modifiedAt"
ONE_GUESS = "30 s + 1.3 x documented"
SCHEDULES = [OURS, OURS_UNSTAMPED, *OTHERS, ONE_GUESS]


def figures(schedule: str, scenario: Scenario, seeds: int) -> dict[str, float | str | int]:
    """Run one schedule over all seeds; every figure is the mean over the seeds, but for the 429s: their sum."""
    outcomes = []
    for seed in range(seeds):
        recordings = trace(scenario, seed)
        if schedule in OTHERS:
            outcomes.append(run_pauses(recordings, OTHERS[schedule]))
        elif schedule == ONE_GUESS:
            outcomes.append(run_one_guess(recordings, scenario))
        else:
            outcomes.append(run_ours(recordings, scenario, stamped=schedule == OURS))

    def mean(of: Callable[[Outcome], float]) -> float:
        return round(statistics.fmean(of(outcome) for outcome in outcomes), 3)

    return {
        "schedule": schedule,
        "scenario": scenario.name,
        "recordings_per_hour": scenario.recordings_per_hour,
        "checks_per_recording": mean(lambda o: o.checks / len(o.delays_s)),
        "quota_share": mean(lambda o: o.busiest_hour / QUOTA),
        "responses_429": sum(outcome.responses_429 for outcome in outcomes),
        "delay_median_s": mean(lambda o: statistics.median(o.delays_s)),
        "delay_mean_s": mean(lambda o: statistics.fmean(o.delays_s)),
        "delay_p95_s": mean(lambda o: sorted(o.delays_s)[math.ceil(0.95 * len(o.delays_s)) - 1]),
    }


def table(rows: list[dict[str, float | str | int]], labels: list[str]) -> str:
    head = (
        f"{'scenario':<18} {'schedule':<23} {'checks/rec.':>11} {'busiest hour':>13} {'429s':>8} "
        f"{'median s':>9} {'mean s':>9} {'p95 s':>9}"
    )
    lines = [head, "-" * len(head)]
    for label, row in zip(labels, rows, strict=True):
        share = f"{100 * float(row['quota_share']):.0f} %"
        lines.append(
            f"{label:<18} {row['schedule']:<23} {row['checks_per_recording']:>11.2f} {share:>13} "
            f"{row['responses_429']:>8} {row['delay_median_s']:>9.1f} {row['delay_mean_s']:>9.1f} "
            f"{row['delay_p95_s']:>9.1f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Waiting schedules compared in virtual time.")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--scenario", action="append", choices=[scenario.label for scenario in SCENARIOS])
    parser.add_argument("--schedule", action="append", choices=SCHEDULES)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [s for s in SCENARIOS if not arguments.scenario or s.label in arguments.scenario]
    schedules = [s for s in SCHEDULES if not arguments.schedule or s in arguments.schedule]
    with ProcessPoolExecutor(arguments.processes) as pool:
        jobs = [pool.submit(figures, name, scenario, arguments.seeds) for scenario in chosen for name in schedules]
        rows = []
        for job in jobs:
            rows.append(job.result())
            print(f"{len(rows)} of {len(jobs)}", end="\r", file=sys.stderr, flush=True)
    print(table(rows, [scenario.label for scenario in chosen for _ in schedules]))
    if arguments.json:
        arguments.json.write_text(json.dumps({"schedules": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
