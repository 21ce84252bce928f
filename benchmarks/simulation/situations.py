"""Situations in which checks are scarce: a restart, one recording beside a batch, triggerers that share a quota."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from simulation.ours import Triggerer, run
from simulation.service import LATENCY_S, QUOTA, Quota, Service

from airflow_speechkit.polling.rate_limit import DEFAULT_SHARE, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_S = 3600.0


@dataclass(frozen=True)
class Measured:
    """The result of one situation with one seed.

    :param own: the figures that only this situation has
    """

    own: dict[str, float]
    triggerers: list[Triggerer]
    quota: Quota


def restart(
    seed: int,
    *,
    operations: int = 2000,
    lengths_known: bool = True,
    ended_within_s: float = HOUR_S,
    checks_per_hour: float = QUOTA * DEFAULT_SHARE,
) -> Measured:
    """All have ended when a triggerer starts, which counts 90 % of the last hour's checks as spent."""
    service = Service(f"restart {seed}", lengths_known=lengths_known)
    recordings = [
        service.recording(0.0).ended_before(0.0, by_s) for by_s in service.moments(operations, 0.0, ended_within_s)
    ]
    quota = Quota(checks_per_hour / DEFAULT_SHARE)
    triggerer = Triggerer(recordings, quota, checks_per_hour=checks_per_hour)
    run([triggerer])
    limiter, best_s = RateLimiter.for_checks("v2", checks_per_hour=checks_per_hour), 0.0
    for _ in recordings:
        while (wait_s := limiter.wait_s(best_s, reserved=True)) > 0.0:
            best_s += wait_s
        limiter.spend(best_s)
    best_s += LATENCY_S
    seen_s = max(seen_s for _, seen_s in triggerer.seen)
    return Measured({"all_seen_s": seen_s, "at_best_s": best_s, "times_best": seen_s / best_s}, [triggerer], quota)


def fair(seed: int, *, batch: int) -> Measured:
    """One short recording of another task, with a batch of short ones that ended before the wait."""
    service, chance = Service(f"fair {seed}"), random.Random(seed)
    waited = [service.recording(0.0, short=True).ended_before(0.0, chance.uniform(0.0, 600.0)) for _ in range(batch)]
    one = service.recording(chance.uniform(0.0, HOUR_S), short=True, task="one")
    alone, quota = Triggerer(waited, Quota()), Quota()
    triggerer = Triggerer([*waited, one], quota)
    run([alone])
    run([triggerer])
    own = {
        "one_delay_s": next(seen_s for recording, seen_s in triggerer.seen if recording is one) - one.ended_s,
        "batch_mean_s": fmean(seen_s for recording, seen_s in triggerer.seen if recording is not one),
        "batch_alone_mean_s": fmean(seen_s for _, seen_s in alone.seen),
    }
    return Measured(own, [triggerer], quota)


def shared_quota(seed: int, *, triggerers: int, hours: int = 4) -> Measured:
    """Triggerers that share a quota without knowing it, each with more operations than the whole quota allows.

    The first hour is not counted, because they adapt to each other in it.
    """
    quota, chance = Quota(), random.Random(f"start {seed}")
    sharers = []
    for number in range(triggerers):
        service = Service(f"shared quota {seed} {number}")
        moments = service.moments(QUOTA * hours, chance.uniform(0.0, 900.0), hours * HOUR_S)
        sharers.append(Triggerer([service.recording(at_s) for at_s in moments], quota))
    run(sharers, until_s=hours * HOUR_S)
    answered = [sum(at_s >= HOUR_S for at_s in sharer.answered_s) for sharer in sharers]
    refused = sum(at_s >= HOUR_S for sharer in sharers for at_s in sharer.refused_s)
    taken = sum(answered)
    own = {
        "share_429": refused / (taken + refused),
        "least_of_fair_share": min(answered) * triggerers / taken,
        "quota_used": taken / (QUOTA * (hours - 1)),
    }
    return Measured(own, sharers, quota)


@dataclass(frozen=True)
class Situation:
    """One row of the table.

    :param recordings: number of recordings to wait for, or per hour
    :param measure: runs it with a seed
    """

    name: str
    recordings: int
    measure: Callable[[int], Measured]


SITUATIONS = [
    Situation("restart", 2000, restart),
    Situation("restart, lengths unknown", 2000, lambda seed: restart(seed, lengths_known=False)),
    Situation(
        "restart, lengths unknown, ended within 140 s",
        2000,
        lambda seed: restart(seed, lengths_known=False, ended_within_s=140.0),
    ),
    Situation(
        "restart, lengths unknown, ended within 140 s, 24,000 an hour",
        2000,
        lambda seed: restart(seed, lengths_known=False, ended_within_s=140.0, checks_per_hour=24_000.0),
    ),
    Situation("fair, one call beside 1,000", 1001, lambda seed: fair(seed, batch=1000)),
    Situation("fair, one call beside 2,500", 2501, lambda seed: fair(seed, batch=2500)),
    Situation("shared quota, 3 triggerers", 3 * QUOTA, lambda seed: shared_quota(seed, triggerers=3)),
    Situation("shared quota, 8 triggerers", 8 * QUOTA, lambda seed: shared_quota(seed, triggerers=8)),
]
