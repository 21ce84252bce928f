"""proto3's JSON mapping of messages.

Field names are as in the proto or in camelCase, enums are names or numbers, integers are numbers or strings, and bytes
are in either base64 alphabet, with or without padding. ``null`` and a type's zero mean that the field is not set.
Unknown fields are ignored, as by the service.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from speechkit_emulator.request import invalid


def written(value: Any) -> bytes:
    """JSON as the service writes it, without blanks. Invalid Unicode, as from a header in an error, is replaced."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


@dataclass
class Reading:
    """The reading of one request.

    :param strict: refuse what is otherwise tolerated
    :param tolerated: what was accepted although neither the mapping nor the documentation allows it
    """

    strict: bool = False
    tolerated: list[str] = field(default_factory=list)

    def tolerate(self, what: str) -> None:
        """Accept something that is not allowed, and record it.

        :raises RefusedError: if the reading is strict
        """
        if self.strict:
            raise invalid(what)
        self.tolerated.append(what)


#: Reads a value that is not null. The second argument is the field's path, for errors.
FieldReader = Callable[[Any, str, Reading], Any]

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,9})?")


class Message:
    """A message, defined by the readers of its fields, under their names in the proto."""

    def __init__(self, **fields: FieldReader) -> None:
        self._fields = fields
        self._names = {name: name for name in fields} | {_camel_case(name): name for name in fields}

    def __call__(self, value: Any, path: str, reading: Reading) -> dict[str, Any]:
        """The fields that are set, under their names in the proto.

        :raises RefusedError: if a field is invalid; the error names it
        """
        if not isinstance(value, Mapping):
            raise invalid(f"{path or 'the body'}: must be an object")
        known: dict[str, Any] = {}
        given: set[str] = set()
        for key, item in value.items():
            name = self._names.get(key)
            if name is None:
                continue
            place = f"{path}.{key}" if path else key
            if name in given:
                raise invalid(f"{place}: the field is given twice")
            given.add(name)
            read = None if item is None else self._fields[name](item, place, reading)
            # An empty message counts as set.
            if read or isinstance(read, dict):
                known[name] = read
        return known


def _camel_case(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def repeated(reader: FieldReader) -> FieldReader:
    """A reader of arrays."""

    def read(value: Any, path: str, reading: Reading) -> list[Any]:
        if not isinstance(value, list) or None in value:
            raise invalid(f"{path}: must be an array without null")
        return [reader(item, f"{path}[{place}]", reading) for place, item in enumerate(value)]

    return read


def enum(*names: str) -> FieldReader:
    """A reader of enums. Names are in the order of their numbers, from 0; the first one means that it is not set."""

    def read(value: Any, path: str, reading: Reading) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            value = names[value]
        if not isinstance(value, str) or value not in names:
            raise invalid(f"{path}: unknown value {value!r:.60}, must be one of {', '.join(names)}")
        return None if value == names[0] else value

    return read


def text(value: Any, path: str, reading: Reading) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise invalid(f"{path}: must be a string")
    return value


def boolean(value: Any, path: str, reading: Reading) -> bool:
    """Read a boolean. A string, which many clients send, is tolerated: the service's behaviour is not known."""
    if value in ("true", "false"):
        reading.tolerate(f"{path}: must be a boolean, not a string")
        return bool(value == "true")
    if not isinstance(value, bool):
        raise invalid(f"{path}: must be a boolean")
    return value


def integer(value: Any, path: str, reading: Reading) -> int:
    """Read an int64: a whole number, or a string of one."""
    number = _decimal(value)
    # Compared before the conversion to int: 1e999999999 would take gigabytes.
    if number is None or not -(2**63) <= number < 2**63 or number != number.to_integral_value():
        raise invalid(f"{path}: must be an integer of 64 bits")
    return int(number)


def double(value: Any, path: str, reading: Reading) -> float:
    """Read a double: a number or a string of one. No field of the service can be NaN or infinite."""
    number = _decimal(value)
    if number is None:
        raise invalid(f"{path}: must be a number")
    return float(number)


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not _NUMBER.fullmatch(str(value)):
        return None
    return Decimal(str(value))


def content(value: Any, path: str, reading: Reading) -> bytes:
    """Read bytes, in base64."""
    standard = text(value, path, reading).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError as error:
        raise invalid(f"{path}: not base64") from error


def struct(value: Any, path: str, reading: Reading) -> dict[str, Any]:
    """Read any object."""
    if not isinstance(value, dict):
        raise invalid(f"{path}: must be an object")
    return value
