"""What the poller writes into Airflow's own `Stats`."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

_GAUGES_EVERY_S = 10.0
#: Airflow drops a metric whose whole name is longer than 250 characters.
_LONGEST_PART = 60


class Stats(Protocol):
    """What of Airflow's `Stats` is used."""

    def incr(self, stat: str, count: int = 1) -> object:
        """Count."""

    def gauge(self, stat: str, value: float) -> object:
        """Set a level."""

    def timing(self, stat: str, dt: float) -> object:
        """Record a duration, in milliseconds."""


class NoStats:
    """Stats that go nowhere."""

    def incr(self, stat: str, count: int = 1) -> None:
        """Count nothing."""

    def gauge(self, stat: str, value: float) -> None:
        """Set nothing."""

    def timing(self, stat: str, dt: float) -> None:
        """Record nothing."""


class Gauges:
    """The levels of one poller, under names of its own: pollers would overwrite one another's.

    StatsD as it is knows no tags, so the connection and the API version are part of the name.

    :param key: what the poller is shared by
    """

    def __init__(self, stats: Stats, key: Hashable) -> None:
        self._stats = stats
        parts = key if isinstance(key, tuple) else (key,)
        self._whose = ".".join(_safe(str(part)) for part in parts)
        self._written_at = float("-inf")

    def are_due(self, now: float) -> bool:
        """Whether they were written long enough ago."""
        return now - self._written_at >= _GAUGES_EVERY_S

    def write(self, now: float, *, waiting: int, budget_left: int) -> None:
        """Write how many operations are waited for, and how many requests the limit still allows."""
        self._written_at = now
        self._stats.gauge(f"speechkit.waiting.{self._whose}", waiting)
        self._stats.gauge(f"speechkit.budget_left.{self._whose}", budget_left)


def _safe(name: str) -> str:
    """Return a part of a metric's name: what isn't allowed there is replaced, and a hash tells such names apart."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if safe == name and len(name) <= _LONGEST_PART:
        return name
    return f"{safe[:_LONGEST_PART]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
