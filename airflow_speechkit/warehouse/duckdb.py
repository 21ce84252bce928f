"""DuckDB: one file that a single process at a time can write, and that reads Arrow batches directly."""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.errors import ConnectionSettingsError, StorageError
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.warehouse.database import DatabaseWithViews, table_columns
from airflow_speechkit.warehouse.driver_errors import first_line
from airflow_speechkit.warehouse.upgrade import upgrade_duckdb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.warehouse.ddl import Names

log = logging.getLogger(__name__)

#: Between processes the file's lock keeps loads apart. Within one process DuckDB shares the database, and two
#: transactions that insert the same recognition would not notice each other.
_one_load_in_this_process = threading.Lock()

_LOCKED_RETRY = RetryPolicy(first_s=0.1, longest_s=5.0)
_LOCKED = ("Could not set lock on file", "being used by another process")

#: Messages, DuckDB's or the system's, of a file that no retry opens.
_LASTING = (
    "No such file or directory", "Not a directory", "Is a directory", "not a valid DuckDB database file",
    "database file with version number", "Permission denied", "Read-only file system",
)  # fmt: skip


def connect_when_free(connect: Callable[[], Any], timeout_s: float) -> Any:
    """Open a DuckDB file; while another process has it locked, try again.

    :param connect: opens the file
    :param timeout_s: how long to wait for the lock, in seconds
    :raises StorageError: the file stayed locked, or can't be opened
    :raises ConnectionSettingsError: the database is in memory
    """
    deadline, pauses_s = time.monotonic() + timeout_s, _LOCKED_RETRY.pauses_s()
    logged = False
    while (connection := _connect(connect)) is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise StorageError(
                f"Another process had the DuckDB file locked for {timeout_s:g} s",
                hint="Close what has it open (a shell, a notebook, a BI tool), or raise `lock_timeout_s`",
                retry="waits for it again",
            )
        if not logged:
            log.info("Another process has the DuckDB file open: waiting for up to %g s", timeout_s)
            logged = True
        # Full jitter: processes that wait don't keep colliding.
        time.sleep(min(left_s, random.uniform(0.02, next(pauses_s))))  # noqa: S311 - not for secrets
    path = connection.execute("SELECT path FROM duckdb_databases() WHERE database_name = current_database()").fetchone()
    if path is None or path[0] is None:
        connection.close()
        raise ConnectionSettingsError(
            "The connection is to a DuckDB database in memory, which would be lost with the task",
            hint="Put the path of a database file into its host",
        )
    return connection


def _connect(connect: Callable[[], Any]) -> Any | None:
    """Return a connection, or None while another process has the file locked."""
    try:
        return connect()
    except Exception as error:
        if type(error).__name__ == "IOException" and any(text in str(error) for text in _LOCKED):
            return None
        if any(text in str(error) for text in _LASTING):
            raise StorageError(
                f"The load failed while connecting to the DuckDB file: {first_line(error)}",
                hint="Check the path in the connection's host: the folder has to exist, the user that the task runs as "
                "needs write access, and a file that exists has to be a database that this version of DuckDB reads",
                retry="fails in the same way until then",
                retry_can_help=False,
            ) from error
        raise


class DuckDB(DatabaseWithViews):
    """A DuckDB database.

    :param connection: an open connection to it
    :param names: the names of the tables and views
    """

    _COMMENTS: ClassVar[str] = (
        "SELECT name, comment FROM ("
        "SELECT database_name, schema_name, view_name AS name, comment FROM duckdb_views() UNION ALL "
        "SELECT database_name, schema_name, table_name AS name, comment FROM duckdb_tables()) "
        "WHERE database_name = current_database() AND schema_name = coalesce(?, current_schema()) AND name = ANY(?)"
    )

    def __init__(self, connection: Any, names: Names) -> None:
        super().__init__(connection, names, "?")

    def _open_cursor(self) -> Any:
        # A cursor of DuckDB is a connection of its own, with its own transaction.
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a transaction once no other load in this process has one."""
        with _one_load_in_this_process, super().transaction():
            yield

    def _begin(self) -> None:
        self._connection.begin()

    def upgrade(self, table: TableSchema, existing: Collection[str]) -> list[str]:
        """Return the statements that upgrade a table of version 0.1."""
        return upgrade_duckdb(self.names, table, existing)

    def delete_rows(self, tables: Collection[str], recognition_ids: pa.Array) -> None:
        """Delete the rows of recognitions."""
        import pyarrow as pa

        self._connection.register("speechkit_replaced", pa.table({"recognition_id": recognition_ids}))
        for table in tables:
            self.execute(
                f"DELETE FROM {self.names.of(table)} "  # noqa: S608 - names are quoted
                "WHERE recognition_id IN (SELECT recognition_id FROM speechkit_replaced)"
            )
        # Not after a failure: in an aborted transaction this fails too, and hides the cause.
        self._connection.unregister("speechkit_replaced")

    def insert(self, table: TableSchema, rows: Iterator[pa.RecordBatch], existing: Collection[str]) -> int:
        """Insert rows, which DuckDB reads as Arrow batches, and return how many."""
        import pyarrow as pa

        columns = table_columns(table, existing)
        schema = pa.schema([pa.field(name, table.arrow.field(name).type) for name in columns])
        self._connection.register("speechkit_rows", pa.RecordBatchReader.from_batches(schema, rows))
        names = self.names.columns(columns)
        [(inserted,)] = self._query(
            f"INSERT INTO {self.names.of(table.name)} ({names}) SELECT {names} FROM speechkit_rows",  # noqa: S608
            [],
        )
        return int(inserted)
