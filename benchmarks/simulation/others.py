"""The schedules to compare with: fixed pauses between checks, and the documented processing time."""

from __future__ import annotations

import hashlib
import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulation.service import LATENCY_S

from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.schedule import QUEUE_S, documented_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from simulation.service import Quota, Recording


@dataclass
class Outcome:
    """The result of a schedule on one trace."""

    checks: int
    refused: int
    delays_s: list[float]


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

    The formula of `BaseSensorOperator._get_next_poke_interval` in task-sdk 1.3.2 (airflow/sdk/bases/sensor.py): one to
    two times max(int(poke_interval * 2**(poke_count - 2)), 1) seconds, by a hash of the task, without `max_wait`, as by
    default. `execute` pokes at once, then counts from 1.
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


FIXED: dict[str, Callable[[int], Iterator[float]]] = {
    "every 10 s": every(10.0),
    "every 60 s": every(60.0),
    "x2 from 10 s": exponential(10.0, 2.0, math.inf),
    "x1.5 to 300 s": exponential(10.0, 1.5, 300.0),
    "Airflow's backoff": airflow_exponential_backoff(60.0),
}


def run_fixed(recordings: Sequence[Recording], quota: Quota, pauses: Callable[[int], Iterator[float]]) -> Outcome:
    """Check each recording with these pauses, whatever the quota."""
    outcome = Outcome(0, 0, [])
    own = [pauses(number) for number in range(len(recordings))]
    events = [(recording.submitted_s + next(own[n]), n) for n, recording in enumerate(recordings)]
    heapq.heapify(events)
    while events:
        at_s, number = heapq.heappop(events)
        if not _sees_end(recordings[number], at_s, quota, outcome):
            heapq.heappush(events, (at_s + LATENCY_S + next(own[number]), number))
    return outcome


def run_documented(recordings: Sequence[Recording], quota: Quota) -> Outcome:
    """Check 30 s + 1.3 times the documented time after the submission, then after each further half of the age.

    The checks are in that order, within the same limit as ours.
    """
    limiter, outcome = RateLimiter.for_checks("v2"), Outcome(0, 0, [])
    events = [(one.submitted_s + 30.0 + 1.3 * _documented_work_s(one), n) for n, one in enumerate(recordings)]
    heapq.heapify(events)
    now_s = recordings[0].submitted_s
    while events:
        due_s, number = heapq.heappop(events)
        now_s = max(now_s, due_s)
        while (wait_s := limiter.wait_s(now_s, reserved=True)) > 0.0:
            now_s += wait_s + 1e-4
        limiter.spend(now_s)
        if not _sees_end(recordings[number], now_s, quota, outcome):
            heapq.heappush(events, (now_s + 0.5 * (now_s - recordings[number].submitted_s), number))
    return outcome


def _sees_end(recording: Recording, at_s: float, quota: Quota, outcome: Outcome) -> bool:
    """Check once; return whether the answer shows that the operation has ended."""
    outcome.checks += 1
    if not quota.takes(at_s + LATENCY_S / 2):
        outcome.refused += 1
        return False
    if recording.ended_s > at_s + LATENCY_S / 2:
        return False
    outcome.delays_s.append(at_s + LATENCY_S - recording.ended_s)
    return True


def _documented_work_s(recording: Recording) -> float:
    return documented_s(recording.target) - (0.0 if recording.target.audio_s is None else QUEUE_S)
