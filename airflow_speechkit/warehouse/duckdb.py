"""DuckDB: one file that one process at a time may write to, and that reads Arrow batches by itself."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.errors import ConnectionSettingsError, StorageError
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.warehouse.ddl import Dialect, Names
from airflow_speechkit.warehouse.driver_errors import first_line
from airflow_speechkit.warehouse.load import WarehouseWithViews
from airflow_speechkit.warehouse.upgrade import upgrade_duckdb
from airflow_speechkit.warehouse.views import VIEWS, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema

log = logging.getLogger(__name__)

#: Between processes the file's own lock keeps loads apart; within one process DuckDB shares the database, and
#: two transactions that insert the same recognition would not notice each other.
_one_load_in_this_process = threading.Lock()

_LOCKED_RETRY = RetryPolicy(first_s=0.1, longest_s=5.0)

#: Why a file can't be opened, in DuckDB's own words or the system's, where it stays so until somebody does something.
_UNTIL_SOMEBODY = {
    "No such file or directory": "Make the folder, or correct the path in the connection's host",
    "Not a directory": "Correct the path in the connection's host",
    "Is a directory": "Name a file in that folder in the connection's host",
    "not a valid DuckDB database file": "Correct the path in the connection's host, or move that file away: a load "
    "makes a new one",
    "database file with version number": "Install the version of DuckDB that wrote it, or a later one",
    "Permission denied": "Let the user that the task runs as write there",
    "Read-only file system": "Name a file in the connection's host that can be written",
}


def open_when_free(hook: Any, timeout_s: float) -> Any:
    """Connect; where another process has the file locked, ask again with jitter until it is free.

    :param hook: Airflow's hook for DuckDB
    :param timeout_s: how long to wait for the lock, in seconds
    :raises StorageError: it was locked all the time, or can't be opened at all
    :raises ConnectionSettingsError: the connection means a database in memory
    """
    deadline = time.monotonic() + timeout_s
    pauses_s, told = _LOCKED_RETRY.pauses_s(), False
    while True:
        try:
            connection = hook.get_conn()
            break
        except Exception as error:
            if not _is_locked(error):
                for why, hint in _UNTIL_SOMEBODY.items():
                    if why in str(error):
                        raise StorageError(
                            f"The load failed while connecting to the DuckDB file: {first_line(error)}",
                            hint=hint,
                            retry="ends in the same way until then",
                            retry_can_help=False,
                        ) from error
                raise
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise StorageError(
                f"Another process had the DuckDB file locked for {timeout_s:g} s",
                hint="Close what has it open (a shell, a notebook, a BI tool), or raise `lock_timeout_s`",
                retry="waits for it again",
            )
        if not told:
            log.info("Another process has the DuckDB file open: waiting for up to %g s", timeout_s)
            told = True
        # Full jitter: of many that wait, no two keep meeting each other.
        time.sleep(min(left_s, random.uniform(0.02, next(pauses_s))))  # noqa: S311 - not for secrets
    path = connection.execute("SELECT path FROM duckdb_databases() WHERE database_name = current_database()").fetchone()
    if path is None or path[0] is None:
        connection.close()
        raise ConnectionSettingsError(
            "The connection means a DuckDB database in memory, which would be gone with the task",
            hint="Put the path of a database file into its host",
        )
    return connection


def _is_locked(error: Exception) -> bool:
    text = str(error)
    return type(error).__name__ == "IOException" and (
        "Could not set lock on file" in text or "being used by another process" in text
    )


class DuckDBWarehouse(WarehouseWithViews):
    """A DuckDB database.

    :param connection: an open connection to it, whose transactions this object takes care of
    :param names: what the tables are called there
    """

    dialect: ClassVar[Dialect] = Dialect.DUCKDB

    def __init__(self, connection: Any, names: Names) -> None:
        super().__init__(names)
        self._connection = connection
        self._in_transaction = False

    def begin(self) -> None:
        """Start a transaction, once no other load in this process has one."""
        _one_load_in_this_process.acquire()
        self._in_transaction = True
        self._connection.execute("BEGIN TRANSACTION")

    def commit(self) -> None:
        """End it, and keep what it did."""
        self._connection.execute("COMMIT")
        self._leave()

    def rollback(self) -> None:
        """End it, and keep nothing."""
        try:
            self._connection.rollback()
        except Exception as error:  # noqa: BLE001 - what made it roll back is what has to be heard of
            log.debug("Nothing to roll back: %s", type(error).__name__)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._in_transaction:
            self._in_transaction = False
            _one_load_in_this_process.release()

    def execute(self, statement: str) -> None:
        """Run a statement that holds no row's value."""
        self._connection.execute(statement)

    def create_schema(self) -> None:
        """Make the schema that the names are in, if it isn't there."""
        if self.names.schema is not None:
            self.execute(f"CREATE SCHEMA IF NOT EXISTS {self.names.quoted(self.names.schema)}")

    def columns(self, tables: Collection[TableSchema]) -> dict[str, frozenset[str]]:
        """Return the columns of those tables that exist."""
        by_name = {self.names.bare(table.name): table.name for table in tables}
        rows = self._connection.execute(
            "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE database_name = current_database() "
            "AND schema_name = coalesce(?, current_schema()) AND table_name IN (SELECT unnest(?)) GROUP BY table_name",
            [self.names.schema, list(by_name)],
        ).fetchall()
        return {by_name[name]: frozenset(columns) for name, columns in rows}

    def upgrade(self, table: TableSchema, there: Collection[str]) -> list[str]:
        """Return the statements that upgrade a table of version 0.1."""
        return upgrade_duckdb(self.names, table, there)

    def forget(self, tables: Collection[str], recognition_ids: pa.Array) -> None:
        """Delete the recognitions' rows."""
        import pyarrow as pa

        self._connection.register("speechkit_replaced", pa.table({"recognition_id": recognition_ids}))
        for table in tables:
            self._connection.execute(
                f"DELETE FROM {self.names.of(table)} "  # noqa: S608 - names are quoted
                "WHERE recognition_id IN (SELECT recognition_id FROM speechkit_replaced)"
            )
        # Not after a failure: in an aborted transaction this fails too, and hides what happened.
        self._connection.unregister("speechkit_replaced")

    def insert(self, table: TableSchema, rows: Iterator[pa.RecordBatch], columns: list[str]) -> int:
        """Add rows to a table: DuckDB takes them as they come."""
        import pyarrow as pa

        schema = pa.schema([pa.field(name, table.arrow.field(name).type) for name in columns])
        self._connection.register("speechkit_rows", pa.RecordBatchReader.from_batches(schema, rows))
        names = self.names.columns(columns)
        inserted = self._connection.execute(
            f"INSERT INTO {self.names.of(table.name)} ({names}) SELECT {names} FROM speechkit_rows"  # noqa: S608
        )
        return int(inserted.fetchone()[0])

    def views(self) -> Mapping[str, str | None]:
        """Return the comments of all tables and views that bear one of our views' names."""
        by_name = {self.names.bare(view): view for view in VIEWS}
        rows = self._connection.execute(
            "SELECT view_name, comment FROM duckdb_views() WHERE database_name = current_database() "
            "AND schema_name = coalesce($1, current_schema()) AND view_name IN (SELECT unnest($2)) "
            "UNION ALL SELECT table_name, comment FROM duckdb_tables() WHERE database_name = current_database() "
            "AND schema_name = coalesce($1, current_schema()) AND table_name IN (SELECT unnest($2))",
            [self.names.schema, list(by_name)],
        ).fetchall()
        return {by_name[name]: comment for name, comment in rows}

    def create_view(self, view: View) -> None:
        """Make a view, or make it anew, and leave its mark in its comment."""
        self._connection.execute(view.statement)
        self._connection.execute(f"COMMENT ON VIEW {self.names.of(view.name)} IS '{view.comment}'")
