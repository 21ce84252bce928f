"""What the poller writes into Airflow's own `Stats`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

_GAUGES_EVERY_S = 10.0


class Stats(Protocol):
    """What of Airflow's `Stats` is used. Durations are in milliseconds."""

    def incr(self, stat: str, count: int = 1) -> object: ...  # noqa: D102
    def gauge(self, stat: str, value: float) -> object: ...  # noqa: D102
    def timing(self, stat: str, dt: float) -> object: ...  # noqa: D102


class Gauges:
    """The levels of one poller. StatsD knows no tags, so the connection and the API version are part of the name.

    :param key: what the poller is shared by
    """

    def __init__(self, stats: Stats | None, key: Hashable) -> None:
        self._stats = stats
        parts = key if isinstance(key, tuple) else (key,)
        # Airflow drops a metric whose name has other characters, or more than 250.
        self._name = ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", str(part))[:100] for part in parts)
        self._written_at = float("-inf")

    def write(self, now: float, *, waiting: int, checks_left: int, always: bool = False) -> None:
        """Write how many operations are waited for, and how many checks the limit still allows, now and then."""
        if self._stats is not None and (always or now - self._written_at >= _GAUGES_EVERY_S):
            self._written_at = now
            self._stats.gauge(f"speechkit.waiting.{self._name}", waiting)
            self._stats.gauge(f"speechkit.budget_left.{self._name}", checks_left)
