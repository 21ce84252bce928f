"""PostgreSQL: rows go in by ``COPY … FROM STDIN``, through psycopg2 or psycopg 3, whichever the hook gives."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_speechkit.warehouse.ddl import Dialect, Names
from airflow_speechkit.warehouse.load import WarehouseWithViews
from airflow_speechkit.warehouse.upgrade import upgrade_postgresql
from airflow_speechkit.warehouse.views import VIEWS, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema

_COPY_BYTES = 1 << 20
_REPLACED = "speechkit_replaced"


class PostgresWarehouse(WarehouseWithViews):
    """A PostgreSQL database.

    :param connection: an open connection to it, not in autocommit mode
    :param names: what the tables are called there
    :param lock_timeout_s: how long to wait for a lock, in seconds
    """

    dialect: ClassVar[Dialect] = Dialect.POSTGRESQL

    def __init__(self, connection: Any, names: Names, lock_timeout_s: float) -> None:
        super().__init__(names)
        self._connection = connection
        self._cursor = _plain_cursor(connection)
        self._lock_timeout_s = lock_timeout_s

    def begin(self) -> None:
        """Start a transaction that has these tables to itself among loads; readers go on as they were."""
        self._query("SELECT set_config('lock_timeout', %s, true)", (f"{int(self._lock_timeout_s * 1000)}ms",))
        # Two loads that insert the same new operation would not see each other's rows. The lock goes with the
        # transaction, however that ends.
        self._query(
            "SELECT pg_advisory_xact_lock(hashtext('airflow_speechkit'), hashtext(coalesce(%s, current_schema(), '')))",
            (self.names.schema,),
        )

    def commit(self) -> None:
        """End it, and keep what it did."""
        self._connection.commit()

    def rollback(self) -> None:
        """End it, and keep nothing."""
        if not self._connection.closed:
            self._connection.rollback()

    def execute(self, statement: str) -> None:
        """Run a statement that holds no row's value."""
        self._cursor.execute(statement)

    def _query(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, values)
        rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        return rows

    def create_schema(self) -> None:
        """Make the schema that the names are in, if it isn't there."""
        schema = self.names.schema
        # Asked first: whoever may not create schemas may still use one that is there.
        if schema is not None and not self._query("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)):
            self.execute(f"CREATE SCHEMA {self.names.quoted(schema)}")

    def columns(self, tables: Collection[TableSchema]) -> dict[str, frozenset[str]]:
        """Return the columns of those tables that exist."""
        by_name = {self.names.bare(table.name): table.name for table in tables}
        rows = self._query(
            "SELECT c.relname, array_agg(a.attname::text) FROM pg_class c "
            "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = coalesce(%s, current_schema()) AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p') "
            "GROUP BY c.relname",
            (self.names.schema, list(by_name)),
        )
        return {by_name[name]: frozenset(columns) for name, columns in rows}

    def upgrade(self, table: TableSchema, there: Collection[str]) -> list[str]:
        """Return the statements that upgrade a table of version 0.1."""
        keys = self._query(
            "SELECT k.conname, array_agg(a.attname::text) FROM pg_constraint k "
            "JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey) "
            "WHERE k.contype = 'p' AND k.conrelid = %s::regclass GROUP BY k.conname",
            (self.names.of(table.name),),
        )
        return upgrade_postgresql(self.names, table, there, *keys)

    def forget(self, tables: Collection[str], recognition_ids: pa.Array) -> None:
        """Delete the recognitions' rows, which a temporary table of their ids finds."""
        import pyarrow as pa

        self.execute(f"CREATE TEMPORARY TABLE {_REPLACED} (recognition_id TEXT NOT NULL) ON COMMIT DROP")
        batch = pa.record_batch({"recognition_id": recognition_ids})
        self._copy(f"COPY {_REPLACED} FROM STDIN WITH (FORMAT csv, ENCODING 'UTF8')", [batch])
        self.execute(f"ANALYZE {_REPLACED}")
        for table in tables:
            self.execute(
                f"DELETE FROM {self.names.of(table)} t USING {_REPLACED} r "  # noqa: S608 - names are quoted
                "WHERE t.recognition_id = r.recognition_id"
            )
        self.execute(f"DROP TABLE {_REPLACED}")

    def insert(self, table: TableSchema, rows: Iterator[pa.RecordBatch], columns: list[str]) -> int:
        """Stream rows into a table."""
        return self._copy(
            f"COPY {self.names.of(table.name)} ({self.names.columns(columns)}) "
            "FROM STDIN WITH (FORMAT csv, ENCODING 'UTF8')",
            rows,
        )

    def _copy(self, statement: str, batches: Iterable[pa.RecordBatch]) -> int:
        chunks = (_as_csv(batch) for batch in batches)
        if hasattr(self._cursor, "copy_expert"):
            self._cursor.copy_expert(statement, io.BufferedReader(_Chunks(chunks), _COPY_BYTES), _COPY_BYTES)
        else:
            with self._cursor.copy(statement) as copy:
                for chunk in chunks:
                    copy.write(chunk)
        return int(self._cursor.rowcount)

    def views(self) -> Mapping[str, str | None]:
        """Return the comments of all tables and views that bear one of our views' names."""
        by_name = {self.names.bare(view): view for view in VIEWS}
        rows = self._query(
            "SELECT c.relname, obj_description(c.oid, 'pg_class') FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = coalesce(%s, current_schema()) AND c.relname = ANY(%s)",
            (self.names.schema, list(by_name)),
        )
        return {by_name[name]: comment for name, comment in rows}

    def create_view(self, view: View) -> None:
        """Make a view, or make it anew, and leave its mark in its comment."""
        self.execute(view.statement)
        self.execute(f"COMMENT ON VIEW {self.names.of(view.name)} IS '{view.comment}'")


def _plain_cursor(connection: Any) -> Any:
    # The connection's own may give dictionaries.
    if type(connection).__module__.startswith("psycopg2"):
        from psycopg2.extensions import cursor  # type: ignore[import-untyped]

        return connection.cursor(cursor_factory=cursor)
    from psycopg.rows import tuple_row

    return connection.cursor(row_factory=tuple_row)


def _as_csv(batch: pa.RecordBatch) -> bytes:
    """Return a batch as PostgreSQL's CSV: no value is an empty field, an empty text is ``""``."""
    import pyarrow as pa
    import pyarrow.csv

    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(batch, sink, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
    data: bytes = sink.getvalue().to_pybytes()
    # The one character that a text of PostgreSQL can't hold.
    return data.replace(b"\0", "\N{REPLACEMENT CHARACTER}".encode()) if b"\0" in data else data


class _Chunks(io.RawIOBase):
    """Byte strings as the file that psycopg2 asks for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is read and nothing else."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill as much of the buffer as the chunk at hand does."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken
