"""Checks of values from outside: control requests, transcripts and arguments.

Python's JSON accepts NaN and Infinity; in the clock or in an operation's times, they would break all later answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

#: The last service time (in the year 8941). Times after it, like the end of an operation, need a date too.
LATEST_S = 2.2e11

#: The longest duration, some 31 years: with the slowest clock it still ends before the year 9999.
LONGEST_S = 1e9

#: Lowest and highest speed of the service's clock.
SPEEDS = (0.01, 100_000.0)

#: The depth to which protobuf's readers follow a message.
_DEPTH = 100

T = TypeVar("T")
Reader = Callable[[Any, str], T]


class BadValueError(ValueError):
    """A value is invalid; the message names it and the values that are allowed."""


def number(low: float, high: float) -> Reader[float]:
    """A reader of finite numbers from `low` to `high`."""

    def read(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadValueError(f"{name} must be a number from {low:.15g} to {high:.15g}, not {value!r:.60}")
        return float(value)

    return read


def whole(low: int, high: int) -> Reader[int]:
    """A reader of whole numbers from `low` to `high`."""

    def read(value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadValueError(f"{name} must be a whole number from {low} to {high}, not {value!r:.60}")
        return value

    return read


def text(value: Any, name: str) -> str:
    """A text without lone surrogates, which JSON can contain and UTF-8 can't.

    :raises BadValueError: if it is something else
    """
    if not isinstance(value, str):
        raise BadValueError(f"{name} must be a text, not {value!r:.60}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadValueError(f"{name} is not Unicode") from error
    return value


def line(value: Any, name: str) -> str:
    """A text that can be the value of a header.

    :raises BadValueError: if it can't be
    """
    if not text(value, name).isprintable():
        raise BadValueError(f"{name} must be one line")
    return str(value)


def or_none(reader: Reader[T]) -> Reader[T | None]:
    """A reader that also accepts None."""

    def read(value: Any, name: str) -> T | None:
        return None if value is None else reader(value, name)

    return read


def fields(value: Mapping[str, Any], readers: Mapping[str, Reader[Any]]) -> dict[str, Any]:
    """The fields of an object, each read by its reader.

    :raises BadValueError: for a field without a reader, or that its reader refuses
    """
    if unknown := set(value) - set(readers):
        raise BadValueError(f"unknown field {', '.join(sorted(unknown))}; known fields: {', '.join(sorted(readers))}")
    return {name: readers[name](given, name) for name, given in value.items()}


def check_sendable(value: Any) -> None:
    """Refuse JSON that is nested too deep, or that has lone surrogates in a text.

    :param value: the parsed JSON
    :raises BadValueError: if the value is one of these
    """
    level = [value]
    for _ in range(_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                text(item, "the text")
        if not below:
            return
        level = below
    raise BadValueError(f"it is nested deeper than {_DEPTH} levels")
