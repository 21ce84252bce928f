"""Requirements on what a recording will be billed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.errors import CostLimitExceededError
from airflow_speechkit.models import ObjectVersion, Recording, RecordingAddress
from airflow_speechkit.recordings.cost import (
    CostLimit,
    billed_seconds,
    describe_cost,
    describe_savings,
    is_deferred,
)
from airflow_speechkit.settings import RecognitionSettings


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
def test_billed_seconds_match_the_service_s_documentation(duration_ms: int, channels: int, billed: int) -> None:
    assert billed_seconds(duration_ms, channels) == billed


@settings(derandomize=True, deadline=None)
@given(duration_ms=st.integers(1, 14_400_000), channels=st.integers(1, 8))
def test_longer_recordings_and_more_channels_never_cost_less(duration_ms: int, channels: int) -> None:
    billed = billed_seconds(duration_ms, channels)

    assert billed * 1000 >= duration_ms
    assert billed_seconds(duration_ms + 1, channels) >= billed
    assert billed_seconds(duration_ms, channels + 1) >= billed


def recording(model: str, billed: int | None) -> Recording:
    return Recording(
        audio_uri="s3://calls/1.ogg", version="1", settings=RecognitionSettings(model=model), billed_seconds=billed
    )


def test_a_deferred_model_costs_a_quarter() -> None:
    assert not is_deferred("general:rc")
    assert is_deferred("deferred-general:rc")
    assert describe_cost([]) == "0 seconds"
    assert describe_cost([recording("general", 3600), recording("general", None)]) == (
        "3,600 seconds and 1 of unknown length"
    )
    assert describe_cost([recording("deferred-general", 3600), recording("general", 60)]) == (
        "3,660 seconds, 3,600 of them at a quarter of the price (deferred model)"
    )


def test_the_cost_limit_covers_all_recordings_of_a_run() -> None:
    limit = CostLimit(100, billed_seconds=30)
    with pytest.raises(CostLimitExceededError, match="billed 71 seconds"):
        limit.spend([recording("general", 60), recording("general", 11)])
    limit.spend([recording("general", 60)])
    limit.spend([recording("general", 10)])
    with pytest.raises(CostLimitExceededError, match="`max_billed_seconds` is 100, of which 0 are left"):
        limit.spend([recording("general", 1)])
    with pytest.raises(CostLimitExceededError, match="unknown"):
        limit.spend([recording("general", None)])
    CostLimit(None).spend([recording("general", None)])


def pair(first_ms: int, second_ms: int) -> Recording:
    longer_ms = max(first_ms, second_ms)
    return Recording(
        audio_uri="s3://calls/1-in.wav",
        version="1",
        settings=RecognitionSettings(),
        other=ObjectVersion(RecordingAddress("calls", "1-out.wav"), "1"),
        duration_ms=longer_ms,
        channels=2,
        billed_seconds=billed_seconds(longer_ms, 2),
        side_ms=(first_ms, second_ms),
    )


def test_savings_are_what_both_sides_would_cost_apart() -> None:
    alone = Recording(audio_uri="s3://calls/2.wav", version="1", settings=RecognitionSettings(), billed_seconds=100)
    assert describe_savings([alone]) is None
    assert describe_savings([pair(60_500, 1_000), pair(15_000, 15_000), alone]) == (
        "2 recordings became 1: 2 pairs are billed 76 seconds, 30 less than apart"
    )
    assert describe_savings([pair(60_000, 60_000)]) == (
        "2 recordings became 1: 1 pair is billed 60 seconds, 60 less than apart"
    )
