"""In what order operations are asked for: the lines they stand in, and whose turn it is. Pure, without a clock."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.polling.watch import Watch

#: What part of the rate those get who are behind, and set intervals while others wait whose schedule is predicted.
BEHIND_SHARE = INTERVAL_SHARE = 0.5
#: Once some have been behind for so many seconds without a break, they get more of it: else a steady stream of them
#: that half the rate is too little for would wait ever longer.
_LONG_BEHIND_S = 600.0
_LONG_BEHIND_SHARE = 0.7
#: Set intervals come due together: so many seconds of their rate may be spent at once.
_INTERVALS_AT_ONCE_S = 60.0


class Line:
    """Operations in the order of their places; what is planned anew or forgotten falls out by itself."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Watch]] = []
        self._kept = 0
        #: When the next one may be asked for at the earliest.
        self.free_at = -math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, watch: Watch, place: float, entry: int) -> None:
        """Line it up; an earlier entry of it is void from now on."""
        watch.entry = entry
        heapq.heappush(self._heap, (place, entry, watch))
        if len(self._heap) > 2 * self._kept + 64:
            self._heap = [one for one in self._heap if one[2].entry == one[1]]
            heapq.heapify(self._heap)
            self._kept = len(self._heap)

    def first(self) -> Watch | None:
        """Return the one that is first."""
        while self._heap:
            _, entry, watch = self._heap[0]
            if watch.entry == entry:
                return watch
            heapq.heappop(self._heap)
        return None


class Lines:
    """The lines, and how they take turns: the one that had its turn longest ago, of those where somebody is due.

    - `predicted`: by when it is worth asking.
    - `interval`: by when a user wants it asked for. Seconds between checks on hundreds of tasks would take the whole
      budget, so they keep to a part of the rate while there are predicted ones.
    - `behind`: those whose past isn't known here (a restart, or nobody waited), one after another at a part of the
      rate, so that thousands of them don't take the budget from the others.
    """

    def __init__(self) -> None:
        self.predicted, self.interval, self.behind = Line(), Line(), Line()
        self._by_turn = [self.predicted, self.interval, self.behind]
        self._behind_since: float | None = None
        self._entries = itertools.count(1)

    def __len__(self) -> int:
        return sum(map(len, self._by_turn))

    def put(self, watch: Watch, *, by_interval: bool) -> None:
        """Line it up by its `due`."""
        (self.interval if by_interval else self.predicted).put(watch, watch.due, next(self._entries))

    def put_behind(self, watch: Watch, *, in_front: bool = False) -> None:
        """Line it up behind all who are behind, or in front of them."""
        self.behind.put(watch, -1.0 if in_front else 0.0, next(self._entries))

    def behind_s(self, per_second: float) -> float:
        """Return how long those take who are behind, in seconds.

        :param per_second: what the budget can keep up
        """
        return len(self.behind) / (BEHIND_SHARE * per_second)

    def first(self, now: float) -> tuple[Watch, float] | None:
        """Return whose turn it is, and from when on; nothing where nobody waits."""
        soonest: tuple[Watch, float] | None = None
        for line in self._by_turn:
            watch = line.first()
            if watch is None:
                continue
            at = line.free_at if line is self.behind else max(watch.due, line.free_at)
            if at <= now:
                return watch, at
            if soonest is None or at < soonest[1]:
                soonest = watch, at
        return soonest

    def take(self, watch: Watch, now: float, per_second: float) -> None:
        """Take out the one whose turn it is: it is asked for now.

        :param per_second: what the budget can keep up
        """
        line = next(line for line in self._by_turn if line.first() is watch)
        self._by_turn.remove(line)
        self._by_turn.append(line)
        watch.entry = 0
        if line is self.behind:
            if self._behind_since is None:
                self._behind_since = now
            share = BEHIND_SHARE if now - self._behind_since < _LONG_BEHIND_S else _LONG_BEHIND_SHARE
            line.free_at = now + 1.0 / (share * per_second)
            if line.first() is None:
                self._behind_since = None
        elif line is self.interval:
            share = 1.0 if self.predicted.first() is None else INTERVAL_SHARE
            paid_until = max(line.free_at + _INTERVALS_AT_ONCE_S, now) + 1.0 / (share * per_second)
            line.free_at = paid_until - _INTERVALS_AT_ONCE_S

    def leave_out(self, watch: Watch) -> None:
        """Take one out without asking for it."""
        watch.entry = 0
