from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.parsing import MalformedError
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.results.values import NO_TIME, duration_ms, durations_ms, whole, wholes
from tests.unit.results.answers import chunk, v2, word


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("0s", 0),
        ("3s", 3000),
        ("0.020s", 20),
        ("10.179s", 10_179),
        ("14399.999s", 14_399_999),
        ("0.879999999s", 880),
        ("0.0005s", 0),
        ("0.0015s", 2),
        ("0.001500000000s", 2),
        ("0.001500000001s", 2),
        ("0.002500000s", 2),
        ("0.002500001s", 3),
        ("-0.0015s", -2),
        ({"seconds": "1", "nanos": 1_500_000}, 1002),
        ({"nanos": 500_000}, 0),
        ({}, 0),
        (None, None),
    ],
)
def test_a_time_is_rounded_half_to_even_from_the_exact_decimal(time: Any, expected: int | None) -> None:
    assert flatten(v2(chunk("1", word("да", time, "1s")))).words["start_ms"].to_pylist() == [expected]


SECONDS = st.one_of(
    st.integers(0, 10**8).map(lambda ms: f"{ms // 1000}.{ms % 1000:03d}"),
    st.decimals(0, 10**5, places=9, allow_nan=False).map("{:f}".format),
    st.decimals(0, 10**9, places=4, allow_nan=False).map("{:f}".format),
    st.integers(0, 10**11).map(str),
)
ODD = st.one_of(
    st.text("0123456789.s-ю", max_size=14).map("{}s".format), st.sampled_from([".5s", "1.s", "s", "", "1..2s"])
)


def each(read: Any, texts: list[str | None], missing: int) -> list[int] | None:
    try:
        return [missing if text is None else read(text) for text in texts]
    except MalformedError:
        return None


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.lists(SECONDS.map("{}s".format), max_size=9),
        st.lists(st.one_of(SECONDS.map("{}s".format), ODD, st.none()), max_size=3),
    )
)
def test_a_column_of_durations_is_what_its_values_are(texts: list[str | None]) -> None:
    expected = each(duration_ms, texts, NO_TIME)
    if expected is None:
        with pytest.raises(MalformedError):
            durations_ms(pa.array(texts, pa.string()))
    else:
        assert durations_ms(pa.array(["9s", *texts], pa.string())[1:]).tolist() == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.one_of(st.integers(0, 10**17).map(str), st.text("0123456789 -ю", max_size=20), st.none()), max_size=4)
)
def test_a_column_of_milliseconds_is_what_its_values_are(texts: list[str | None]) -> None:
    expected = each(whole, texts, 0)
    if expected is None:
        with pytest.raises(MalformedError):
            wholes(pa.array(texts, pa.string()))
    else:
        assert wholes(pa.array(["9", *texts], pa.string())[1:]).tolist() == expected


@pytest.mark.parametrize("value", [1.5, True, "x", "", [], str(2**63), 2**63])
def test_a_whole_number_is_nothing_else(value: Any) -> None:
    with pytest.raises(MalformedError, match="whole number"):
        whole(value)


def test_a_whole_number_is_a_string_or_a_number_and_zero_where_it_is_left_out() -> None:
    assert (whole("3460"), whole(3460), whole(None), whole("-1")) == (3460, 3460, 0, -1)


@pytest.mark.parametrize("time", ["315576000001s", "9" * 40 + "s", {"seconds": "9" * 30}])
def test_a_time_out_of_range_is_refused(time: Any) -> None:
    with pytest.raises(AnswerUnreadableError, match=r"out of range|not a duration"):
        flatten(v2(chunk("1", word("да", time, "1s"))))
