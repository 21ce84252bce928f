"""Any other database with an Airflow hook: plain SQL, and inserts in batches, without the hook's own logging."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.warehouse.ddl import Dialect, Names
from airflow_speechkit.warehouse.load import Warehouse
from airflow_speechkit.warehouse.upgrade import upgrade_generic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema

#: SQLite's and SQL Server's limits on a statement's parameters are the lowest.
_IDS_IN_A_DELETE = 500
_ROWS_IN_AN_INSERT = 1_000


class GenericWarehouse(Warehouse):
    """A database that is spoken to in plain SQL.

    :param connection: an open DB-API connection to it, not in autocommit mode
    :param names: what the tables are called there
    :param placeholder: what stands for a value in the driver's SQL
    """

    dialect: ClassVar[Dialect] = Dialect.GENERIC

    def __init__(self, connection: Any, names: Names, placeholder: str) -> None:
        super().__init__(names)
        self._connection = connection
        self._cursor = connection.cursor()
        self._placeholder = placeholder
        self._there: dict[str, frozenset[str]] = {}

    def begin(self) -> None:
        """Start a transaction: a driver of the DB-API does so with the first statement."""

    def commit(self) -> None:
        """End it, and keep what it did."""
        self._connection.commit()

    def rollback(self) -> None:
        """End it, and keep nothing."""
        self._connection.rollback()

    def execute(self, statement: str) -> None:
        """Run a statement that holds no row's value."""
        self._cursor.execute(statement)

    def create_schema(self) -> None:
        """Leave it to a person: there is no such thing as a schema in every database."""

    def columns(self, tables: Collection[TableSchema]) -> dict[str, frozenset[str]]:
        """Return the columns of those tables that exist, which a query for no row tells in every database."""
        self._there = there = {}
        for table in tables:
            try:
                self._cursor.execute(f"SELECT * FROM {self.names.of(table.name)} WHERE 1 = 0")  # noqa: S608
            except Exception:  # noqa: BLE001 - each driver has its own error for a table that isn't there
                # Nothing has been done in this transaction yet, and some databases take no more after an error.
                self._connection.rollback()
                continue
            there[table.name] = frozenset(column[0].lower() for column in self._cursor.description)
            self._cursor.fetchall()
        return there

    def upgrade(self, table: TableSchema, there: Collection[str]) -> list[str]:
        """Return the statements that upgrade a table of version 0.1."""
        return upgrade_generic(self.names, table, there)

    def forget(self, tables: Collection[str], recognition_ids: pa.Array) -> None:
        """Delete the recognitions' rows."""
        ids = recognition_ids.to_pylist()
        for start in range(0, len(ids), _IDS_IN_A_DELETE):
            some = ids[start : start + _IDS_IN_A_DELETE]
            marks = ", ".join([self._placeholder] * len(some))
            for table in tables:
                self._cursor.execute(
                    f"DELETE FROM {self.names.of(table)} WHERE recognition_id IN ({marks})",  # noqa: S608
                    some,
                )

    def insert(self, table: TableSchema, rows: Iterator[pa.RecordBatch], columns: list[str]) -> int:
        """Insert rows in batches."""
        given = [one.name for one in table.columns if not one.in_files and one.name in self._there[table.name]]
        into = f"{self.names.of(table.name)} ({self.names.columns([*columns, *given])})"
        marks = ", ".join([self._placeholder] * (len(columns) + len(given)))
        statement = f"INSERT INTO {into} VALUES ({marks})"  # noqa: S608
        now = [_moment(datetime.now(UTC))] * len(given)
        inserted = 0
        for batch in rows:
            for start in range(0, batch.num_rows, _ROWS_IN_AN_INSERT):
                some = batch.slice(start, _ROWS_IN_AN_INSERT)
                values = [_plain(some.column(name)) for name in columns]
                self._cursor.executemany(statement, [(*row, *now) for row in zip(*values, strict=True)])
                inserted += some.num_rows
        return inserted


def _plain(column: pa.Array) -> list[Any]:
    """Return a column's values as what every driver takes: a moment as text in UTC, a truth as 0 or 1."""
    import pyarrow.types as types

    values: list[Any] = column.to_pylist()
    if types.is_timestamp(column.type):
        return [value and _moment(value) for value in values]
    if types.is_boolean(column.type):
        return [None if value is None else int(value) for value in values]
    return values


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
