"""What the service will charge for, as its pricing page has it, and the limit that a task sets.

The unit is a second of two-channel audio: seconds are rounded up, channels are rounded up to pairs, and each pair
costs 15 seconds at least (`yandex-cloud/docs`, ``en/speechkit/pricing.md``).
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from airflow_speechkit.errors import CostLimitExceededError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_speechkit.models import Recording

MINIMUM_SECONDS = 15
CHANNELS_IN_A_UNIT = 2


def billed_seconds(duration_ms: int, channels: int) -> int:
    """Return the units of a recording: ``max(15, ceil(seconds)) * ceil(channels / 2)``.

    :param duration_ms: how long it is, in milliseconds
    :param channels: how many channels it has
    """
    seconds = -(-duration_ms // 1000)
    pairs = -(-channels // CHANNELS_IN_A_UNIT)
    return max(MINIMUM_SECONDS, seconds) * pairs


def is_deferred(model: str) -> bool:
    """Return whether a model is a deferred one, such as `deferred-general`, whose seconds cost a quarter."""
    return model.startswith("deferred-")


def describe_cost(recordings: Sequence[Recording]) -> str:
    """Return what sending recordings will be billed, in words."""
    known = [one for one in recordings if one.billed_seconds is not None]
    deferred = _billed(one for one in known if is_deferred(one.settings.model))
    text = f"{_billed(known):,} seconds"
    if deferred:
        text += f", {deferred:,} of them at a quarter of the price (deferred model)"
    if len(known) < len(recordings):
        text += f" and {len(recordings) - len(known):,} of unknown length"
    return text


def describe_savings(recordings: Sequence[Recording]) -> str | None:
    """Return what pairs are billed, and how much less than both sides apart, in words; None without any pair.

    The lengths of sides are rounded down, so it is never more than what is saved.
    """
    pairs = [one for one in recordings if one.other is not None and one.billed_seconds is not None and one.side_ms]
    if not pairs:
        return None
    apart = sum(billed_seconds(ms, 1) for one in pairs for ms in one.side_ms)
    together = _billed(pairs)
    are = "pair is" if len(pairs) == 1 else "pairs are"
    return (
        f"2 recordings became 1: {len(pairs):,} {are} billed {together:,} seconds, {apart - together:,} less than apart"
    )


def _billed(recordings: Iterable[Recording]) -> int:
    return sum(one.billed_seconds or 0 for one in recordings)


class CostLimit:
    """The billed seconds that a task may still spend. Safe to share between threads.

    :param max_billed_seconds: for everything that a run of the task sends; None for no limit
    :param billed_seconds: what the run was billed for before
    """

    def __init__(self, max_billed_seconds: int | None, billed_seconds: int = 0) -> None:
        self._limit = max_billed_seconds
        self._left = None if max_billed_seconds is None else max_billed_seconds - billed_seconds
        self._lock = Lock()

    def spend(self, recordings: Sequence[Recording]) -> None:
        """Set aside what sending recordings will be billed.

        :raises CostLimitExceededError: it is more than what is left, or unknown
        """
        if self._left is None:
            return
        total = _billed(recordings)
        unknown = [one for one in recordings if one.billed_seconds is None]
        if unknown:
            raise CostLimitExceededError(
                f"The length of {len(unknown)} of {len(recordings)} recordings is unknown, and so is their cost; "
                f"`max_billed_seconds` is {self._limit}",
                recording=unknown[0].audio_uri,
                hint="Leave them out, or remove the limit; they have not been sent",
            )
        with self._lock:
            left = self._left
            if total <= left:
                self._left -= total
                return
        raise CostLimitExceededError(
            f"Submitting {len(recordings)} recordings would be billed {total} seconds, and `max_billed_seconds` is "
            f"{self._limit}, of which {left} are left",
            hint="Submit fewer, or raise the limit; they have not been sent",
        )
