"""A quota of requests in a sliding window of service time."""

from __future__ import annotations

from collections import deque


class Quota:
    """At most `limit` requests in any `window_s` seconds. A refused request is not counted."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Count one request at `now`; return False if the quota is used up."""
        while self._taken and self._taken[0] <= now - self.window_s:
            self._taken.popleft()
        if len(self._taken) >= self.limit:
            return False
        self._taken.append(now)
        return True
