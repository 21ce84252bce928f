"""A database that the tables are loaded into: plain SQL, which DuckDB and PostgreSQL replace where they know better."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.warehouse.driver_errors import step
from airflow_speechkit.warehouse.upgrade import upgrade_generic
from airflow_speechkit.warehouse.views import VIEWS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.warehouse.ddl import Names
    from airflow_speechkit.warehouse.views import View

#: SQLite's and SQL Server's limits on a statement's parameters are the lowest.
_IDS_IN_A_DELETE = 500
_ROWS_IN_AN_INSERT = 1_000


class Database:
    """Any database with an Airflow hook, in plain SQL, without the hook's own logging of rows.

    :param connection: an open DB-API connection, not in autocommit mode
    :param names: the names of the tables and views
    :param placeholder: the driver's marker for a value in a statement
    """

    def __init__(self, connection: Any, names: Names, placeholder: str) -> None:
        self.names = names
        self._connection = connection
        self._cursor = self._open_cursor()
        self._placeholder = placeholder

    def _open_cursor(self) -> Any:
        return self._connection.cursor()

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
        rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        return rows

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

    def upgrade(self, table: TableSchema, existing: Collection[str]) -> list[str]:
        """Return the statements that bring a table of version 0.1 to this version's columns and keys.

        :param existing: the table's columns
        """
        return upgrade_generic(self.names, table, existing)

    def delete_rows(self, tables: Collection[str], recognition_ids: pa.Array) -> None:
        """Delete the rows of recognitions.

        :param tables: the tables' names without prefix
        :param recognition_ids: distinct ids
        """
        ids = recognition_ids.to_pylist()
        for start in range(0, len(ids), _IDS_IN_A_DELETE):
            some = ids[start : start + _IDS_IN_A_DELETE]
            marks = ", ".join([self._placeholder] * len(some))
            for table in tables:
                self._cursor.execute(
                    f"DELETE FROM {self.names.of(table)} WHERE recognition_id IN ({marks})",  # noqa: S608
                    some,
                )

    def insert(self, table: TableSchema, rows: Iterator[pa.RecordBatch], existing: Collection[str]) -> int:
        """Insert rows and return how many.

        :param rows: batches of those of the table's columns that exist in the database
        :param existing: the columns that the database's table has
        """
        columns = table_columns(table, existing)
        added = [one.name for one in table.columns if not one.in_files and one.name in existing]
        marks = ", ".join([self._placeholder] * len(columns + added))
        into = f"{self.names.of(table.name)} ({self.names.columns(columns + added)})"
        now, inserted = [_timestamp(datetime.now(UTC))] * len(added), 0
        for batch in rows:
            for start in range(0, batch.num_rows, _ROWS_IN_AN_INSERT):
                some = batch.slice(start, _ROWS_IN_AN_INSERT)
                values = zip(*([_plain(value) for value in column.to_pylist()] for column in some), strict=True)
                self._cursor.executemany(
                    f"INSERT INTO {into} VALUES ({marks})",  # noqa: S608
                    [(*row, *now) for row in values],
                )
                inserted += some.num_rows
        return inserted


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
        return {name: frozenset(columns) for name, columns in found.items()}

    def view_comments(self) -> Mapping[str, str | None]:
        """Return the comments of all existing tables and views that have the name of one of our views."""
        return self._by_name(self._COMMENTS, VIEWS)

    def _by_name(self, query: str, names: Collection[str]) -> dict[str, Any]:
        given = {self.names.bare(name): name for name in names}
        return {given[name]: value for name, value in self._query(query, [self.names.schema, list(given)])}

    def create_view(self, view: View) -> None:
        """Create or replace a view, and leave its mark in its comment."""
        self.execute(view.statement)
        self.execute(f"COMMENT ON VIEW {self.names.of(view.name)} IS '{view.comment}'")


def table_columns(table: TableSchema, existing: Collection[str]) -> list[str]:
    """Return the columns that both a table's files and the database's table have."""
    return [name for name in table.arrow.names if name in existing]


def _plain(value: Any) -> Any:
    """Return a value as every driver takes it: a moment is a text in UTC, a boolean 0 or 1."""
    if isinstance(value, datetime):
        return _timestamp(value)
    return int(value) if isinstance(value, bool) else value


def _timestamp(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
