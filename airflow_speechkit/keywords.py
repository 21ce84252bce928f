"""Keywords that are numbers or switches, given as such or as the text that a template became."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from numbers import Integral
from typing import Any

from airflow_speechkit.errors import SettingsError

#: What makes a keyword's value of what was given for it, and is told the keyword's name for the error.
Check = Callable[[object, str], Any]
#: The check of each keyword.
Checks = Mapping[str, Check]

_MOST_SECONDS = 366 * 86_400
_MOST_SHOWN = 100


def count(given: object, name: str) -> int:
    """Take a keyword's value for a whole number, 1 at least.

    :param given: a number, or a text that is one
    :raises SettingsError: it is none
    """
    number = _number(given)
    if not 1 <= number < math.inf or number != int(number):
        raise _wrong(given, name, "it has to be a whole number, 1 at least")
    return int(number)


def seconds(given: object, name: str) -> float:
    """Take a keyword's value for a time in seconds, of a year at most.

    :param given: a timedelta, a number, or a text that is a number
    :raises SettingsError: it is none, or isn't more than 0
    """
    number = given.total_seconds() if isinstance(given, timedelta) else _number(given)
    if not 0 < number <= _MOST_SECONDS:
        raise _wrong(given, name, "it has to be a timedelta, or a number of seconds, more than 0")
    return float(number)


def switch(given: object, name: str) -> bool:
    """Take a keyword's value for True or False.

    :param given: one of these, or its name as a text
    :raises SettingsError: it is neither
    """
    found = {"true": True, "false": False}.get(given.strip().lower()) if isinstance(given, str) else given
    if not isinstance(found, bool):
        raise _wrong(given, name, "it has to be True or False")
    return found


def optional(check: Check) -> Check:
    """Let None pass a check, but no text: what became of a template that found nothing is an error."""
    return lambda given, name: None if given is None else check(given, name)


def _number(given: object) -> float:
    """Return a number; one that isn't any where there is none."""
    if isinstance(given, (Integral, float)) and not isinstance(given, bool):
        return given if isinstance(given, float) else int(given)
    if isinstance(given, str):
        for kind in (int, float):
            with suppress(ValueError):
                return kind(given)
    return math.nan


def _wrong(given: object, name: str, has_to_be: str) -> SettingsError:
    found_nothing = isinstance(given, str) and given.strip() in ("", "None")
    return SettingsError(
        f"`{name}` is {repr(given)[:_MOST_SHOWN]}; {has_to_be}",
        hint="A template found nothing: look at what it reads" if found_nothing else None,
    )
