"""Checks of keywords that are numbers or switches, given as such or as the text that a template returned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from numbers import Integral
from typing import Any

from airflow_speechkit.errors import SettingsError

#: Returns a keyword's value; gets what was given and, for the error, the keyword's name.
Check = Callable[[object, str], Any]
#: The check of each keyword.
Checks = Mapping[str, Check]

_MOST_SECONDS = 366 * 86_400
_MOST_SHOWN = 100


def count(given: object, name: str) -> int:
    """Return a keyword's value as a whole number, 1 at least.

    :param given: a number, or a text that is one
    :raises SettingsError: it is none
    """
    number = _number(given)
    if not 1 <= number < math.inf or number != int(number):
        raise _wrong(given, name, "a whole number, 1 at least")
    return int(number)


def seconds(given: object, name: str) -> float:
    """Return a keyword's value as a time in seconds, a year at most.

    :param given: a timedelta, a number, or a text that is a number
    :raises SettingsError: it is none, or isn't more than 0
    """
    number = given.total_seconds() if isinstance(given, timedelta) else _number(given)
    if not 0 < number <= _MOST_SECONDS:
        raise _wrong(given, name, "a timedelta, or a number of seconds above 0")
    return float(number)


def switch(given: object, name: str) -> bool:
    """Return a keyword's value as True or False.

    :param given: one of these, or its name as a text
    :raises SettingsError: it is neither
    """
    found = {"true": True, "false": False}.get(given.strip().lower()) if isinstance(given, str) else given
    if not isinstance(found, bool):
        raise _wrong(given, name, "True or False")
    return found


def optional(check: Check) -> Check:
    """Return a check that allows None too, but not the text 'None' of a template that found nothing."""
    return lambda given, name: None if given is None else check(given, name)


def _number(given: object) -> float:
    """Return a number; NaN for anything else."""
    if isinstance(given, (Integral, float)) and not isinstance(given, bool):
        return given if isinstance(given, float) else int(given)
    if isinstance(given, str):
        for kind in (int, float):
            with suppress(ValueError):
                return kind(given)
    return math.nan


def _wrong(given: object, name: str, must_be: str) -> SettingsError:
    found_nothing = isinstance(given, str) and given.strip() in ("", "None")
    return SettingsError(
        f"`{name}` must be {must_be}, not {repr(given)[:_MOST_SHOWN]}",
        hint="A template found nothing: check what it reads" if found_nothing else None,
    )
