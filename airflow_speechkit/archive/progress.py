"""How far a batch is: a line in the log now and then."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from airflow_speechkit.archive.batch import How

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from airflow_speechkit.archive.claiming import Case
    from airflow_speechkit.archive.pace import Pace

log = logging.getLogger(__name__)


class Progress:
    """Writes at most one line in a while, about all recordings of a run.

    :param cases: the recordings
    :param pace: what decides when the last one goes out
    :param every: the least time between two lines
    :param now: when the sending began
    """

    def __init__(self, cases: Sequence[Case], pace: Pace, every: timedelta, now: datetime) -> None:
        self._cases = cases
        self._pace = pace
        self._every = every
        self._began = self._last = now
        self._left_at_first = sum(case.outcome is None for case in cases)

    def log(self, now: datetime, *, last: bool = False) -> None:
        """Write a line, if it is time for one.

        :param last: nothing is left: write one in any case
        """
        if not last and now - self._last < self._every:
            return
        self._last = now
        log.info("%s", self.line(now))

    def line(self, now: datetime) -> str:
        """Return what there is to say: done, failed, waiting, expected end."""
        counts = Counter(case.outcome.how for case in self._cases if case.outcome is not None)
        left = len(self._cases) - counts.total()
        done = ", ".join(f"{counts[how]} {how.value}" for how in How if counts[how])
        text = f"{counts.total()} of {len(self._cases)} recordings done{f' ({done})' if done else ''}, {left} waiting"
        if not left:
            return text
        worked_off = self._left_at_first - left
        each_s = (now - self._began).total_seconds() / worked_off if worked_off else 1.0
        end = self._pace.expected_end(left, now, each_s)
        return f"{text}; expected end {end:%Y-%m-%d %H:%M} UTC"
