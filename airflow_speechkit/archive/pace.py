"""When the next submit may go out: never more than the hourly quota, and not while the service asks for a pause."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

_HOUR = timedelta(hours=1)
_FIRST_PAUSE_S = 10.0
_LONGEST_PAUSE_S = 600.0


class Pace:
    """What has gone out in the last hour, and the pause that is on. It has no clock: it is told the time.

    :param per_hour: how many may go out in any hour (500 by default with the service; users buy more)
    """

    def __init__(self, per_hour: int) -> None:
        self.per_hour = per_hour
        self._sent: deque[datetime] = deque()
        self._paused_until: datetime | None = None
        self._pauses_in_a_row = 0

    def delay_s(self, now: datetime) -> float:
        """Return how many seconds from now the next one may go out; 0 is now."""
        self._forget(now)
        until = self._paused_until or now
        if len(self._sent) >= self.per_hour:
            until = max(until, self._sent[-self.per_hour] + _HOUR)
        return max(0.0, (until - now).total_seconds())

    def sent(self, now: datetime) -> None:
        """Count one that goes out now."""
        self._sent.append(now)

    def not_sent(self) -> None:
        """Take one back that wasn't needed, or that the service did not count."""
        if self._sent:
            self._sent.pop()

    def accepted(self) -> None:
        """Take note that the service takes recordings again."""
        self._pauses_in_a_row = 0

    def pause(self, now: datetime, asked_for_s: float | None = None, *, longest_s: float) -> float:
        """Stop everything for a while: longer each time in a row, or as long as the service asks for.

        :param asked_for_s: what ``Retry-After`` says
        :param longest_s: the pause lasts no longer
        :return: how many seconds the pause still lasts
        """
        if self._paused_until is None or now >= self._paused_until:
            length_s = min(_FIRST_PAUSE_S * 2**self._pauses_in_a_row, _LONGEST_PAUSE_S)
            self._pauses_in_a_row += 1
            self._paused_until = now + timedelta(seconds=length_s)
        if asked_for_s is not None:
            self._paused_until = max(self._paused_until, now + timedelta(seconds=asked_for_s))
        self._paused_until = min(self._paused_until, now + timedelta(seconds=longest_s))
        return (self._paused_until - now).total_seconds()

    def expected_end(self, left: int, now: datetime, seconds_each: float) -> datetime:
        """Say when the last of those that are left will have gone out.

        :param left: how many have still to go out
        :param seconds_each: what one takes, seen so far, with what goes on side by side
        """
        self._forget(now)
        by_work = now + timedelta(seconds=left * seconds_each + self.delay_s(now))
        beyond = left - (self.per_hour - len(self._sent))
        if beyond <= 0:
            return by_work
        # The quota comes back in the order in which it was used, and then once more each hour.
        rounds, place = divmod(beyond - 1, self.per_hour)
        used = self._sent[place] if place < len(self._sent) else now
        return max(by_work, used + _HOUR * (rounds + 1))

    def _forget(self, now: datetime) -> None:
        while self._sent and now - self._sent[0] >= _HOUR:
            self._sent.popleft()
