"""Structural mutations: what is mutated stays JSON, but one of its values has another type, depth, number or length."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: More than a parser takes, and less than the reader of columns looks at of a word.
DEEP = 1500


@dataclass(frozen=True)
class Verbatim:
    """A value that is written as it stands here, JSON or not."""

    text: str


#: Numbers, texts and times at and beyond the edges.
NUMBERS = [0, -1, 1, 3, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e300]
TEXTS = [
    "",
    "0",
    "-1",
    "3",
    " 1 ",
    "1e3",
    "x" * 5000,
    "\0",
    "\ud800",
    "\udc00\ud800",
    "٣",
    "é",
    "9" * 20,
    "true",
    "inf",
    "nan",
]
TIMES = [
    *("0s", "1s", "0.0005s", "0.0015s", "1.9995s", "99999999999s", "315576000000s", "315576000001s", "-1.5s"),
    *("1.2345678901234s", "1.s", ".5s", "s", "1S", "1 s", "١s", "1e3s", "NaNs", "0" * 40 + "s", "1,5s"),
    *("2026-11-22T10:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-22T25:00:00Z"),
    *("2026-11-22T10:00:00.123456789Z", "2026-11-22", "10:00"),
]
#: Written as they are: some are no JSON at all.
LITERALS = ["NaN", "Infinity", "-Infinity", "1e999", "-0", "1.0", "9" * 5000, "00", "'x'", '"\\ud83d"', '"\\u0000"', ""]


def odd(chance: random.Random) -> Any:
    """Return a value that few expect."""
    kind = chance.randrange(8)
    if kind == 0:
        return chance.choice(NUMBERS)
    if kind == 1:
        return chance.choice(TEXTS)
    if kind == 2:
        return chance.choice(TIMES)
    if kind == 3:
        return chance.choice([None, True, False, [], {}, [[]], [{}], {"": None}, [None], ["x"], {"a": {}}])
    if kind == 4 and chance.randrange(2) == 0:
        opening, closing = chance.choice([("[", "]"), ('{"a":', "}")])
        depth = chance.choice([5, DEEP, DEEP])
        return Verbatim(opening * depth + "1" + closing * depth)
    if kind == 5 and chance.randrange(2) == 0:
        return Verbatim(chance.choice(LITERALS))
    return chance.choice([*NUMBERS, *TEXTS, *TIMES])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give each place within a value, as its container and its key there."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutate(value: Any, chance: random.Random) -> None:
    """Change one thing in a value: a field's value, its name, whether it is there, or how many there are."""
    container, key = chance.choice(list(places(value)) or [([value], 0)])
    how = chance.randrange(10)
    if how < 6:
        container[key] = odd(chance)
    elif how == 6:
        del container[key]
    elif how == 7 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif how == 7:
        name = chance.choice(["", key.upper(), f"{key} ", "words", "chunks", "error", "text", "\ud800"])
        container[name] = container.pop(key)
    elif isinstance(container[key], str):
        text = container[key]
        container[key] = chance.choice([text * 2, text[1:], text[:-1], f"{text}\0", text.upper(), list(text), [text]])
    elif isinstance(container[key], list):
        container[key] = chance.choice([[], container[key] * 3, {"0": container[key]}, [container[key]]])
    else:
        container[key] = [container[key]]


def written(value: Any, chance: random.Random) -> bytes:
    """Write JSON in one of the ways that it may be written in; now and then the writing itself has a fault."""
    verbatim: list[str] = []

    def stand_in(found: Any) -> str:
        verbatim.append(found.text)
        return f"\x01{len(verbatim) - 1}\x02"

    separators = chance.choice([(",", ":"), (", ", ": ")])
    indent = chance.choice([None, None, None, 1])
    ascii_only = chance.randrange(4) == 0
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators, default=stand_in)
    for number, own in enumerate(verbatim):
        text = text.replace(f'"\\u0001{number}\\u0002"', own)
    raw = text.encode("utf-8", "surrogatepass")
    how = chance.randrange(60)
    if how == 0:
        return b"\xef\xbb\xbf" + raw
    if how == 1:
        return raw[: chance.randrange(len(raw) + 1)]
    if how == 2:
        at = chance.randrange(len(raw) + 1)
        return raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
    if how == 3:
        return raw + chance.choice([b"\n", b"x", b"{}", raw])
    if how == 4:
        return text.encode("utf-16", "surrogatepass")
    return raw
