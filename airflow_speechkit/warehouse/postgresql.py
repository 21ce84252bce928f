"""PostgreSQL: rows are written by ``COPY … FROM STDIN``, through psycopg2 or psycopg 3, whichever the hook uses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.warehouse.database import DatabaseWithViews, table_columns
from airflow_speechkit.warehouse.upgrade import upgrade_postgresql

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.warehouse.ddl import Names

_CSV = "FROM STDIN WITH (FORMAT csv, ENCODING 'UTF8')"
_REPLACED = "speechkit_replaced"


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

    def _open_cursor(self) -> Any:
        # The connection's default cursor may return dictionaries.
        if type(self._connection).__module__.startswith("psycopg2"):
            from psycopg2.extensions import cursor  # type: ignore[import-untyped]

            return self._connection.cursor(cursor_factory=cursor)
        from psycopg.rows import tuple_row

        return self._connection.cursor(row_factory=tuple_row)

    def _begin(self) -> None:
        """Take a lock against other loads, which ends with the transaction; readers aren't blocked.

        Without it two loads of the same new recognition would not see each other's rows.
        """
        self._query("SELECT set_config('lock_timeout', %s, true)", [f"{int(self._lock_timeout_s * 1000)}ms"])
        self._query(
            "SELECT pg_advisory_xact_lock(hashtext('airflow_speechkit'), hashtext(coalesce(%s, current_schema(), '')))",
            [self.names.schema],
        )

    def upgrade(self, table: TableSchema, existing: Collection[str]) -> list[str]:
        """Return the statements that upgrade a table of version 0.1, whose primary key may be the user's own."""
        keys = self._query(
            "SELECT k.conname, array_agg(a.attname::text) FROM pg_constraint k "
            "JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey) "
            "WHERE k.contype = 'p' AND k.conrelid = %s::regclass GROUP BY k.conname",
            [self.names.of(table.name)],
        )
        return upgrade_postgresql(self.names, table, existing, *keys)

    def delete_rows(self, tables: Collection[str], recognition_ids: pa.Array) -> None:
        """Delete the rows of recognitions, by a temporary table of their ids."""
        import pyarrow as pa

        self.execute(f"CREATE TEMPORARY TABLE {_REPLACED} (recognition_id TEXT NOT NULL) ON COMMIT DROP")
        self._copy(f"COPY {_REPLACED} {_CSV}", iter([pa.record_batch({"recognition_id": recognition_ids})]))
        self.execute(f"ANALYZE {_REPLACED}")
        for table in tables:
            self.execute(
                f"DELETE FROM {self.names.of(table)} t USING {_REPLACED} r "  # noqa: S608 - names are quoted
                "WHERE t.recognition_id = r.recognition_id"
            )
        self.execute(f"DROP TABLE {_REPLACED}")

    def insert(self, table: TableSchema, rows: Iterator[pa.RecordBatch], existing: Collection[str]) -> int:
        """Stream rows into a table and return how many."""
        columns = self.names.columns(table_columns(table, existing))
        return self._copy(f"COPY {self.names.of(table.name)} ({columns}) {_CSV}", rows)

    def _copy(self, statement: str, batches: Iterator[pa.RecordBatch]) -> int:
        pieces = (_as_csv(batch) for batch in batches)
        if hasattr(self._cursor, "copy_expert"):
            # psycopg2 takes a file, and whatever number of bytes a read returns.
            self._cursor.copy_expert(statement, SimpleNamespace(read=lambda size: next(pieces, b"")))
        else:
            with self._cursor.copy(statement) as copy:
                for piece in pieces:
                    copy.write(piece)
        return int(self._cursor.rowcount)


def _as_csv(batch: pa.RecordBatch) -> bytes:
    """Return a batch as PostgreSQL's CSV: null is an empty field, an empty text is ``""``."""
    import pyarrow as pa
    import pyarrow.csv

    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(batch, sink, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
    data: bytes = sink.getvalue().to_pybytes()
    # The one character that PostgreSQL's text can't hold.
    return data.replace(b"\0", "\N{REPLACEMENT CHARACTER}".encode()) if b"\0" in data else data
