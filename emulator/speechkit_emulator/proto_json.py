"""proto3's JSON mapping: what the fields of a message may be written as.

A field's name is taken as in the proto or in camelCase, an enum's value by name or by number, an integer as a number or
a string, bytes in either base64 alphabet with or without padding. ``null`` and a type's zero are the same as nothing.
Fields that the message does not have are ignored, as the service does.
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
    """JSON as the service writes it, without blanks. Only what is Unicode: an error may repeat a header that isn't."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


@dataclass
class Reading:
    """How one request is read.

    :param strict: refuse what is only tolerated
    :param tolerated: what was taken although neither the mapping nor the documentation allows it
    """

    strict: bool = False
    tolerated: list[str] = field(default_factory=list)

    def tolerate(self, what: str) -> None:
        """Take something that clients send, and note it.

        :raises RefusedError: if the reading is strict
        """
        if self.strict:
            raise invalid(what)
        self.tolerated.append(what)


#: Reads a value that is not null; given the field's name for errors.
FieldReader = Callable[[Any, str, Reading], Any]

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,9})?")


class Message:
    """A message, by its fields' readers under the names they have in the proto."""

    def __init__(self, **fields: FieldReader) -> None:
        self._fields = fields
        self._names = {name: name for name in fields} | {_camel_case(name): name for name in fields}

    def __call__(self, value: Any, path: str, reading: Reading) -> dict[str, Any]:
        """The fields that are set, under their names in the proto.

        :raises RefusedError: naming the first one that can't be read
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
            # An empty message is one all the same.
            if read or isinstance(read, dict):
                known[name] = read
        return known


def _camel_case(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def repeated(reader: FieldReader) -> FieldReader:
    """An array."""

    def read(value: Any, path: str, reading: Reading) -> list[Any]:
        if not isinstance(value, list) or None in value:
            raise invalid(f"{path}: must be an array without null")
        return [reader(item, f"{path}[{place}]", reading) for place, item in enumerate(value)]

    return read


def enum(*names: str) -> FieldReader:
    """An enum, its names in the order of their numbers from 0. The first one is the same as nothing."""

    def read(value: Any, path: str, reading: Reading) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            value = names[value]
        if not isinstance(value, str) or value not in names:
            raise invalid(f"{path}: unknown value {value!r:.60}, must be one of {', '.join(names)}")
        return None if value == names[0] else value

    return read


def text(value: Any, path: str, reading: Reading) -> str:
    """A string."""
    if not isinstance(value, str):
        raise invalid(f"{path}: must be a string")
    return value


def boolean(value: Any, path: str, reading: Reading) -> bool:
    """A boolean. Many clients write it as a string; the mapping has none, and what the service does is not known."""
    if value in ("true", "false"):
        reading.tolerate(f"{path}: must be a boolean, not a string")
        return bool(value == "true")
    if not isinstance(value, bool):
        raise invalid(f"{path}: must be a boolean")
    return value


def integer(value: Any, path: str, reading: Reading) -> int:
    """An int64: any number that is whole, or a string of one."""
    number = _decimal(value)
    # Compared before it is written out: 1e999999999 is a short text.
    if number is None or not -(2**63) <= number < 2**63 or number != number.to_integral_value():
        raise invalid(f"{path}: must be an integer of 64 bits")
    return int(number)


def double(value: Any, path: str, reading: Reading) -> float:
    """A double, as a number or a string of one. Not NaN and the infinities: no field of the service's can be one."""
    number = _decimal(value)
    if number is None:
        raise invalid(f"{path}: must be a number")
    return float(number)


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not _NUMBER.fullmatch(str(value)):
        return None
    return Decimal(str(value))


def content(value: Any, path: str, reading: Reading) -> bytes:
    """Bytes, in base64."""
    standard = text(value, path, reading).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError as error:
        raise invalid(f"{path}: not base64") from error


def struct(value: Any, path: str, reading: Reading) -> dict[str, Any]:
    """Any object."""
    if not isinstance(value, dict):
        raise invalid(f"{path}: must be an object")
    return value
