"""Waiting in a worker: the poke and reschedule modes, as pure functions of an operation's age.

A worker shares no memory with the others, and in reschedule mode not even with itself. So nothing is learned here, and
what may be spent is a slice of its own: beside what the triggerers spend, an eighth of that, divided by how many such
sensors are taken to wait side by side.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_speechkit.polling.budget import DEFAULT_SHARE, QUOTAS
from airflow_speechkit.polling.forecast import Kind, Learned, kind_of, work_s
from airflow_speechkit.polling.schedule import (
    Forecast,
    interval_slot_after,
    interval_slot_before,
    last_check_age,
    next_check_age,
    price_for,
)
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.polling.waiting import Waiting

#: The slice of the blocking modes, against what the triggerers spend: 250 an hour of v2's 2,500 by default.
BLOCKING_SHARE = 1 / 8
#: Checks planned for one operation; nothing is learned, so it is one more than a triggerer takes.
_PLANNED_CHECKS = 3.0
#: Seconds that the checks of one poke may take.
_LONGEST_POKE_S = 60.0


@dataclass(frozen=True, slots=True)
class BlockingAllowance:
    """What one blocking sensor may spend.

    :param per_second: checks a second, in the long run
    :param at_once: checks in one poke, at most
    :param pause_s: seconds between two checks of one poke: v3's quota counts each second by itself
    """

    per_second: float
    at_once: int
    pause_s: float = 0.0

    @classmethod
    def of(
        cls,
        api_version: ApiVersion | str,
        *,
        checks_per_hour: float | None = None,
        checks_per_second: float | None = None,
        side_by_side: int = 4,
    ) -> BlockingAllowance:
        """Return the allowance of one sensor.

        :param api_version: ``v2`` or ``v3``: whose quota it is
        :param checks_per_hour: what the triggerers may spend of v2's quota
        :param checks_per_second: what the triggerers may spend of v3's quota
        :param side_by_side: sensors that are taken to wait in workers at the same time
        """
        quota, seconds = QUOTAS[ApiVersion(api_version)]
        asked = checks_per_hour if api_version == ApiVersion.V2 else checks_per_second
        requests = (quota * DEFAULT_SHARE if asked is None else asked) * BLOCKING_SHARE
        per_second = requests / seconds / max(side_by_side, 1)
        at_once = max(int(per_second * 3600.0), 1)
        if seconds >= _LONGEST_POKE_S:
            return cls(per_second, at_once)
        # What the triggerers leave of the quota.
        pause_s = seconds / (quota * (1.0 - DEFAULT_SHARE))
        return cls(per_second, min(at_once, int(_LONGEST_POKE_S / pause_s)), pause_s)


def next_check(waiting: Waiting, now: float, allowance: BlockingAllowance) -> float:
    """Return when to ask for an operation next, in seconds since the epoch, given that it was asked for just now.

    :param waiting: what is waited for
    :param now: seconds since the epoch
    :param allowance: what this sensor may spend
    """
    following = waiting.submitted_at + _slot_after(waiting, max(now - waiting.submitted_at, 0.0))
    if waiting.interval_s is None and _slot_before(waiting, now - waiting.submitted_at) > 0.0:
        return max(following, now + 1.0 / allowance.per_second)
    return following


def next_poke(waitings: Sequence[Waiting], asked: int, now: float, allowance: BlockingAllowance) -> float:
    """Return when to look at the whole list again, in seconds since the epoch.

    :param waitings: what has not ended
    :param asked: how many of them were asked for just now: so many more have to be earned
    :param now: seconds since the epoch
    :param allowance: what this sensor may spend
    """
    following = min(next_check(waiting, now, allowance) for waiting in waitings)
    if all(waiting.interval_s is not None for waiting in waitings):
        return following
    return max(following, now + asked / allowance.per_second)


def due(waitings: Sequence[Waiting], since: float | None, now: float, allowance: BlockingAllowance) -> list[Waiting]:
    """Return those whose turn has come since the last look, no more than may be asked for at once.

    :param waitings: what has not ended
    :param since: when they were looked at last, in seconds since the epoch; `None` for the first look
    :param now: seconds since the epoch
    :param allowance: what this sensor may spend
    """
    if len(waitings) > allowance.at_once:
        # Not all can have their turn at each look, and nobody remembers who had: it falls to them by lot.
        since = None
    chosen = [waiting for waiting in waitings if _is_due(waiting, since, now)]
    if len(chosen) > allowance.at_once:
        chosen = random.Random(now).sample(chosen, allowance.at_once)  # noqa: S311 - a fair lot, not a secret
    return chosen


def _is_due(waiting: Waiting, since: float | None, now: float) -> bool:
    slot = _slot_before(waiting, now - waiting.submitted_at)
    return slot > 0.0 and (since is None or waiting.submitted_at + slot > since)


def _slot_after(waiting: Waiting, age_s: float) -> float:
    if waiting.interval_s is not None:
        return interval_slot_after(age_s, waiting.interval_s)
    forecast, price_s = _plan(kind_of(waiting), work_s(waiting))
    return next_check_age(forecast, price_s, last_check_age(forecast, price_s, age_s))


def _slot_before(waiting: Waiting, age_s: float) -> float:
    if age_s <= 0.0:
        return 0.0
    if waiting.interval_s is not None:
        return interval_slot_before(age_s, waiting.interval_s)
    return last_check_age(*_plan(kind_of(waiting), work_s(waiting)), age_s)


@lru_cache(maxsize=4096)
def _plan(kind: Kind, work: float) -> tuple[Forecast, float]:
    forecast = _believed(kind).forecast(work)
    return forecast, price_for(_PLANNED_CHECKS, [forecast])


@lru_cache(maxsize=len(Kind))
def _believed(kind: Kind) -> Learned:
    return Learned(kind)
