"""What the poller writes into Airflow's own `Stats`."""

from __future__ import annotations

import re
from hashlib import sha256
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
        self._name = ".".join(_accepted(str(part)) for part in parts)
        self._written_at = float("-inf")

    def write(self, now: float, *, waiting: int, checks_left: int, always: bool = False) -> None:
        """Write how many operations are waited for, and how many checks the limit still allows, now and then."""
        if self._stats is not None and (always or now - self._written_at >= _GAUGES_EVERY_S):
            self._written_at = now
            self._stats.gauge(f"speechkit.waiting.{self._name}", waiting)
            self._stats.gauge(f"speechkit.budget_left.{self._name}", checks_left)


def _accepted(part: str) -> str:
    """Return a part of a name that Airflow accepts: it drops one with other characters, or with more than 250."""
    accepted = re.sub(r"[^A-Za-z0-9_-]", "_", part)[:100]
    return accepted if accepted == part else f"{accepted[:91]}_{sha256(part.encode()).hexdigest()[:8]}"
