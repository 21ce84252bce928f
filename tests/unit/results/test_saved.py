from __future__ import annotations

import gzip

import pytest

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.results.saved import read_saved
from tests.unit.results.answers import chunk, v2, word

SAID = v2(chunk("1", word("да", "1s", "1.500s"))).operation


@pytest.mark.parametrize("more", [SAID, b"{}", b'{"error":{"code":13}}'])
def test_an_answer_of_v2_that_more_text_follows_is_not_read_as_one_of_v3(more: bytes) -> None:
    with pytest.raises(AnswerUnreadableError, match="a file of its own"):
        read_saved(SAID + b"\n" + more, "calls")


MESSAGE = (
    b'{"result":{"sessionUuid":{"userRequestId":"f8d1"},"channelTag":"0",'
    b'"final":{"alternatives":[{"text":"\xd0\xb4\xd0\xb0"}]}}}'
)
OPERATION = b'{"done":true,"id":"f8d1","description":"STT v3"}'


@pytest.mark.parametrize(
    ("plain", "array"),
    [
        (SAID, b"[" + SAID + b"]"),
        (SAID, b"\xef\xbb\xbf [\n  " + SAID + b"\n]\n"),
        (MESSAGE + b"\n" + MESSAGE, b"[" + MESSAGE + b"," + MESSAGE + b"]"),
        (OPERATION + b"\n" + MESSAGE, b"[" + OPERATION + b" ,\n" + MESSAGE + b" ]"),
    ],
)
def test_answers_in_an_array_are_read_as_those_without_are(plain: bytes, array: bytes) -> None:
    expected = dict(flatten(read_saved(plain, "calls")).items())
    assert dict(flatten(read_saved(array, "calls")).items()) == expected
    assert dict(flatten(read_saved(gzip.compress(array), "calls")).items()) == expected


@pytest.mark.parametrize(
    "array", [b"[]", b"[", b"[" + MESSAGE, b"[" + MESSAGE + b",]", b"[[" + MESSAGE + b"]]", b"[" + SAID + b"] {}"]
)
def test_an_array_that_is_cut_off_or_holds_something_else_is_a_typed_error(array: bytes) -> None:
    with pytest.raises(AnswerUnreadableError):
        read_saved(array, "calls")
