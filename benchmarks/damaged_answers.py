"""CPU time of the columnar reader and of the plain reader for a megabyte of damaged answers, and the ratio.

    python benchmarks/damaged_answers.py

The columnar reader tries a damaged answer before it passes it to the plain reader, which stops at the first
invalid byte. The ratio is large if the plain reader has nothing to do; compare the first column then.
"""

from __future__ import annotations

import time
from contextlib import suppress

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.settings import ApiVersion

MB = 1_000_000
ROUNDS = 3
WORD = '{"startTime":"0s","endTime":"1s","word":"да","confidence":1}'
WORDS = f'{{"alternatives":[{{"words":[{WORD},{WORD}'
CHUNK = f'{WORDS}],"text":"Да","confidence":1}}],"channelTag":"1"}}'
ODD = '{"alternatives":[{"words":[],"text":"\\"a"}],"channelTag":"1"}'
HEAD = '{"done":true,"id":"e03x","response":{"chunks":['

ANSWERS = {
    "whole": HEAD + ",".join([CHUNK] * (MB // len(CHUNK.encode()))) + "]}}",
    "whole, every second chunk odd": HEAD + ",".join([CHUNK, ODD] * (MB // len((CHUNK + ODD).encode()))) + "]}}",
    "cut off": HEAD + ",".join([CHUNK] * (MB // len(CHUNK.encode())))[:-100],
    "two words, then zeros": f'{HEAD}{WORDS},{{"startTime":"{"0" * MB}',
    "a word of a megabyte": f'{HEAD}{WORDS},{{"startTime":"1s","endTime":"1s","word":"{"a" * MB}"}}]}}]}}]}}}}',
    "arrays that begin": HEAD + '"words":[{' * (MB // 10),
    "words that begin": f"{HEAD}{WORDS}," + '{"startTime":"' * (MB // 14),
    "braces": f"{HEAD}{WORDS}," + "{" * MB,
    "digits": f'{HEAD}{WORDS}],"text":"a","confidence":{"1" * MB}',
}


def cpu_s(raw: bytes, *, exact: bool) -> float:
    """The best time of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        with suppress(AnswerUnreadableError):
            flatten(Answer("e03x", ApiVersion.V2, raw), exact=exact)
        best = min(best, time.process_time() - begin)
    return best


def main() -> None:
    """Print the table."""
    print(f"{'1 MB of':<32}{'columns, ms':>12}{'plain, ms':>12}{'ratio':>8}")
    for name, text in ANSWERS.items():
        raw = text.encode()
        columns, plain = (cpu_s(raw, exact=exact) * 1000.0 * MB / len(raw) for exact in (False, True))
        print(f"{name:<32}{columns:>12.1f}{plain:>12.1f}{columns / plain:>8.1f}")


if __name__ == "__main__":
    main()
