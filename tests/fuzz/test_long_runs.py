"""Damaged answers of megabytes, in which something repeats itself: reading them takes no more than linear time.

Each once took seconds a megabyte, or the square of its length: at these lengths that is a hang.
"""

from __future__ import annotations

import contextlib

import pytest

from airflow_speechkit.api.exchange import read_refusal
from airflow_speechkit.api.operation import id_within, read_operation
from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.results.saved import read_saved
from airflow_speechkit.settings import ApiVersion
from tests.fuzz.cases import Case

MB = 1_000_000
WORD = '{"startTime":"0s","endTime":"1s","word":"да","confidence":1}'
WORDS = f'{{"alternatives":[{{"words":[{WORD},{WORD}'
CHUNK = f'{WORDS}],"text":"Да","confidence":1}}],"channelTag":"1"}}'
HEAD = '{"done":true,"id":"e03x","response":{"chunks":['
V3_WORD = '{"text":"да","startTimeMs":"0","endTimeMs":"1"}'
V3_HEAD = f'{{"result":{{"final":{{"alternatives":[{{"words":[{V3_WORD},{V3_WORD}'


def filled(text: str, megabytes: int) -> str:
    return text * (megabytes * MB // len(text))


V2 = {
    "zeros": lambda: f'{HEAD}{WORDS},{{"startTime":"{"0" * 16 * MB}',
    "zeros in a whole answer": lambda: f'{HEAD}{WORDS},{{"startTime":"{"0" * 16 * MB}"}}]}}]}}]}}}}',
    "an endless end": lambda: f'{HEAD}{WORDS},{{"startTime":"1s","endTime":"{"0" * 16 * MB}s"}}',
    "an endless word": lambda: f'{HEAD}{WORDS},{{"startTime":"1s","endTime":"1s","word":"{"a" * 16 * MB}"}}]}}]}}]}}}}',
    "an endless text": lambda: f'{HEAD}{CHUNK},{WORDS}],"text":"{"a" * 16 * MB}',
    "arrays that begin": lambda: HEAD + filled('"words":[{', 12),
    "arrays that begin, and one end": lambda: HEAD + filled('"words":[{', 12) + "}",
    "arrays of something else": lambda: HEAD + filled('"words":[{"a":"b"},{"a":"b"}]', 4),
    "words that begin": lambda: f"{HEAD}{WORDS}," + filled('{"startTime":"', 4),
    "braces": lambda: f"{HEAD}{WORDS}," + "{" * 2 * MB,
    "spaces": lambda: f"{HEAD}{WORDS}" + " " * 4 * MB + "]",
    "backslashes": lambda: f'{HEAD}{WORDS},{{"startTime":"' + "\\" * 4 * MB,
    "quotes": lambda: f'{HEAD}{WORDS},{{"startTime":"' + '"' * 4 * MB,
    "digits": lambda: f'{HEAD}{WORDS}],"text":"a","confidence":' + "1" * 4 * MB,
    "channels": lambda: (
        HEAD
        + ",".join(f'{{"alternatives":[{{"text":""}}],"channelTag":"c{number}"}}' for number in range(80_000))
        + "]}}"
    ),
    "an error full of links": lambda: (
        f'{{"done":true,"id":"e03x","error":{{"code":3,"message":"{filled("http://", 2)}"}}}}'
    ),
}
V3 = {
    "zeros": lambda: f'{V3_HEAD},{{"text":"a","startTimeMs":"{"0" * 16 * MB}',
    "arrays that begin": lambda: filled('{"words":[{', 4),
    "messages": lambda: filled("{}\n", 1),
    "spaces": lambda: " " * 4 * MB,
}


def read_by_all(raw: bytes, version: ApiVersion) -> None:
    operation, recognition = (raw, None) if version is ApiVersion.V2 else (b'{"id":"f8dx","done":true}', raw)
    id_within(raw)
    read_refusal(raw)
    for read in (
        lambda: read_operation(raw),
        lambda: flatten(Answer("e03x", version, operation, recognition)),
        lambda: flatten(Answer("e03x", version, operation, recognition), exact=True),
        lambda: read_saved(raw, "e03x"),
    ):
        with contextlib.suppress(AnswerUnreadableError):
            read()


@pytest.mark.parametrize("name", V2)
def test_a_damaged_answer_of_v2_does_not_hang(name: str) -> None:
    with Case(f"long runs/v2/{name}"):
        read_by_all(V2[name]().encode(), ApiVersion.V2)


@pytest.mark.parametrize("name", V3)
def test_a_damaged_answer_of_v3_does_not_hang(name: str) -> None:
    with Case(f"long runs/v3/{name}"):
        read_by_all(V3[name]().encode(), ApiVersion.V3)
