"""The service's clock: it runs `speed` times as fast as a wall clock, and can be put forward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime


@dataclass(frozen=True)
class ScaledClock:
    """A straight line from wall time to service time; both are seconds since 1970.

    :param speed: seconds of the service's time in a second of wall time
    :param wall_s: wall time of the line's anchor
    :param service_s: service time at the anchor
    """

    speed: float
    wall_s: float
    service_s: float

    def at(self, wall_s: float) -> float:
        """The service's time when a wall clock shows `wall_s`."""
        return self.service_s + (wall_s - self.wall_s) * self.speed

    def wall_at(self, service_s: float) -> float:
        """What a wall clock will show at the service's time `service_s`."""
        return self.wall_s + (service_s - self.service_s) / self.speed

    def advanced(self, seconds: float) -> ScaledClock:
        """The same clock put forward by `seconds` of the service's time."""
        return replace(self, service_s=self.service_s + seconds)

    def at_speed(self, speed: float, wall_s: float) -> ScaledClock:
        """The same clock, running at another speed from `wall_s` on."""
        return ScaledClock(speed, wall_s, self.at(wall_s))


def timestamp(service_s: float) -> str:
    """RFC 3339 in UTC, whole seconds, as in all of the service's recognition answers."""
    return datetime.fromtimestamp(int(service_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
