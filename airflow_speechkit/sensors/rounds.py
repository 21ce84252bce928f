"""Asking in a worker for what is waited for, round after round: the poke and reschedule modes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airflow_speechkit.errors import QuotaExceededError, SpeechKitError, WrongBeforeSendingError
from airflow_speechkit.polling.blocking import due, next_poke
from airflow_speechkit.sensors.setbacks import is_everywhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_speechkit.polling.blocking import BlockingAllowance
    from airflow_speechkit.polling.waiting import Waiting
    from airflow_speechkit.sensors.checking import Checked, HowEnded
    from airflow_speechkit.sensors.setbacks import Setbacks

#: No operation that is running is older, whatever it says of itself, and when to ask is worked out from its beginning.
_OLDEST_S = 7 * 24 * 3600.0


@dataclass
class Rounds:
    """Who is asked for, and what came of it, as far as this process has seen.

    :param left: what has not ended
    :param of_unknown_age: those of them that the archive doesn't know and that have not been asked for yet
    :param check: asks for one operation, and archives it
    :param allowance: what may be spent
    :param setbacks: how errors are survived
    :param clock: seconds since the epoch
    :param sleep: waits that many seconds
    """

    left: list[Waiting]
    of_unknown_age: set[str]
    check: Callable[[str], Checked]
    allowance: BlockingAllowance
    setbacks: Setbacks
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    ended: dict[str, HowEnded] = field(default_factory=dict)
    _postponed: list[str] = field(default_factory=list)
    _asked_at: float | None = None
    _asked: int = 0

    def ask(self) -> None:
        """Ask for what is due.

        :raises SpeechKitError: too many errors in a row, or one that can't pass
        """
        now = self.clock()
        if now < self.setbacks.held_until:
            return
        turn = self._turn(now)
        asked, self._postponed = turn[: self.allowance.at_once], turn[self.allowance.at_once :]
        self._asked_at, self._asked = now, 0
        try:
            for number, operation_id in enumerate(asked):
                if number:
                    self.sleep(self.allowance.pause_s)
                self._asked += 1
                if not self._ask(operation_id):
                    # The one that met the error comes last, or it would keep the others from ever being asked for.
                    self._postponed = [*asked[number + 1 :], *self._postponed, operation_id]
                    break
        finally:
            self.left = [one for one in self.left if one.operation_id not in self.ended]

    def _turn(self, now: float) -> list[str]:
        """Say whose turn it is: first whoever has missed one."""
        missed = set(self._postponed)
        again, unknown, others = [], [], []
        for one in self.left:
            until = self.setbacks.until(one.operation_id)
            if one.operation_id in missed:
                continue
            if until is not None:
                again += [one.operation_id] if until <= now else []
            elif one.operation_id in self.of_unknown_age:
                unknown.append(one.operation_id)
            else:
                others.append(one)
        regular = [one.operation_id for one in due(others, self._asked_at, now, self.allowance)]
        return [*self._postponed, *again, *unknown, *regular]

    def _ask(self, operation_id: str) -> bool:
        """Ask for one; return whether the next one can be asked for."""
        while True:
            try:
                checked = self.check(operation_id)
            except WrongBeforeSendingError:
                raise
            except QuotaExceededError as error:
                self.setbacks.refused(error)
                return False
            except SpeechKitError as error:
                if not self.setbacks.failed(error, operation_id):
                    return not is_everywhere(error)
            else:
                break
        self.setbacks.answered(operation_id)
        if checked.how is not None:
            self.ended[operation_id] = checked.how
        elif operation_id in self.of_unknown_age and checked.created_at is not None:
            now = self.clock()
            begun = min(max(checked.created_at.timestamp(), now - _OLDEST_S), now)
            self.left = [
                replace(one, submitted_at=begun) if one.operation_id == operation_id else one for one in self.left
            ]
        self.of_unknown_age.discard(operation_id)
        return True

    def next_in_s(self) -> float:
        """Return when to ask again, in seconds from now, by the prediction and what has been spent."""
        now = self.clock()
        failing = [until for one in self.left if (until := self.setbacks.until(one.operation_id)) is not None]
        healthy = [one for one in self.left if self.setbacks.until(one.operation_id) is None]
        times = [*failing, *([now] if self._postponed else [])]
        if healthy:
            times.append(next_poke(healthy, self._asked, now, self.allowance))
        # What was asked for in vain has been spent all the same.
        earned_at = now + self._asked / self.allowance.per_second if failing or self._postponed else now
        return max(min(times, default=now), earned_at, self.setbacks.held_until) - now

    def held_s(self) -> float:
        """Return for how many seconds errors forbid to ask for anything."""
        until = self.setbacks.held_until
        failing = [self.setbacks.until(one.operation_id) for one in self.left]
        if failing and None not in failing:
            until = max(until, min(one for one in failing if one is not None))
        return max(until - self.clock(), 0.0)
