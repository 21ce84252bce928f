"""A database that the tables are loaded into: plain SQL, which DuckDB and PostgreSQL replace where they know better."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.errors import SpeechKitError, StorageError
from airflow_speechkit.warehouse.views import VIEWS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.warehouse.ddl import Names
    from airflow_speechkit.warehouse.views import View

#: SQLite's and SQL Server's limits on a statement's parameters are the lowest.
_IDS_IN_A_DELETE = 500

#: Classes of SQLSTATE that a retry does not change: data, constraints, dependents, SQL, rights, unsupported features.
_LASTING_SQLSTATES = ("0A", "22", "23", "2B", "3D", "3F", "42")
#: The same for databases without SQLSTATE, by the classes that DB-API has for errors, and by those of others.
_LASTING_KINDS = {"DataError", "IntegrityError", "NotSupportedError", "ProgrammingError"}
_LASTING_KINDS |= {"ArrowInvalid", "DependencyException", "UnicodeDecodeError"}

_COPY_COLUMN = re.compile(r"^COPY \w+, line \d+, column (\w+)", re.MULTILINE)
_QUERY = re.compile(r"\?\S+")


@contextmanager
def step(doing: str, *, quotes_rows: bool = False, hint: str | None = None) -> Iterator[None]:
    """Turn a driver's exception into a `StorageError` that says what was being done, without the values of rows.

    Drivers put rows into their messages: ``DETAIL: Key (word)=(…)``, ``CONTEXT: COPY words, line 3, column text: "…"``,
    ``Could not convert string '…'``. Kept are the kind of the error, its SQLSTATE, and the names of table and column.
    The driver's exception is still the context: whoever lets the error out of the room removes that.

    :param doing: what happens inside, such as "inserting into `words`"
    :param quotes_rows: whether the driver's message may quote a row; otherwise its first line is kept
    :param hint: what a person can do where it fails
    :raises StorageError: for any other exception than a `SpeechKitError`
    """
    try:
        yield
    except SpeechKitError:
        raise
    except Exception as error:  # noqa: BLE001 - each driver has its own
        kind, kinds = type(error).__name__, {one.__name__ for one in type(error).__mro__}
        sqlstate = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
        details = [f"SQLSTATE {sqlstate}"] if sqlstate else []
        diagnosis = getattr(error, "diag", None)
        named = {what: getattr(diagnosis, f"{what}_name", None) for what in ("table", "column", "constraint")}
        details += [f"{what} {name}" for what, name in named.items() if name]
        if column := _COPY_COLUMN.search(getattr(diagnosis, "context", None) or ""):
            details.append(f"column {column[1]}")
        if quotes_rows:
            hint = "The database's own log has the whole message; it is left out here because it may quote a transcript"
        place = f" ({', '.join(details)})" if details else ""
        raise StorageError(
            f"The load failed while {doing}, with {kind}{place}{'' if quotes_rows else f': {first_line(error)}'}",
            hint=hint,
            retry="loads everything again: nothing of this load was kept",
            retry_can_help=not (sqlstate.startswith(_LASTING_SQLSTATES) if sqlstate else kinds & _LASTING_KINDS),
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without a query string, which may carry a token (MotherDuck's)."""
    return _QUERY.sub("?…", str(error).strip().partition("\n")[0])


class Database:
    """Any database with an Airflow hook, in plain SQL, without the hook's own logging of rows.

    :param connection: an open DB-API connection, not in autocommit mode
    :param names: the names of the tables and views
    :param placeholder: the driver's marker for a value in a statement
    """

    def __init__(self, connection: Any, names: Names, placeholder: str) -> None:
        self.names = names
        self._connection = connection
        self._cursor = connection.cursor()
        self._placeholder = placeholder

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run what is inside in one transaction, during which no other load changes these tables if that can be had."""
        try:
            with step("starting the transaction"):
                self._begin()
            yield
            with step("committing", quotes_rows=True):
                self._connection.commit()
        except BaseException:
            # A connection that is lost has no transaction; the error that led here is the one to report.
            with suppress(Exception):
                self._connection.rollback()
            raise

    def _begin(self) -> None:
        """Start a transaction; a DB-API driver does so with the first statement."""

    def execute(self, statement: str) -> None:
        """Run a statement that has no values of rows in it."""
        self._cursor.execute(statement)

    def _query(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, values)
        # PostgreSQL's connection may have been set up to return dictionaries.
        return [tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in self._cursor.fetchall()]

    def create_schema(self) -> None:
        """Create the schema if it is missing. Not every database has schemas: here that is left to a person."""

    def columns(self, tables: Collection[TableSchema]) -> dict[str, frozenset[str]]:
        """Return the columns of those tables that exist, by the tables' names without prefix."""
        found = {}
        for table in tables:
            try:
                self._cursor.execute(f"SELECT * FROM {self.names.of(table.name)} WHERE 1 = 0")  # noqa: S608
            except Exception:  # noqa: BLE001 - each driver has its own error for a missing table
                # Nothing has been done in this transaction yet, and some databases accept nothing after an error.
                self._connection.rollback()
                continue
            found[table.name] = frozenset(column[0].lower() for column in self._cursor.description)
            self._cursor.fetchall()
        return found

    def primary_keys(self, tables: Collection[TableSchema]) -> dict[str, tuple[str, list[str]]]:
        """Return the names and columns of the tables' primary keys, by the tables' names without prefix.

        Only PostgreSQL looks them up: there an old table's key is replaced.
        """
        return {}

    def delete_rows(self, tables: Collection[str], recognition_ids: Sequence[str]) -> None:
        """Delete the rows of recognitions.

        :param tables: the tables' names without prefix
        :param recognition_ids: distinct ids
        """
        for start in range(0, len(recognition_ids), _IDS_IN_A_DELETE):
            some = recognition_ids[start : start + _IDS_IN_A_DELETE]
            marks = ", ".join([self._placeholder] * len(some))
            for table in tables:
                self._cursor.execute(
                    f"DELETE FROM {self.names.of(table)} WHERE recognition_id IN ({marks})",  # noqa: S608
                    some,
                )

    def insert(self, table: TableSchema, rows: pa.RecordBatch, existing: Collection[str]) -> None:
        """Insert rows.

        :param rows: those of the table's columns that exist in the database
        :param existing: the columns that the database's table has
        """
        columns = list(rows.schema.names)
        added = [one.name for one in table.columns if not one.in_files and one.name in existing]
        marks = ", ".join([self._placeholder] * len(columns + added))
        into = f"{self.names.of(table.name)} ({self.names.columns(columns + added)})"
        now = [_plain(datetime.now(UTC))] * len(added)
        values = zip(*([_plain(value) for value in column.to_pylist()] for column in rows), strict=True)
        self._cursor.executemany(f"INSERT INTO {into} VALUES ({marks})", [(*row, *now) for row in values])  # noqa: S608


class DatabaseWithViews(Database):
    """A database with the standard's catalog, in whose SQL the views are written."""

    #: Selects names and comments of tables and views, by a schema and a list of names.
    _COMMENTS: ClassVar[str]

    def create_schema(self) -> None:
        """Create the schema if it is missing."""
        schema = self.names.schema
        # A user who may not create schemas may still use an existing one.
        if schema is not None and not self._query(
            "SELECT 1 FROM information_schema.schemata WHERE catalog_name = current_database() "  # noqa: S608
            f"AND schema_name = {self._placeholder}",
            [schema],
        ):
            self.execute(f"CREATE SCHEMA {self.names.quoted(schema)}")

    def columns(self, tables: Collection[TableSchema]) -> dict[str, frozenset[str]]:
        """Return the columns of those tables that exist, by the tables' names without prefix."""
        mark = self._placeholder
        found = self._by_name(
            "SELECT table_name, array_agg(column_name::text) FROM information_schema.columns "  # noqa: S608
            f"WHERE table_catalog = current_database() AND table_schema = coalesce({mark}, current_schema()) "
            f"AND table_name = ANY({mark}) GROUP BY table_name",
            [table.name for table in tables],
        )
        return {name: frozenset(columns) for name, (columns,) in found.items()}

    def delete_rows(self, tables: Collection[str], recognition_ids: Sequence[str]) -> None:
        """Delete the rows of recognitions."""
        for table in tables:
            self._cursor.execute(
                f"DELETE FROM {self.names.of(table)} "  # noqa: S608 - names are quoted
                f"WHERE recognition_id IN (SELECT unnest(CAST({self._placeholder} AS VARCHAR[])))",
                [recognition_ids],
            )

    def view_comments(self) -> Mapping[str, str | None]:
        """Return the comments of all existing tables and views that have the name of one of our views."""
        return {name: comment for name, (comment,) in self._by_name(self._COMMENTS, VIEWS).items()}

    def _by_name(self, query: str, names: Collection[str]) -> dict[str, Any]:
        """Return the other columns of a query's rows, by the name without prefix that is their first column."""
        given = {self.names.bare(name): name for name in names}
        return {given[name]: values for name, *values in self._query(query, [self.names.schema, list(given)])}

    def create_view(self, view: View) -> None:
        """Create or replace a view, and leave its mark in its comment."""
        self.execute(view.statement)
        self.execute(f"COMMENT ON VIEW {self.names.of(view.name)} IS '{view.comment}'")


def _plain(value: Any) -> Any:
    """Return a value as every driver takes it: a moment is a text in UTC."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value
