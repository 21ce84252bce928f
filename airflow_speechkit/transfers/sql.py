"""The operator that loads what a transform wrote into a database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, BaseHook, BaseOperator, Context

from airflow_speechkit.errors import ConnectionSettingsError, SettingsError, SpeechKitError
from airflow_speechkit.keywords import CheckedFields, Checks, seconds

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_speechkit.warehouse.database import Database
    from airflow_speechkit.warehouse.load import Source


class SpeechKitToSqlOperator(CheckedFields, BaseOperator):
    """Load the tables of a transform into a database, replacing the rows that it has of the same recognitions.

    A load is one transaction: one that fails changes nothing, and one that is repeated doubles nothing, also while
    another load runs. DuckDB reads the files as Arrow batches, PostgreSQL gets them by ``COPY``, and any other database
    with an Airflow hook by batches of inserts. No row's value gets into a log or an error.

    :param tables: what `SpeechKitTransformOperator` returned, or its manifest's path, or a list of these, also the
        lazy sequence of a mapped one; if the upstream returned none at all, the task is skipped (templated)
    :param conn_id: the Airflow connection of the database (templated)
    :param schema: the database's schema; by default the connection's own (templated)
    :param table_prefix: put before the names of tables and views (templated)
    :param create: create missing tables and columns, and the schema; nothing is ever dropped
    :param views: create the views of ``docs/views.md`` (DuckDB and PostgreSQL, with `create` only)
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
        self.set_keywords(locals())

    def execute(self, context: Context) -> dict[str, int]:
        """Load, and return how many rows were written to each table.

        :raises SettingsError: a keyword, or the value of `tables`
        :raises ConnectionSettingsError: the connection
        :raises StorageError: a file or the database
        """
        sources = read_sources(self.tables)
        if not sources:
            # Each instance of a mapped transform was skipped, and the trigger rule lets this task run.
            raise AirflowSkipException("There is nothing to load: the upstream task returned no manifest")
        written = self._load(sources)
        self.log.info("Loaded %s", ", ".join(f"{rows} rows into {table}" for table, rows in written.items()))
        # Empty, and false, until its first outlet is asked for.
        if (events := context.get("outlet_events")) is not None:
            for outlet in self.outlets or ():
                events[outlet].extra = {"rows": {**written}}
        return written

    def _load(self, sources: list[Source]) -> dict[str, int]:
        from airflow_speechkit.warehouse.database import DatabaseWithViews, step
        from airflow_speechkit.warehouse.load import create_views, load

        hook = self._hook()
        try:
            with step("loading", quotes_rows=True), self._open(hook) as database:
                written = load(database, sources, create=self.create)
                try:
                    if self.create and self.views and isinstance(database, DatabaseWithViews):
                        create_views(database)
                except SpeechKitError as error:
                    self.log.warning("The rows are loaded; the views were left as they are: %s", error.what)
                return written
        except SpeechKitError as error:
            failure = error
        # Raised outside of `except`: the driver's error, which may quote a row, would be chained to it.
        failure.__cause__ = failure.__context__ = None
        raise failure.with_traceback(None)

    @contextmanager
    def _open(self, hook: Any) -> Iterator[Database]:
        """Open the hook's database, and close it in the end."""
        from airflow_speechkit.warehouse.database import Database, step
        from airflow_speechkit.warehouse.ddl import Dialect, Names
        from airflow_speechkit.warehouse.duckdb import DuckDB, connect_when_free
        from airflow_speechkit.warehouse.postgresql import PostgreSQL

        dialects = {"duckdb": Dialect.DUCKDB, "postgres": Dialect.POSTGRESQL}
        names = Names(dialects.get(hook.conn_type, Dialect.GENERIC), self.schema, self.table_prefix)
        hint = "Check that the database is up, and what the connection says of it"
        with step(f"connecting with {self.conn_id!r}", hint=hint):
            if names.dialect is Dialect.DUCKDB:
                connection = connect_when_free(hook.get_conn, self.lock_timeout_s)
            else:
                connection = hook.get_conn()
                if hook.supports_autocommit:
                    hook.set_autocommit(connection, False)
        with closing(connection):
            if names.dialect is Dialect.DUCKDB:
                yield DuckDB(connection, names)
            elif names.dialect is Dialect.POSTGRESQL:
                yield PostgreSQL(connection, names, self.lock_timeout_s)
            else:
                yield Database(connection, names, hook.placeholder)

    def _hook(self) -> Any:
        # `BaseHook.get_hook` takes no parameters for the hook before Airflow 3.
        connection: Any = BaseHook.get_connection(self.conn_id)
        try:
            hook = connection.get_hook(hook_params=dict(self.hook_params or {}))
            hook.get_conn, hook.placeholder  # noqa: B018 - other hooks don't have both
        except (AirflowException, ImportError, AttributeError) as error:
            raise ConnectionSettingsError(
                f"The connection {self.conn_id!r} of the type {connection.conn_type!r} has no hook for a database",
                hint="Name the connection of a database, or install the provider that has its hook: for DuckDB and "
                "PostgreSQL airflow-speechkit[duckdb] or [postgres]",
                retry="fails in the same way until then",
            ) from error
        return hook


def read_sources(tables: Any) -> list[Source]:
    """Read the manifests of one transform, a list of them, or the lazy sequence that a mapped transform returns.

    :param tables: what `SpeechKitTransformOperator` returned, or the manifest's path, or several of these
    :raises SettingsError: a value does not lead to a manifest
    :raises StorageError: a manifest can't be read
    """
    if isinstance(tables, (Mapping, str, bytes)) or not isinstance(tables, Iterable):
        return [_read_source(tables)]
    return [_read_source(one) for one in tables]


def _read_source(given: Any) -> Source:
    from airflow_speechkit.hooks.storage import object_storage_path
    from airflow_speechkit.results.manifest import MANIFESTS
    from airflow_speechkit.storage import Folder
    from airflow_speechkit.warehouse.load import Source

    url = given.get("manifest") if isinstance(given, Mapping) else given
    if not isinstance(url, str) or f"/{MANIFESTS}/" not in url or not url.endswith(".json"):
        raise SettingsError(
            f"`tables` takes what SpeechKitTransformOperator returned, not this {type(given).__name__}",
            hint=f"Give `tables=rows.output`, the path of a manifest (…/{MANIFESTS}/….json), or a list of these. If an "
            "older version of the transform returned it, run the transform again",
        )
    target, _, name = url.rpartition(f"/{MANIFESTS}/")
    return Source.read(Folder.at(object_storage_path(target)), f"{MANIFESTS}/{name}")
