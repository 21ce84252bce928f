"""How far a batch is: a line at its start, one now and then, and one at its end."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from airflow_speechkit.archive.batch import How
from airflow_speechkit.archive.ledger import Action

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from airflow_speechkit.archive.claiming import Case
    from airflow_speechkit.archive.pace import Pace

log = logging.getLogger(__name__)


def found(cases: Sequence[Case], bill: str) -> str:
    """Say what recordings there are, before anything is sent.

    :param bill: what sending the new ones will be billed, in words
    """
    new = sum(case.decision is not None and case.decision.action is Action.SUBMIT for case in cases)
    counts = _counts(cases)
    elsewhere = len(cases) - new - counts.total()
    text = f"{len(cases)} recordings: {_said(counts)}{', ' if counts else ''}{new} "
    text += f"new, which will be billed {bill}" if new else "new"
    return f"{text}; {elsewhere} are being submitted elsewhere" if elsewhere else text


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

        :param last: write one in any case
        """
        if not last and now - self._last < self._every:
            return
        self._last = now
        log.info("%s", self.line(now))

    def line(self, now: datetime) -> str:
        """Return what there is to say: done, failed, waiting, expected end."""
        counts = _counts(self._cases)
        left = len(self._cases) - counts.total()
        done = f" ({_said(counts)})" if counts else ""
        text = f"{counts.total()} of {len(self._cases)} recordings done{done}, {left} waiting"
        if not left:
            return text
        worked_off = self._left_at_first - left
        each_s = (now - self._began).total_seconds() / worked_off if worked_off else 1.0
        end = self._pace.expected_end(left, now, each_s)
        return f"{text}; expected end {end:%Y-%m-%d %H:%M} UTC"


def _counts(cases: Sequence[Case]) -> Counter[How]:
    return Counter(case.outcome.how for case in cases if case.outcome is not None)


def _said(counts: Counter[How]) -> str:
    return ", ".join(f"{counts[how]} {how.value}" for how in How if counts[how])
