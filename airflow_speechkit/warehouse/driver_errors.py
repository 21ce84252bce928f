"""Errors of database drivers, without the values that they quote.

Drivers put rows into their messages: ``DETAIL: Key (word)=(…)``, ``CONTEXT: COPY words, line 3, column text: "…"``,
``Could not convert string '…'``. Kept are the kind of the error, its SQLSTATE, and the place.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SpeechKitError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Classes of SQLSTATE that a retry does not change: data, constraints, dependents, SQL, rights, unsupported features.
_LASTING_SQLSTATES = ("0A", "22", "23", "2B", "3D", "3F", "42")
#: The same for databases without SQLSTATE, by the names of their exceptions.
_LASTING_KINDS = frozenset(
    {
        "ArrowInvalid", "BinderException", "CatalogException", "ConstraintException", "ConversionException",
        "DataError", "DependencyException", "IntegrityError", "InvalidInputException", "NotSupportedError",
        "ParserException", "ProgrammingError", "UnicodeDecodeError",
    }
)  # fmt: skip

_COPY_PLACE = re.compile(r"^COPY \w+, line (\d+)(?:, column (\w+))?", re.MULTILINE)
_QUERY = re.compile(r"\?\S+")


@contextmanager
def step(doing: str, *, quotes_rows: bool = False, hint: str | None = None) -> Iterator[None]:
    """Turn a driver's exception into a `StorageError` that says what was being done.

    The driver's exception is still its context: whoever lets the error out of the room removes that.

    :param doing: what happens inside, such as "inserting into `words`"
    :param quotes_rows: whether the driver's message may quote a row; otherwise its first line is kept
    :param hint: what a person can do where it fails
    """
    try:
        yield
    except SpeechKitError:
        raise
    except Exception as error:  # noqa: BLE001 - each driver has its own
        sqlstate = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
        kind, place = type(error).__name__, ", ".join(_place(error, sqlstate))
        raise StorageError(
            f"The load failed while {doing}, with {kind}{f' ({place})' if place else ''}"
            f"{'' if quotes_rows else f': {first_line(error)}'}",
            hint="The database's own log has the whole message; it is left out here because it may quote a transcript"
            if quotes_rows
            else hint,
            retry="loads everything again: nothing of this load was kept",
            retry_can_help=not (kind in _LASTING_KINDS or sqlstate.startswith(_LASTING_SQLSTATES)),
        ) from None


def _place(error: Exception, sqlstate: str) -> Iterator[str]:
    """Yield what an error says that can't be a row's value: codes, names of tables and columns, a line's number."""
    from airflow_speechkit.results.schema import TABLES

    if sqlstate:
        yield f"SQLSTATE {sqlstate}"
    diagnosis = getattr(error, "diag", None)
    for what in ("table", "column", "constraint"):
        if isinstance(name := getattr(diagnosis, f"{what}_name", None), str):
            yield f"{what} {name}"
    if place := _COPY_PLACE.search(getattr(diagnosis, "context", None) or ""):
        yield f"row {place[1]}"
        if any(place[2] in table.arrow.names for table in TABLES):
            yield f"column {place[2]}"
    if code := getattr(error, "sqlite_errorname", None):
        yield code


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without a query string, which may carry a token (MotherDuck's)."""
    lines = str(error).strip().splitlines()
    return _QUERY.sub("?…", lines[0]) if lines else ""
