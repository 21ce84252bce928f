"""Requirements on what a recording will be billed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.recordings.cost import billed_seconds, price_factor, price_note


@pytest.mark.parametrize(
    ("duration_ms", "channels", "billed"),
    [
        (1_000, 1, 15),
        (1_000, 2, 15),
        (1_000, 3, 30),
        (15_500, 2, 16),
        (15_500, 4, 32),
        (15_000, 1, 15),
        (15_001, 1, 16),
        (60_000, 1, 60),
        (3_600_000, 8, 14_400),
    ],
)
def test_the_documentation_s_own_table_is_what_is_worked_out(duration_ms: int, channels: int, billed: int) -> None:
    assert billed_seconds(duration_ms, channels) == billed


@settings(derandomize=True, deadline=None)
@given(duration_ms=st.integers(1, 14_400_000), channels=st.integers(1, 8))
def test_no_recording_costs_less_when_it_is_longer_or_has_more_channels(duration_ms: int, channels: int) -> None:
    billed = billed_seconds(duration_ms, channels)

    assert billed * 1000 >= duration_ms
    assert billed_seconds(duration_ms + 1, channels) >= billed
    assert billed_seconds(duration_ms, channels + 1) >= billed


def test_a_deferred_model_costs_a_quarter() -> None:
    assert price_factor("general") == price_factor("general:rc") == 1
    assert price_factor("deferred-general") == price_factor("deferred-general:rc") == 0.25
    assert price_note("general") == ""
    assert price_note("deferred-general") == " at a quarter of the price (deferred model)"
