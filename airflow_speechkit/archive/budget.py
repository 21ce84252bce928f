"""What a run may be billed for, checked before anything is sent."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING

from airflow_speechkit.errors import CostLimitExceededError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_speechkit.models import Recording
    from airflow_speechkit.settings import RecognitionSettings


def bill(items: Sequence[Recording], price_note: Callable[[RecognitionSettings], str]) -> str:
    """Say what sending these will be billed.

    :param price_note: what a second costs with these settings, in words; empty where it is the usual price
    """
    seconds: Counter[str] = Counter()
    for item in items:
        seconds[price_note(item.settings)] += item.billed_seconds or 0
    text = " and ".join(f"{total:,} seconds{note}" for note, total in sorted(seconds.items())) or "0 seconds"
    unknown = sum(item.billed_seconds is None for item in items)
    return f"{text} and {unknown:,} of unknown length" if unknown else text


class Budget:
    """Billed seconds that may still be spent. Safe to share between threads.

    :param max_billed_seconds: for everything that a run sends; None for no limit
    """

    def __init__(self, max_billed_seconds: int | None) -> None:
        self._limit = max_billed_seconds
        self._left = max_billed_seconds
        self._lock = Lock()

    def plan(self, items: Sequence[Recording]) -> None:
        """Set aside what sending these will be billed.

        :param items: those that have to be sent
        :raises CostLimitExceededError: it is more than the budget, or can't be told
        """
        if self._limit is None:
            return
        total = sum(item.billed_seconds or 0 for item in items)
        unknown = [item for item in items if item.billed_seconds is None]
        if unknown:
            raise CostLimitExceededError(
                f"The length of {len(unknown)} of {len(items)} recordings can't be told, so neither can their cost, "
                f"and `max_billed_seconds` is {self._limit}",
                recording=unknown[0].audio_uri,
                hint="Leave them out, or take the limit away; nothing has been sent",
            )
        if total > self._limit:
            raise CostLimitExceededError(
                f"Submitting {len(items)} recordings would be billed {total} seconds, and `max_billed_seconds` is "
                f"{self._limit}",
                hint="Submit fewer, or raise the limit; nothing has been sent",
            )
        self._left = self._limit - total

    def spent(self, seconds: int) -> None:
        """Count what the run was billed for before."""
        if self._left is not None:
            self._left -= seconds

    def spend(self, item: Recording) -> None:
        """Set aside what one more will be billed.

        :raises CostLimitExceededError: it is more than what is left, or can't be told
        """
        if self._left is None:
            return
        seconds = item.billed_seconds
        with self._lock:
            if seconds is not None and seconds <= self._left:
                self._left -= seconds
                return
        raise CostLimitExceededError(
            "The length of this recording can't be told, so neither can its cost"
            if seconds is None
            else f"Submitting this recording too would be more than `max_billed_seconds` ({self._limit})",
            recording=item.audio_uri,
            hint="Leave it out, or raise the limit; it has not been sent",
        )
