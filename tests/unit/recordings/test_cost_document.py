"""The numbers of the page on costs are those that the package computes."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_speechkit.recordings.cost import billed_seconds

PAGE = (Path(__file__).parents[3] / "docs/cost.md").read_text(encoding="utf-8")
#: The example's calls: how many, and how long.
CALLS = ((700, 200_000), (200, 40_000), (100, 3_000))


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_table_of_lengths() -> None:
    rows = re.findall(r"^\| ([\d.]+) s \| (\d) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for seconds, channels, billed in rows:
        assert billed_seconds(round(float(seconds) * 1000), int(channels)) == int(billed)


def test_the_example() -> None:
    alone, paired, filtered, quarter = re.findall(
        r"^\| (?:each file|with|and) .*?\| ([\d,]+)(?: at a quarter: as much as ([\d,]+))? \|$", PAGE, re.MULTILINE
    )
    assert number(alone[0]) == sum(2 * count * billed_seconds(ms, 1) for count, ms in CALLS)
    assert number(paired[0]) == sum(count * billed_seconds(ms, 2) for count, ms in CALLS)
    assert number(filtered[0]) == sum(count * billed_seconds(ms, 2) for count, ms in CALLS if ms >= 5_000)
    assert quarter[0] == filtered[0]
    assert number(quarter[1]) * 4 == number(quarter[0])
