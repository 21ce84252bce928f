"""JSON, times and texts from outside: whatever they hold, only `MalformedError` is raised.

All code that reads bytes of the service, an archive, a saved file or a connection reads them through this module, and
turns the error into a typed one that names what was read.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

#: The errors of code that reads undocumented data. `LookupError`: a missing key. `ArithmeticError`: a number or a date
#: that is too large. `RecursionError`: too deep nesting.
SURPRISES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)

#: A null where an object should be crashes Arrow's parser, and the process with it (apache/arrow#47409).
_BARE_NULL = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|\})\s*null")

#: msgspec collects what is in a type when it first converts to it. Threads that do that at once crash or hang it.
_ONE_AT_A_TIME = Lock()

_NO_SPACE = re.compile(r"[^ \t\r\n]")


class MalformedError(ValueError):
    """Data from outside is malformed. The message never quotes it, and the error is not chained to one that does."""


def convert(value: object, kind: Any, *, strict: bool = True) -> Any:
    """Convert a plain value to a type. The one way to `msgspec.convert`: see `_ONE_AT_A_TIME`.

    :param kind: the type, with its rules
    :param strict: whether a text is no number and no flag
    :raises msgspec.ValidationError: the value doesn't fit
    """
    with _ONE_AT_A_TIME:
        return msgspec.convert(value, kind, strict=strict)


def parse_json(raw: bytes | str, *, lenient: bool = False, int64: bool = False, verbatim: bool = False) -> Any:
    """Parse JSON: UTF-8, with or without a byte order mark.

    :param lenient: replace bytes that aren't UTF-8 by U+FFFD, and accept control characters in strings, ``NaN``,
        ``Infinity`` and whole numbers beyond 64 bits
    :param int64: refuse whole numbers beyond 64 bits
    :param verbatim: return each number as the text that it is written as
    :raises MalformedError: it isn't JSON, or is nested too deeply
    """
    try:
        if lenient:
            return json.loads(raw if isinstance(raw, str) else raw.decode("utf-8-sig", "replace"), strict=False)
        text = raw if isinstance(raw, str) else raw.decode("utf-8-sig")
        if verbatim:
            return json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
        return json.loads(text, parse_int=_int64 if int64 else None, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        why = _why(error)
    # Not from within `except`: the parser's error holds the whole text.
    raise MalformedError(why)


def parse_object(raw: bytes | str, **how: bool) -> dict[str, Any]:
    """Parse a JSON object; the arguments and errors are those of `parse_json`."""
    found = parse_json(raw, **how)
    if not isinstance(found, dict):
        raise MalformedError("it is JSON, but not an object")
    return found


def parse_each(text: str, *, constant: Callable[[str], Any] | None = None) -> Iterator[tuple[Any, int]]:
    """Parse JSON values that follow one another, with or without space between them, one at a time.

    :param constant: returns the value of ``NaN`` and ``Infinity``, which are refused without it
    :return: each value, and the place behind it
    :raises MalformedError: the next one isn't JSON
    """
    decoder = json.JSONDecoder(parse_constant=constant or _refuse)
    at = 0
    while begin := _NO_SPACE.search(text, at):
        try:
            value, at = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError) as error:
            why = _why(error)
        else:
            yield value, at
            continue
        raise MalformedError(why)


def parse_columns(raw: bytes, schema: pa.Schema, memory_pool: pa.MemoryPool | None = None) -> pa.RecordBatch:
    """Parse JSON objects that follow one another into columns, one row for each. Other threads run meanwhile.

    :param raw: not checked to be UTF-8
    :param schema: the fields to read; all others are ignored
    :raises MalformedError: there is null in place of an object
    :raises pa.ArrowException: it isn't JSON objects with such fields
    """
    import pyarrow as pa
    import pyarrow.json as pj

    if _has_null(raw) and _BARE_NULL.search(raw):
        raise MalformedError("null is in place of an object")
    table = pj.read_json(
        pa.BufferReader(raw),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(raw) + 1),
        parse_options=pj.ParseOptions(
            explicit_schema=schema, newlines_in_values=True, unexpected_field_behavior="ignore"
        ),
        memory_pool=memory_pool,
    )
    # One block gives one batch.
    (rows,) = table.to_batches()
    return rows


def _has_null(raw: bytes) -> bool:
    """Return whether there is a ``null``: with numpy in a fraction of the time that a search takes."""
    import numpy as np

    octets = np.frombuffer(raw, np.uint8)
    place = np.flatnonzero(octets == ord("u"))
    place = place[(place > 0) & (place < len(octets) - 1)]
    return bool(((octets[place - 1] == ord("n")) & (octets[place + 1] == ord("l"))).any())


def decode(raw: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark.

    :raises MalformedError: it is not UTF-8
    """
    try:
        return raw.decode("utf-8-sig")
    except ValueError as error:
        why = _why(error)
    raise MalformedError(why)


def parse_time(text: object) -> datetime:
    """Return an RFC 3339 time, aware, in UTC; one without an offset is in UTC.

    :raises MalformedError: it is not one, or is outside of the years 1 to 9999
    """
    if isinstance(text, str):
        try:
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise MalformedError("a time isn't an RFC 3339 time")


def parse_code(value: object) -> int | None:
    """Return a gRPC code, a number or digits; None for anything else, and what doesn't fit into 32 bits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        return None
    return value


def writable(text: str) -> str:
    """Replace halves of surrogate pairs by U+FFFD: JSON can hold them, and nothing that is written as UTF-8 can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _why(error: Exception) -> str:
    if isinstance(error, MalformedError):
        return str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it isn't UTF-8"
    return "it isn't JSON, or is cut off"


def _int64(digits: str) -> int:
    number = int(digits)
    if not -(2**63) <= number < 2**63:
        raise MalformedError("a number is too large")
    return number


def _refuse(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not JSON")
