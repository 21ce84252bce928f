"""What comes from outside, a control request or a transcript or an argument, is taken within bounds or not at all.

Python's JSON has NaN and Infinity, and either, once it is in the clock or an operation's times, would spoil every
answer after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

#: The service's time never passes this (the year 8941): what is still to come then has to have a date too.
LATEST_S = 2.2e11

#: No span of time is longer, some 31 years: at the slowest clock it still ends before the year 9999.
LONGEST_S = 1e9

#: How many times as fast as a wall clock the service's may run.
SPEEDS = (0.01, 100_000.0)

#: As deep as protobuf's own readers follow a message.
_DEPTH = 100

T = TypeVar("T")
Reader = Callable[[Any, str], T]


class BadValueError(ValueError):
    """A value that can't be taken, said in a way that helps whoever gave it."""


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
    """A text that can be sent: half a surrogate pair, which JSON can write, can't.

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
    """A text that can be a header's value.

    :raises BadValueError: if it can't
    """
    if not text(value, name).isprintable():
        raise BadValueError(f"{name} must be one line")
    return str(value)


def or_none(reader: Reader[T]) -> Reader[T | None]:
    """A reader that also takes None."""

    def read(value: Any, name: str) -> T | None:
        return None if value is None else reader(value, name)

    return read


def fields(value: Mapping[str, Any], readers: Mapping[str, Reader[Any]]) -> dict[str, Any]:
    """The fields of an object, each read by its reader.

    :raises BadValueError: for a field that has none, or that its reader does not take
    """
    if unknown := set(value) - set(readers):
        raise BadValueError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(sorted(readers))}")
    return {name: readers[name](given, name) for name, given in value.items()}


def check_sendable(value: Any) -> None:
    """Refuse JSON that nobody could send on: nested without end, or with halves of surrogate pairs.

    :param value: as Python's JSON has read it
    :raises BadValueError: saying which of these
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
