"""Telling what a database or a file reader refused, without the values that it quotes.

Drivers put rows into their messages: ``DETAIL: Key (word)=(…)``, ``CONTEXT: COPY words, line 3, column text: "…"``,
``Could not convert string '…'``, a row of a CSV file. What is kept is the kind of the error, its SQLSTATE, and
where it was.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_speechkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Classes of SQLSTATE that a second try does not change: data, constraints, dependents, SQL, rights, what is not
#: supported.
_LASTING_SQLSTATES = ("0A", "22", "23", "2B", "3D", "3F", "42")
#: The same for databases that have no SQLSTATE, by the names of their errors.
_LASTING_KINDS = frozenset(
    {
        "ArrowInvalid", "BinderException", "CatalogException", "ConstraintException", "ConversionException",
        "DataError", "DependencyException", "IntegrityError", "InvalidInputException", "NotSupportedError",
        "ParserException", "ProgrammingError", "UnicodeDecodeError",
    }
)  # fmt: skip

_COPY_PLACE = re.compile(r"^COPY \w+, line (?P<row>\d+)(?:, column (?P<column>\w+))?", re.MULTILINE)
_QUERY = re.compile(r"\?\S+")


def told_without_values(
    error: Exception, *, doing: str, rows_are_in_play: bool, hint: str | None = None
) -> StorageError:
    """Return what may be told about an error of a driver.

    :param error: what was raised; it must not become the cause or context of what is raised in its place
    :param doing: what was being done, e.g. "inserting into `words`"
    :param rows_are_in_play: whether the message may quote a row; otherwise its first line is kept
    :param hint: what a person can do about it
    """
    sqlstate = _sqlstate(error)
    about = [*_place(error)]
    kind = type(error).__name__
    where = f" ({', '.join(about)})" if about else ""
    message = "" if rows_are_in_play else f": {first_line(error)}"
    return StorageError(
        f"The load failed while {doing}, with {kind}{where}{message}",
        hint="The database's own log has the whole message; it is left out here because it may quote a transcript"
        if rows_are_in_play
        else hint,
        retry="loads everything again: nothing of this load was kept",
        retry_can_help=not (kind in _LASTING_KINDS or sqlstate.startswith(_LASTING_SQLSTATES)),
    )


def _sqlstate(error: Exception) -> str:
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return sqlstate if isinstance(sqlstate, str) else ""


def _place(error: Exception) -> Iterator[str]:
    """Give what an error says about itself that can't be a row's value: codes, names of our own, a line's number."""
    from airflow_speechkit.results.schema import TABLES

    if sqlstate := _sqlstate(error):
        yield f"SQLSTATE {sqlstate}"
    diagnosis = getattr(error, "diag", None)
    for what in ("table_name", "column_name", "constraint_name"):
        if isinstance(name := getattr(diagnosis, what, None), str):
            yield f"{what.removesuffix('_name')} {name}"
    if (place := _COPY_PLACE.search(getattr(diagnosis, "context", None) or "")) is not None:
        yield f"row {place['row']}"
        if place["column"] in {name for table in TABLES for name in table.arrow.names}:
            yield f"column {place['column']}"
    for what in ("sqlite_errorname", "errno"):
        if (code := getattr(error, what, None)) is not None:
            yield f"{what} {code}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, for where no row is in play, without what may be a secret."""
    lines = str(error).strip().splitlines()
    # A query string may carry a token, as MotherDuck's does.
    return _QUERY.sub("?…", lines[0]) if lines else ""
