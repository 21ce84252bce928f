"""Which recordings are not worth recognising. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import FilterReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_speechkit.models import Recording


class FilteredError(Exception):
    """A recording is left out: nothing more of it has to be read, converted or uploaded.

    :param reason: why
    :param duration_ms: its length, in milliseconds
    :param channels: its channels
    """

    def __init__(self, reason: FilterReason, duration_ms: int | None, channels: int) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.duration_ms = duration_ms
        self.channels = channels


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which recordings to leave out.

    :param min_duration_s: those that are shorter, in seconds
    :param max_duration_s: those that are longer, in seconds
    :param skip_silent: those that are silent
    :raises SettingsError: all would be left out
    """

    min_duration_s: float | None = None
    max_duration_s: float | None = None
    skip_silent: bool = False

    def __post_init__(self) -> None:
        least_s, most_s = self.min_duration_s, self.max_duration_s
        if least_s is not None and most_s is not None and least_s > most_s:
            raise SettingsError(
                f"`min_duration_s` is {least_s:g}, and `max_duration_s` is {most_s:g}: no recording is between them",
                hint="Swap them, or remove one",
            )

    def reason(self, duration_ms: int | None) -> FilterReason | None:
        """Return why a recording of this length is left out; None if it isn't, or if its length is unknown.

        :param duration_ms: in milliseconds
        """
        if duration_ms is None:
            return None
        if self.min_duration_s is not None and duration_ms < self.min_duration_s * 1000:
            return FilterReason.TOO_SHORT
        if self.max_duration_s is not None and duration_ms > self.max_duration_s * 1000:
            return FilterReason.TOO_LONG
        return None

    def needs_proof(self, duration_ms: int | None) -> bool:
        """Return whether a length has to be proven before it decides: none is left out by a mistaken header.

        :param duration_ms: as the recording's head and tail have it, in milliseconds
        """
        has_limit = self.min_duration_s is not None or self.max_duration_s is not None
        return has_limit and (duration_ms is None or self.reason(duration_ms) is not None)

    def check(self, duration_ms: int | None, channels: int) -> None:
        """Check a recording's length.

        :param duration_ms: in milliseconds; None if it is unknown
        :param channels: its channels
        :raises FilteredError: the recording is left out
        """
        reason = self.reason(duration_ms)
        if reason is not None:
            raise FilteredError(reason, duration_ms, channels)

    def describe(self, counts: Mapping[FilterReason, int]) -> str:
        """Return how many recordings are left out for which reason, in words.

        :param counts: by reason
        """
        words = {
            FilterReason.TOO_SHORT: f"shorter than {self.min_duration_s:g} s" if self.min_duration_s else "",
            FilterReason.TOO_LONG: f"longer than {self.max_duration_s:g} s" if self.max_duration_s else "",
            FilterReason.SILENT: "silent",
        }
        each = ", ".join(f"{counts[one]:,} {words[one]}" for one in FilterReason if counts.get(one))
        number = sum(counts.values())
        return f"{number:,} {'recording is' if number == 1 else 'recordings are'} left out: {each}"


#: Leaves nothing out.
NO_FILTERS = Filters()


def left_out(recording: Recording, error: FilteredError) -> Recording:
    """Return a recording that is left out, with what is known of it."""
    return replace(
        recording, filter_reason=error.reason, duration_ms=error.duration_ms, channels=error.channels, billed_seconds=0
    )
