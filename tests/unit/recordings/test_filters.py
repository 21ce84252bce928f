"""Which recordings are left out, by their length."""

from __future__ import annotations

import pytest

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import FilterReason
from airflow_speechkit.recordings.filters import NO_FILTERS, FilteredError, Filters

BETWEEN = Filters(min_duration_s=2.5, max_duration_s=60)


@pytest.mark.parametrize(
    ("duration_ms", "reason"),
    [
        (0, FilterReason.TOO_SHORT),
        (2_499, FilterReason.TOO_SHORT),
        (2_500, None),
        (60_000, None),
        (60_001, FilterReason.TOO_LONG),
        (None, None),
    ],
)
def test_a_length_is_compared_with_both_limits(duration_ms: int | None, reason: FilterReason | None) -> None:
    assert BETWEEN.reason(duration_ms) is reason
    assert NO_FILTERS.reason(duration_ms) is None
    assert Filters(skip_silent=True).reason(duration_ms) is None


def test_only_a_length_that_would_leave_a_recording_out_needs_proof() -> None:
    assert [BETWEEN.needs_proof(ms) for ms in (1_000, 30_000, 90_000, None)] == [True, False, True, True]
    assert not any(NO_FILTERS.needs_proof(ms) for ms in (0, 1_000, None))
    assert not Filters(skip_silent=True).needs_proof(None)


def test_the_error_has_what_is_known() -> None:
    with pytest.raises(FilteredError) as left_out:
        BETWEEN.check(1_000, 2)
    found = left_out.value
    assert (found.reason, found.duration_ms, found.channels) == (FilterReason.TOO_SHORT, 1_000, 2)


def test_limits_that_leave_everything_out_are_invalid() -> None:
    with pytest.raises(SettingsError, match="`min_duration_s` is 60, and `max_duration_s` is 5: no recording"):
        Filters(min_duration_s=60, max_duration_s=5)
    assert Filters(min_duration_s=5, max_duration_s=5).reason(5_000) is None


def test_the_reasons_are_counted_in_words() -> None:
    filters = Filters(min_duration_s=2.5, max_duration_s=3_600, skip_silent=True)
    counts = {FilterReason.SILENT: 3, FilterReason.TOO_SHORT: 1_009}
    assert filters.describe(counts) == "1,012 recordings are left out: 1,009 shorter than 2.5 s, 3 silent"
    assert filters.describe({FilterReason.TOO_LONG: 1}) == "1 recording is left out: 1 longer than 3600 s"
