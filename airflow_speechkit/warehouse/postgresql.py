"""PostgreSQL: rows are written by ``COPY … FROM STDIN``, through psycopg2 or psycopg 3, whichever the hook uses."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.warehouse.database import DatabaseWithViews

if TYPE_CHECKING:
    from collections.abc import Collection

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.warehouse.ddl import Names


class PostgreSQL(DatabaseWithViews):
    """A PostgreSQL database.

    :param connection: an open connection to it, not in autocommit mode
    :param names: the names of the tables and views
    :param lock_timeout_s: how long to wait for a lock, in seconds
    """

    _COMMENTS: ClassVar[str] = (
        "SELECT c.relname, obj_description(c.oid, 'pg_class') FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = coalesce(%s, current_schema()) AND c.relname = ANY(%s)"
    )

    def __init__(self, connection: Any, names: Names, lock_timeout_s: float) -> None:
        super().__init__(connection, names, "%s")
        self._lock_timeout_s = lock_timeout_s

    def _begin(self) -> None:
        """Take a lock against other loads, which ends with the transaction; readers aren't blocked.

        Without it two loads of the same new recognition would not see each other's rows.
        """
        self._query("SELECT set_config('lock_timeout', %s, true)", [f"{int(self._lock_timeout_s * 1000)}ms"])
        self._query(
            "SELECT pg_advisory_xact_lock(hashtext('airflow_speechkit'), hashtext(coalesce(%s, current_schema(), '')))",
            [self.names.schema],
        )

    def primary_keys(self, tables: Collection[TableSchema]) -> dict[str, tuple[str, list[str]]]:
        """Return the names and columns of the tables' primary keys, by the tables' names without prefix."""
        return self._by_name(
            "SELECT c.relname, k.conname, array_agg(a.attname::text) FROM pg_constraint k "
            "JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
            "JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey) "
            "WHERE k.contype = 'p' AND n.nspname = coalesce(%s, current_schema()) AND c.relname = ANY(%s) "
            "GROUP BY c.relname, k.conname",
            [table.name for table in tables],
        )

    def insert(self, table: TableSchema, rows: pa.RecordBatch, existing: Collection[str]) -> None:
        """Insert rows by ``COPY``."""
        columns, data = self.names.columns(rows.schema.names), _as_csv(rows)
        statement = f"COPY {self.names.of(table.name)} ({columns}) FROM STDIN WITH (FORMAT csv, ENCODING 'UTF8')"
        if hasattr(self._cursor, "copy_expert"):
            self._cursor.copy_expert(statement, io.BytesIO(data))
        else:
            with self._cursor.copy(statement) as copy:
                copy.write(data)


def _as_csv(batch: pa.RecordBatch) -> bytes:
    """Return a batch as PostgreSQL's CSV: null is an empty field, an empty text is ``""``."""
    import pyarrow as pa
    import pyarrow.csv

    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(batch, sink, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
    data: bytes = sink.getvalue().to_pybytes()
    # The one character that PostgreSQL's text can't hold.
    return data.replace(b"\0", "\N{REPLACEMENT CHARACTER}".encode()) if b"\0" in data else data
