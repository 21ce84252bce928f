"""A load, the same for every database: create what is missing, then replace the rows of each recognition."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SettingsError, SpeechKitError, StorageError
from airflow_speechkit.warehouse.database import table_columns
from airflow_speechkit.warehouse.ddl import missing
from airflow_speechkit.warehouse.driver_errors import step
from airflow_speechkit.warehouse.upgrade import HINT, is_of_version_0_1
from airflow_speechkit.warehouse.views import View, views_for

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator, Mapping

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.warehouse.database import Database, DatabaseWithViews
    from airflow_speechkit.warehouse.source import Source

log = logging.getLogger(__name__)


def load(database: Database, sources: Iterable[Source], *, create: bool) -> dict[str, int]:
    """Replace the rows of all the sources' recognitions in one transaction.

    A recognition in two sources is loaded once, from the later one.

    :param database: where to
    :param sources: what transforms wrote
    :param create: create missing tables and columns, and the schema
    :return: how many rows were written to each table
    :raises SettingsError: tables or columns don't fit
    :raises StorageError: a file can't be read, or the database refuses a statement
    """
    from airflow_speechkit.results.schema import RECOGNITIONS, TABLES

    written = dict.fromkeys((table.name for table in TABLES), 0)
    loaded: set[str] = set()
    after: list[str] = []
    with database.transaction():
        with step("reading the tables' columns"):
            if create:
                database.create_schema()
            existing = before = database.columns(TABLES)
        old = [table for table in TABLES if is_of_version_0_1(before.get(table.name, ()))]
        if create:
            after = _create_missing(database, TABLES, before, old)
            with step("reading the tables' columns"):
                existing = database.columns(TABLES)
        elif old:
            raise SettingsError(
                f"The table {database.names.of(old[0].name)} was made by version 0.1: it has no `recognition_id`",
                hint="Run one load with `create=True`: it upgrades the tables in place and keeps their rows",
            )
        for source in sources:
            with step(f"reading `recognitions` of the manifest {source.manifest.name!r}", quotes_rows=True):
                recognitions = list(source.batches(RECOGNITIONS))
                ids = _recognition_ids(recognitions)
            with step("deleting the rows to replace", quotes_rows=True):
                _delete_replaced(database, ids, loaded, existing, before)
            for table in TABLES:
                if table.name in source.manifest.tables:
                    # Those of `recognitions` are few, and have been read already.
                    rows = (one for one in recognitions) if table is RECOGNITIONS else source.batches(table)
                    written[table.name] += _insert(database, table, source, rows, existing)
        _run(database, after)
    return written


def _create_missing(
    database: Database,
    tables: Collection[TableSchema],
    existing: Mapping[str, Collection[str]],
    old: Collection[TableSchema],
) -> list[str]:
    """Upgrade old tables, create what is missing, and return the statements to run after the rows are written."""
    for table in old:
        log.info("Upgrading the table %s of version 0.1", database.names.of(table.name))
        _run(database, database.upgrade(table, existing[table.name]), hint=HINT)
    before, after = missing(database.names, tables, existing, old)
    if before:
        log.info("Creating what is missing: %d statements, the first: %s", len(before), before[0])
        _run(database, before)
    return after


def _run(database: Database, statements: Iterable[str], hint: str | None = None) -> None:
    for statement in statements:
        with step(f"running `{statement}`", hint=hint):
            database.execute(statement)


def _recognition_ids(recognitions: list[pa.RecordBatch]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = [batch["recognition_id"] for batch in recognitions]
    if any(some.null_count for some in ids):
        raise SettingsError(
            "The manifest's files have no `recognition_id`: an earlier version wrote them",
            hint="Run the transform again: it reads the archive and costs nothing",
        )
    return pc.unique(pa.chunked_array(ids, pa.string()))


def _delete_replaced(
    database: Database, ids: pa.Array, loaded: set[str], existing: Collection[str], before: Collection[str]
) -> None:
    """Delete the rows of recognitions that are about to be inserted.

    Tables that this load created have no index yet: they are searched only for recognitions that it has inserted.

    :param loaded: what this load has inserted so far; the ids are added
    :param existing: the tables
    :param before: those that existed before this load
    """
    import pyarrow as pa

    again = pa.array([one for one in ids.to_pylist() if one in loaded], pa.string())
    for tables, some in (
        ([table for table in existing if table in before], ids),
        ([table for table in existing if table not in before], again),
    ):
        if tables and len(some):
            database.delete_rows(tables, some)
    loaded.update(ids.to_pylist())


def _insert(
    database: Database,
    table: TableSchema,
    source: Source,
    batches: Generator[pa.RecordBatch],
    existing: Mapping[str, Collection[str]],
) -> int:
    """Insert a source's rows of a table and return how many."""
    expected, name = source.manifest.tables[table.name].rows, table.name
    if name not in existing:
        if not expected:
            return 0
        raise SettingsError(
            f"There is no table {database.names.of(name)} in the database",
            hint="Let the operator create it with `create=True`, or create it yourself",
        )
    columns = table_columns(table, existing[name])
    if left_out := [column for column in table.arrow.names if column not in columns]:
        log.warning("The table `%s` has no column for %s: left out, as `create` is off", name, ", ".join(left_out))
    failures: list[SpeechKitError] = []

    def rows() -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                yield batch.select(columns)
        except SpeechKitError as error:
            failures.append(error)
            raise

    with closing(batches), step(f"inserting into `{name}`", quotes_rows=True):
        try:
            inserted = database.insert(table, rows(), existing[name])
        except Exception:
            # A driver that reads the rows itself replaces the reader's error by its own.
            if failures:
                raise failures[0] from None
            raise
    if inserted != expected:
        raise StorageError(
            f"The files of the manifest {source.manifest.name!r} hold {inserted} rows for `{name}`, "
            f"the manifest says {expected}",
            hint="They were written again in the meantime: run the load after that transform",
            retry="reads them again",
        )
    return inserted


def create_views(database: DatabaseWithViews) -> None:
    """Create the views that are missing, and replace those that another version of this package created.

    A table or view of the user's own with such a name is kept.

    :raises StorageError: the database refuses a view; none is changed then
    """
    with database.transaction():
        with step("reading the views' comments"):
            existing = database.view_comments()
        for view in views_for(database.names):
            name, comment = database.names.of(view.name), existing.get(view.name)
            if view.name in existing and not View.is_ours(comment):
                log.warning("%s was not created by this package: our view of that name is left out", name)
            elif comment != view.comment:
                with step(f"creating the view {name}"):
                    database.create_view(view)
