"""The service's clock: it runs `speed` times as fast as a wall clock, and can be advanced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime


@dataclass(frozen=True)
class ScaledClock:
    """A linear mapping of wall-clock time to service time; both are seconds since 1970.

    :param speed: service seconds per wall-clock second
    :param wall_s: wall-clock time of the anchor
    :param service_s: service time of the anchor
    """

    speed: float
    wall_s: float
    service_s: float

    def at(self, wall_s: float) -> float:
        """The service time at the wall-clock time `wall_s`."""
        return self.service_s + (wall_s - self.wall_s) * self.speed

    def wall_at(self, service_s: float) -> float:
        """The wall-clock time at the service time `service_s`."""
        return self.wall_s + (service_s - self.service_s) / self.speed

    def advanced(self, seconds: float) -> ScaledClock:
        """The same clock, advanced by `seconds` of service time."""
        return replace(self, service_s=self.service_s + seconds)

    def at_speed(self, speed: float, wall_s: float) -> ScaledClock:
        """The same clock, running at another speed from `wall_s` on."""
        return ScaledClock(speed, wall_s, self.at(wall_s))


def timestamp(service_s: float) -> str:
    """RFC 3339 in UTC, in whole seconds, as in all recognition answers of the service."""
    return datetime.fromtimestamp(int(service_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
