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
from airflow_speechkit.warehouse.database import DatabaseWithViews, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.warehouse.ddl import Names

log = logging.getLogger(__name__)

_LOCKED_RETRY = RetryPolicy(first_s=0.1, longest_s=5.0)
#: The file's lock keeps processes apart, not the threads of one: without a key, loads at once double their rows.
_ONE_LOAD_IN_THIS_PROCESS = threading.Lock()
_LOCKED = ("Could not set lock on file", "being used by another process")


def connect_when_free(connect: Callable[[], Any], timeout_s: float) -> Any:
    """Open a DuckDB file; while another process has it locked, try again.

    :param connect: opens the file
    :param timeout_s: how long to wait for the lock, in seconds
    :raises StorageError: the file stayed locked, or can't be opened
    :raises ConnectionSettingsError: the database is in memory
    """
    deadline = time.monotonic() + timeout_s
    for pause_s in _LOCKED_RETRY.pauses_s():
        try:
            connection = connect()
            break
        except Exception as error:
            if not any(text in str(error) for text in _LOCKED):
                raise StorageError(
                    f"Connecting to the DuckDB file failed: {first_line(error)}",
                    hint="Check the path in the connection's host: the folder has to exist, the task's user needs "
                    "write access, and a file that exists has to be a database that this version of DuckDB reads",
                    retry="fails in the same way until then",
                    retry_can_help=False,
                ) from error
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise StorageError(
                f"Another process had the DuckDB file locked for {timeout_s:g} s",
                hint="Close what has it open (a shell, a notebook, a BI tool), or raise `lock_timeout_s`",
                retry="waits for it again",
            )
        log.info("Another process has the DuckDB file open: waiting for up to %.0f s", left_s)
        # Full jitter: processes that wait don't keep colliding.
        time.sleep(min(left_s, random.uniform(0.02, pause_s)))  # noqa: S311 - not for secrets
    [(path,)] = connection.execute(
        "SELECT max(path) FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()
    if path is None:
        connection.close()
        raise ConnectionSettingsError(
            "The connection is to a DuckDB database in memory, which would be lost with the task",
            hint="Put the path of a database file into its host",
        )
    return connection


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
        # A cursor of DuckDB is a connection of its own, with its own transaction.
        self._cursor = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run what is inside in one transaction, during which this process runs no other load."""
        with _ONE_LOAD_IN_THIS_PROCESS, super().transaction():
            yield

    def _begin(self) -> None:
        self._connection.begin()

    def insert(self, table: TableSchema, rows: pa.RecordBatch, existing: Collection[str]) -> None:
        """Insert rows, which DuckDB reads from Arrow's columns."""
        import pyarrow as pa

        self._connection.register("speechkit_rows", pa.Table.from_batches([rows]))
        columns = self.names.columns(rows.schema.names)
        self.execute(f"INSERT INTO {self.names.of(table.name)} ({columns}) SELECT {columns} FROM speechkit_rows")  # noqa: S608
