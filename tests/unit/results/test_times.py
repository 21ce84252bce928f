from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.results.times import duration_column, duration_ms, whole, whole_column


def column(read, texts, unit=""):
    data = np.frombuffer("|".join(["head"] * 4 + texts + ["tail"] * 4).encode(), np.uint8)
    lengths = np.array([len(text.encode()) for text in texts], np.int64)
    begin = 20 + np.cumsum(lengths + 1) - lengths - 1
    values, readable = read(data, begin, begin + lengths - len(unit))
    return [int(value) if good else None for value, good in zip(values, readable, strict=True)]


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
def test_a_duration_is_rounded_half_to_even_from_the_exact_decimal(time, expected):
    assert duration_ms(time) == expected


SECONDS = st.one_of(
    st.integers(0, 10**8).map(lambda ms: f"{ms // 1000}.{ms % 1000:03d}"),
    st.decimals(0, 10**5, places=9, allow_nan=False).map("{:f}".format),
    st.decimals(0, 10**9, places=4, allow_nan=False).map("{:f}".format),
    st.integers(0, 10**11).map(str),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(SECONDS.map(lambda text: f"{text}s"), st.text("0123456789.s-ю", max_size=14).map("{}s".format)),
        max_size=30,
    )
)
def test_a_column_of_durations_is_what_its_values_are_or_is_left_alone(texts):
    # Few are read one by one, many as a column.
    for several in (texts, texts * 30):
        for text, got in zip(several, column(duration_column, several, "s"), strict=True):
            if got is not None:
                assert got == duration_ms(text)
            elif len(text) <= 12 and text[:1].isdigit():
                with pytest.raises(ValueError, match="duration"):
                    duration_ms(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.integers(0, 10**17).map(str), st.text("0123456789 -ю", max_size=20)), max_size=9))
def test_a_column_of_milliseconds_is_what_its_values_are_or_is_left_alone(texts):
    for text, got in zip(texts, column(whole_column, texts), strict=True):
        assert got == (int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None)


@pytest.mark.parametrize("value", [1.5, True, "x", "", [], str(2**63), 2**63])
def test_a_whole_number_is_nothing_else(value):
    with pytest.raises(ValueError, match=r"whole number|invalid literal"):
        whole(value)


def test_a_whole_number_is_a_string_or_a_number_and_zero_where_it_is_left_out():
    assert (whole("3460"), whole(3460), whole(None), whole("-1")) == (3460, 3460, 0, -1)
