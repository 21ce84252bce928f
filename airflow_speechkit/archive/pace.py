"""When submits may go out: never more than the hourly quota, and not while the service asks for a pause."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_speechkit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A task that frees its worker comes back for at least so many, or for all of the rest.
LEAST_OF_A_VISIT = 50

_HOUR = timedelta(hours=1)
_REFUSED = RetryPolicy(first_s=10.0, longest_s=600.0)

#: To come back takes a task longer than this.
_NOT_WORTH_LEAVING_S = 5.0


class Pace:
    """What has gone out in the last hour, and the pause that is on. It has no clock: it is told the time.

    :param per_hour: how many may go out in any hour (500 by default with the service; users buy more)
    :param refused_since: since when the service has taken nothing, if it didn't take the last one
    """

    def __init__(self, per_hour: int, refused_since: datetime | None = None) -> None:
        self.per_hour = per_hour
        self.refused_since = refused_since
        self._sent: deque[datetime] = deque()
        self._paused_until: datetime | None = None
        self._over_quota = False

    def remember(self, sent: Iterable[datetime], now: datetime) -> None:
        """Count what went out before: by an earlier try or visit of the task, or by somebody else.

        :param sent: when each went out
        """
        self._sent = deque(sorted([*self._sent, *(min(at, now) for at in sent)]))
        self._forget(now)

    def delay_s(self, now: datetime, number: int = 1) -> float:
        """Return how many seconds from now so many more may have gone out; 0 is now.

        :param number: how many; more than the quota of an hour count as that quota
        """
        paused_s = 0.0 if self._paused_until is None else (self._paused_until - now).total_seconds()
        return max(0.0, paused_s, self._quota_s(now, number))

    def comes_back_at(self, left: int, now: datetime) -> datetime | None:
        """Say when a task that doesn't wait for the quota is to go on; None: at once, it needn't leave.

        :param left: how many have still to go out
        """
        number = min(left, LEAST_OF_A_VISIT)
        refused = self._over_quota and self._paused_until is not None and now < self._paused_until
        used_up = self._quota_s(now, 1) > 0 and self._quota_s(now, number) > _NOT_WORTH_LEAVING_S
        if not refused and not used_up:
            return None
        return now + timedelta(seconds=self.delay_s(now, number))

    @property
    def last_hour(self) -> list[datetime]:
        """When something went out within the last hour."""
        return list(self._sent)

    def sent(self, now: datetime) -> None:
        """Count one that goes out now."""
        self._sent.append(now)

    def not_sent(self) -> None:
        """Take one back that wasn't needed, or that the service did not count."""
        if self._sent:
            self._sent.pop()

    def is_beyond(self, patience: timedelta, now: datetime) -> bool:
        """Tell whether the service has taken nothing for so long."""
        return self.refused_since is not None and now - self.refused_since >= patience

    def accepted(self) -> None:
        """Take note that the service takes recordings again."""
        self.refused_since = None

    def pause(
        self, now: datetime, asked_for_s: float | None = None, *, patience: timedelta, over_quota: bool = False
    ) -> float | None:
        """Stop everything for a while: longer each time in a row, or as long as the service asks for.

        :param asked_for_s: what ``Retry-After`` says
        :param patience: the pause ends in time for one more try once nothing was taken for so long
        :param over_quota: whether the service refused for its quota, rather than being in trouble
        :return: how many seconds the pause lasts; None if it was on already, and lasts no longer for this
        """
        before = self._paused_until
        since = self.refused_since = self.refused_since or now
        if self._paused_until is None or now >= self._paused_until:
            length_s = _REFUSED.pause_after_s((now - since).total_seconds())
            self._paused_until = now + timedelta(seconds=length_s)
            self._over_quota = False
        if asked_for_s is not None:
            self._paused_until = max(self._paused_until, now + timedelta(seconds=asked_for_s))
        self._over_quota = self._over_quota or over_quota
        self._paused_until = min(self._paused_until, since + patience)
        return None if self._paused_until == before else (self._paused_until - now).total_seconds()

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

    def _quota_s(self, now: datetime, number: int) -> float:
        self._forget(now)
        place = len(self._sent) + min(number, self.per_hour) - self.per_hour - 1
        return 0.0 if place < 0 else (self._sent[place] + _HOUR - now).total_seconds()

    def _forget(self, now: datetime) -> None:
        while self._sent and now - self._sent[0] >= _HOUR:
            self._sent.popleft()
