"""The operator that loads what a transform wrote into a database."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowNotFoundException,
    AirflowSkipException,
    BaseHook,
    BaseOperator,
)

from airflow_speechkit.errors import ConnectionSettingsError, SettingsError, SpeechKitError
from airflow_speechkit.keywords import seconds
from airflow_speechkit.rendering import CheckedFields, cleaned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_speechkit.keywords import Checks
    from airflow_speechkit.warehouse.ddl import Dialect
    from airflow_speechkit.warehouse.load import Warehouse
    from airflow_speechkit.warehouse.source import Source


class SpeechKitToSqlOperator(CheckedFields, BaseOperator):
    """Load the tables of a transform into a database, in place of what it has of the same operations.

    All of it happens in one transaction: a run that fails leaves nothing behind, one that is repeated doubles
    nothing, also beside another. DuckDB reads the Parquet files itself, PostgreSQL gets them by ``COPY``, any
    other database that has an Airflow hook by batches of inserts. No row's value reaches a log or an error.

    :param tables: what `SpeechKitTransformOperator` returned, or its manifest's path, or a list of these, also the
        lazy sequence of a mapped one; where the upstream has handed on none at all, the task is skipped (templated)
    :param conn_id: the Airflow connection of the database (templated)
    :param schema: the database's schema; the connection's own without one (templated)
    :param table_prefix: put before the names of tables and views (templated)
    :param create: make tables and columns that are missing, and the schema; nothing is ever dropped
    :param views: make the views of ``docs/views.md`` (DuckDB and PostgreSQL, with `create` only)
    :param lock_timeout_s: how long to wait (seconds, or a timedelta) while another process has the DuckDB file open, or
        another transaction a lock in PostgreSQL (templated)
    :param hook_params: keywords for the connection's hook
    """

    template_fields: Sequence[str] = ("tables", "conn_id", "schema", "table_prefix", "lock_timeout_s")
    address_fields = ("tables",)
    typed_fields: ClassVar[Checks] = {"lock_timeout_s": seconds}
    ui_color = "#cfe8d8"

    def __init__(
        self,
        *,
        tables: Any,
        conn_id: str = "duckdb_default",
        schema: str | None = None,
        table_prefix: str = "",
        create: bool = True,
        views: bool = True,
        lock_timeout_s: timedelta | float | str = 300.0,
        hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(tables, (list, tuple)) and not tables:
            raise SettingsError("`tables` is an empty list", hint="Give it what SpeechKitTransformOperator returns")
        self.tables = cleaned(tables)
        self.conn_id = conn_id
        self.schema = schema
        self.table_prefix = table_prefix
        self.create = create
        self.views = views
        self.lock_timeout_s = self.typed("lock_timeout_s", lock_timeout_s)
        self.hook_params = hook_params

    def execute(self, context: Context) -> dict[str, int]:
        """Load, and return how many rows were written to each table.

        :raises SettingsError: a keyword, or what came as `tables`
        :raises ConnectionSettingsError: the connection
        :raises StorageError: a file or the database
        """
        from airflow_speechkit.transfers.manifests import read_manifests

        manifests = read_manifests(self.tables)
        if not manifests:
            # A mapped transform of which every instance was skipped, under a trigger rule that puts up with it.
            raise AirflowSkipException("There is nothing to load: what comes before has handed on no manifest")
        written = self._load(manifests)
        self.log.info("Loaded %s", ", ".join(f"{rows} rows into {table}" for table, rows in written.items()))
        for outlet in self.outlets or ():
            events = context.get("outlet_events")
            if events is not None:
                events[outlet].extra = {"rows": {**written}}
        return written

    def _load(self, sources: Iterable[Source]) -> dict[str, int]:
        from airflow_speechkit.warehouse.driver_errors import told_without_values
        from airflow_speechkit.warehouse.load import WarehouseWithViews, load, show_views
        from airflow_speechkit.warehouse.views import views_for

        hook = self._hook()
        warehouse: Warehouse | None = None
        loaded: dict[str, int] | None = None
        try:
            with _opened(hook, self.schema, self.table_prefix, self.lock_timeout_s) as warehouse:
                loaded = load(warehouse, sources, create=self.create)
                if self.create and self.views and isinstance(warehouse, WarehouseWithViews):
                    show_views(warehouse, views_for(warehouse.names))
                return loaded
        except SpeechKitError as error:
            failure: SpeechKitError = error
        except Exception as error:  # noqa: BLE001 - whatever it is, its message may quote rows
            failure = told_without_values(
                error,
                doing=warehouse.doing if warehouse else f"connecting with {self.conn_id!r}",
                rows_are_in_play=bool(warehouse and warehouse.rows_are_in_play),
                hint=warehouse.hint
                if warehouse
                else "See whether the database is up, and what the connection says of it",
            )
        if loaded is not None:
            self.log.warning("The rows are in; the views were left as they are: %s", failure.what)
            return loaded
        # Raised out here, or the driver's error with the row in it would be chained to it.
        failure.__cause__ = failure.__context__ = None
        raise failure.with_traceback(None)

    def _hook(self) -> Any:
        try:
            # `BaseHook.get_hook` takes no parameters for the hook before Airflow 3.
            connection: Any = BaseHook.get_connection(self.conn_id)
        except AirflowNotFoundException:
            raise ConnectionSettingsError(
                f"There is no connection {self.conn_id!r}",
                hint="Create it, or name another one in `conn_id`",
                retry="ends in the same way until then",
            ) from None
        try:
            hook = connection.get_hook(hook_params=dict(self.hook_params or {}))
        except (AirflowException, ImportError) as error:
            raise ConnectionSettingsError(
                f"There is no hook for the connection {self.conn_id!r} of the type {connection.conn_type!r}",
                hint="Install the provider that brings it: for DuckDB and PostgreSQL airflow-speechkit[duckdb] or "
                "[postgres]",
                retry="ends in the same way until then",
            ) from error
        if not hasattr(hook, "get_conn") or not hasattr(hook, "placeholder"):
            raise ConnectionSettingsError(
                f"The connection {self.conn_id!r} is of the type {getattr(hook, 'conn_type', '?')!r}, "
                "which is not a database's",
                hint="Name a connection whose hook is a DbApiHook",
            )
        return hook


@contextmanager
def _opened(hook: Any, schema: str | None, prefix: str, lock_timeout_s: float) -> Iterator[Warehouse]:
    """Connect to whatever database the hook is for, and close the connection in the end."""
    from airflow_speechkit.warehouse.ddl import Names
    from airflow_speechkit.warehouse.duckdb import DuckDBWarehouse, open_when_free
    from airflow_speechkit.warehouse.generic import GenericWarehouse
    from airflow_speechkit.warehouse.postgresql import PostgresWarehouse

    dialect = _dialect_of(hook)
    names = Names(dialect, schema, prefix)
    if dialect is dialect.DUCKDB:
        with closing(open_when_free(hook, lock_timeout_s)) as connection:
            yield DuckDBWarehouse(connection, names)
        return
    with closing(hook.get_conn()) as connection:
        if hook.supports_autocommit:
            hook.set_autocommit(connection, False)
        if dialect is dialect.POSTGRESQL:
            yield PostgresWarehouse(connection, names, lock_timeout_s)
        else:
            yield GenericWarehouse(connection, names, hook.placeholder)


def _dialect_of(hook: Any) -> Dialect:
    from airflow_speechkit.warehouse.ddl import Dialect

    return {"duckdb": Dialect.DUCKDB, "postgres": Dialect.POSTGRESQL}.get(hook.conn_type, Dialect.GENERIC)
