from __future__ import annotations

import pytest

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import operation_ids


class LazySequence:
    """What a mapped upstream hands on: iterable, neither list nor tuple."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __iter__(self):
        return iter(self.items)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("e03a", ["e03a"]),
        (["e03a", "e03b"], ["e03a", "e03b"]),
        (("e03b", "e03a", "e03b"), ["e03b", "e03a"]),
        (LazySequence("e03a", "e03b"), ["e03a", "e03b"]),
        (LazySequence(["e03a"], ["e03b", "e03c"]), ["e03a", "e03b", "e03c"]),
    ],
)
def test_every_shape_of_an_upstreams_output_is_a_list_of_ids(given, expected):
    assert operation_ids(given) == expected


@pytest.mark.parametrize("given", [[], LazySequence(), None, "", "None", [None], [""], {"a": 1}.values(), 17])
def test_anything_else_is_refused_by_name(given):
    with pytest.raises(SettingsError, match="operation_id"):
        operation_ids(given)
