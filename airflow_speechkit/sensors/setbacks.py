"""How a wait in a worker survives errors: as long as one in a triggerer would."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_speechkit.archive.keeping import LONGEST_PAUSE_S, pause_s
from airflow_speechkit.errors import (
    AuthenticationError,
    QuotaExceededError,
    ServiceFaultError,
    SpeechKitError,
    StorageError,
    UnreachableError,
)
from airflow_speechkit.hooks.archive import patience_with
from airflow_speechkit.polling.outage import Failures

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Errors of the host, the credentials or the archive, not of one operation: nothing is asked for until they pass.
_EVERYWHERE = (AuthenticationError, ServiceFaultError, StorageError, UnreachableError)

#: A task that forgets how often it failed holds back for this part of the time that it has waited.
_PART_OF_THE_WAIT = 0.1


@dataclass
class _Row:
    """Failures in a row.

    :param until: when to try again, in seconds since the epoch
    """

    failures: Failures = field(default_factory=Failures)
    until: float = 0.0


class Setbacks:
    """Failures in a row, and what they mean to the wait.

    :param began: of a rescheduled task: when it began first, in seconds since the epoch. That is all it knows of its
        past, so once that is longer ago than patience lasts, it tries as often as patience asks for within one poke
    :param clock: seconds since the epoch
    :param sleep: waits that many seconds
    """

    def __init__(
        self,
        *,
        began: float | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.held_until = 0.0
        self._began = began
        self._clock = clock
        self._sleep = sleep
        self._rows: dict[str, _Row] = {}
        self._everywhere: _Row | None = None
        self._refusals = 0

    def until(self, operation_id: str) -> float | None:
        """Return when an operation that was asked for in vain is asked for again; None for any other."""
        row = self._rows.get(operation_id)
        return None if row is None else row.until

    def answered(self, operation_id: str) -> None:
        """Take in an answer."""
        self._rows.pop(operation_id, None)
        self._everywhere = None
        self._refusals = 0

    def refused(self, error: QuotaExceededError) -> None:
        """Take in a 429: nothing is asked for until it has passed. The wait goes on, however often that comes."""
        self._refusals += 1
        self.held_until = self._clock() + max(error.retry_after_s or 0.0, self._pause_s(self._refusals))
        log.warning("The quota is used up (429), so nothing is asked for now: %s", error)

    def failed(self, error: SpeechKitError, operation_id: str | None = None) -> bool:
        """Take in a failure.

        :param operation_id: what was asked for; None where it was the archive alone
        :return: whether to try the same again right now
        :raises SpeechKitError: the error, where there have been too many
        """
        if isinstance(error, StorageError) and not error.retry_can_help:
            # A right that is missing, a damaged file: a person has to see to it.
            raise error
        now = self._clock()
        patience = patience_with(error)
        rows = [] if operation_id is None else [self._rows.setdefault(operation_id, _Row())]
        if is_everywhere(error):
            self._everywhere = self._everywhere or _Row()
            rows.append(self._everywhere)
        for row in rows:
            # Of a rescheduled task as if the first one had come when the task began: nobody remembers when it did.
            if row.failures.add(patience, now if self._began is None or row.failures.number else self._began):
                raise error
        if self._began is not None and now - self._began >= patience.seconds:
            pause = pause_s(max(row.failures.number for row in rows))
            log.warning("Trying again in %g s: %s", pause, error)
            self._sleep(pause)
            return True
        for row in rows:
            row.until = now + self._pause_s(row.failures.number)
        if is_everywhere(error):
            self.held_until = max(row.until for row in rows)
        log.warning("Asked for nothing, and will ask again: %s", error)
        return False

    def _pause_s(self, failures: int) -> float:
        if self._began is None:
            return pause_s(failures)
        return max(pause_s(failures), min((self._clock() - self._began) * _PART_OF_THE_WAIT, LONGEST_PAUSE_S))


def is_everywhere(error: SpeechKitError) -> bool:
    """Tell whether any other operation would have met the same error."""
    return isinstance(error, _EVERYWHERE)
