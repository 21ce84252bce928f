from __future__ import annotations

import pytest

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.results.saved import read_saved
from tests.unit.results.saying import chunk, v2, word

SAID = v2(chunk("1", word("да", "1s", "1.500s"))).operation


@pytest.mark.parametrize("more", [SAID, b"{}", b'{"error":{"code":13}}'])
def test_an_answer_with_something_behind_it_is_not_taken_for_one_of_v3(more: bytes) -> None:
    with pytest.raises(AnswerUnreadableError, match="a file of its own"):
        read_saved(SAID + b"\n" + more, "calls")
