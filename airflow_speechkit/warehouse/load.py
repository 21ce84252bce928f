"""A load, the same for every database: shape the tables, then replace the rows of each recognition, all in one go."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar

from airflow_speechkit.errors import SettingsError, SpeechKitError, StorageError
from airflow_speechkit.warehouse.ddl import Dialect, Names, Shaping
from airflow_speechkit.warehouse.upgrade import HINT, is_of_version_0_1

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.warehouse.source import Source
    from airflow_speechkit.warehouse.views import View

log = logging.getLogger(__name__)


class Warehouse(ABC):
    """An open connection to a database, seen as a place for our tables.

    :param names: what the tables are called there
    """

    dialect: ClassVar[Dialect]

    def __init__(self, names: Names) -> None:
        self.names = names
        #: For the error's message: what is going on right now, and whether a driver's message may quote a row.
        self.doing = "connecting"
        self.rows_are_in_play = False
        self.hint: str | None = None

    def do(self, doing: str, *, rows_are_in_play: bool = False, hint: str | None = None) -> None:
        """Note what is going on from here on, and what a person can do if it fails."""
        self.doing, self.rows_are_in_play, self.hint = doing, rows_are_in_play, hint

    @abstractmethod
    def begin(self) -> None:
        """Start a transaction in which no other load changes these tables."""

    @abstractmethod
    def commit(self) -> None:
        """End it, and keep what it did."""

    @abstractmethod
    def rollback(self) -> None:
        """End it, and keep nothing."""

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Run a statement that holds no row's value."""

    @abstractmethod
    def create_schema(self) -> None:
        """Make the schema that the names are in, if it isn't there."""

    @abstractmethod
    def columns(self, tables: Collection[TableSchema]) -> dict[str, frozenset[str]]:
        """Return the columns of those tables that exist, by the tables' names without their prefix."""

    @abstractmethod
    def upgrade(self, table: TableSchema, there: Collection[str]) -> list[str]:
        """Return the statements that bring a table of version 0.1 to this version's columns and keys.

        :param there: its columns
        """

    @abstractmethod
    def forget(self, tables: Collection[str], recognition_ids: pa.Array) -> None:
        """Delete the recognitions' rows.

        :param tables: the tables' names without their prefix
        :param recognition_ids: distinct ids
        """

    @abstractmethod
    def insert(self, table: TableSchema, rows: Iterator[pa.RecordBatch], columns: list[str]) -> int:
        """Add rows to a table and return how many.

        :param rows: batches of just these columns
        :param columns: which of the table's columns they have, in that order
        """


class WarehouseWithViews(Warehouse):
    """One in whose SQL our views are written."""

    @abstractmethod
    def views(self) -> Mapping[str, str | None]:
        """Return the comments of all tables and views that bear one of our views' names."""

    @abstractmethod
    def create_view(self, view: View) -> None:
        """Make a view, or make it anew, and leave its mark in its comment."""


def load(warehouse: Warehouse, sources: Iterable[Source], *, create: bool) -> dict[str, int]:
    """Replace the rows of all the manifests' recognitions in one transaction.

    A later manifest's recognition takes the place of an earlier one's, so none is doubled.

    :param warehouse: where to
    :param sources: what
    :param create: make what is missing of tables and columns
    :returns: how many rows were written to each table
    """
    from airflow_speechkit.results.schema import RECOGNITIONS, TABLES

    warehouse.do("starting the transaction")
    try:
        warehouse.begin()
        warehouse.do("looking at the tables")
        if create:
            warehouse.create_schema()
        there = before = warehouse.columns(TABLES)
        old = [table for table in TABLES if is_of_version_0_1(there.get(table.name, ()))]
        if old and not create:
            raise SettingsError(
                f"The table {warehouse.names.of(old[0].name)} was made by version 0.1: it has no `recognition_id`",
                hint="Run one load with `create=True`: it upgrades the tables in place and keeps their rows",
            )
        after: tuple[str, ...] = ()
        if create:
            after = _shape(warehouse, TABLES, there, old)
            there = warehouse.columns(TABLES)
        written = dict.fromkeys((table.name for table in TABLES), 0)
        loaded: set[str] = set()
        for source in sources:
            warehouse.do(f"reading `recognitions` of the manifest {source.manifest.name!r}", rows_are_in_play=True)
            recognitions = list(source.batches(RECOGNITIONS))
            _forget(warehouse, _recognition_ids(recognitions), loaded, there, before)
            for name, rows in _insert_all(warehouse, TABLES, source, recognitions, there).items():
                written[name] += rows
        _run(warehouse, after)
        warehouse.do("committing", rows_are_in_play=True)
        warehouse.commit()
    except BaseException:
        warehouse.rollback()
        raise
    return written


def _shape(
    warehouse: Warehouse,
    tables: Collection[TableSchema],
    there: Mapping[str, Collection[str]],
    old: Collection[TableSchema],
) -> tuple[str, ...]:
    """Upgrade old tables, make what is missing, and return the statements that are to follow the rows."""
    for table in old:
        log.info("Upgrading the table %s of version 0.1", warehouse.names.of(table.name))
        _run(warehouse, warehouse.upgrade(table, there[table.name]), hint=HINT)
    shaping = Shaping.of(warehouse.names, tables, there, old)
    if shaping.before:
        log.info("Making what is missing: %d statements, the first: %s", len(shaping.before), shaping.before[0])
        _run(warehouse, shaping.before)
    return shaping.after


def _run(warehouse: Warehouse, statements: Iterable[str], hint: str | None = None) -> None:
    for statement in statements:
        warehouse.do(f"running `{statement}`", hint=hint)
        warehouse.execute(statement)


def _forget(
    warehouse: Warehouse, ids: pa.Array, loaded: set[str], there: Collection[str], before: Collection[str]
) -> None:
    """Delete the recognitions' rows, in tables made by this load only where it has loaded them already.

    :param loaded: what this load has loaded so far; the ids are added
    :param there: the tables
    :param before: those that were there before this load: the others are empty so far, and have no index yet
    """
    import pyarrow as pa

    warehouse.do("deleting what is replaced", rows_are_in_play=True)
    again = [one for one in ids.to_pylist() if one in loaded]
    for tables, some in (
        ([one for one in there if one in before], ids),
        ([one for one in there if one not in before], pa.array(again, pa.string())),
    ):
        if tables and len(some):
            warehouse.forget(tables, some)
    loaded.update(ids.to_pylist())


def _insert_all(
    warehouse: Warehouse,
    tables: Collection[TableSchema],
    source: Source,
    recognitions: list[pa.RecordBatch],
    there: Mapping[str, frozenset[str]],
) -> dict[str, int]:
    written: dict[str, int] = {}
    for table in tables:
        files = source.manifest.tables.get(table.name)
        if files is None:
            continue
        if table.name not in there:
            if files.rows == 0:
                continue
            raise SettingsError(
                f"There is no table {warehouse.names.of(table.name)} in the database",
                hint="Let the operator make it with `create=True`, or make it yourself",
            )
        # Those of `recognitions` are few, and have been read already.
        read = (one for one in recognitions) if table.name == "recognitions" else source.batches(table)
        with closing(read):
            rows = _insert(warehouse, table, read, there[table.name])
        if rows != files.rows:
            raise StorageError(
                f"The files of the manifest {source.manifest.name!r} hold {rows} rows for `{table.name}`, "
                f"the manifest says {files.rows}",
                hint="They were written anew in the meantime: run the load after that transform",
                retry="reads them again",
            )
        written[table.name] = rows
    return written


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


def _insert(warehouse: Warehouse, table: TableSchema, read: Iterator[pa.RecordBatch], there: Collection[str]) -> int:
    warehouse.do(f"inserting into `{table.name}`", rows_are_in_play=True)
    columns = [name for name in table.arrow.names if name in there]
    if len(columns) < len(table.arrow.names):
        left_out = ", ".join(name for name in table.arrow.names if name not in there)
        log.warning("The table `%s` has no column for %s: left out, as `create` is off", table.name, left_out)
    failures: list[SpeechKitError] = []

    def rows() -> Iterator[pa.RecordBatch]:
        try:
            for batch in read:
                yield batch.select(columns)
        except SpeechKitError as error:
            failures.append(error)
            raise

    try:
        return warehouse.insert(table, rows(), columns)
    except Exception:
        # Drivers that read the rows themselves make an error of their own of it.
        if failures:
            raise failures[0] from None
        raise


def show_views(warehouse: WarehouseWithViews, views: Collection[View]) -> None:
    """Make the views that are missing or older than this package's; a failure is told and leaves the rows be.

    A table or view that somebody else made under such a name is left alone.
    """
    warehouse.do("looking at the views")
    try:
        warehouse.begin()
        there = warehouse.views()
        for view in views:
            _show_view(warehouse, view, there)
        warehouse.commit()
    except BaseException:
        warehouse.rollback()
        raise


def _show_view(warehouse: WarehouseWithViews, view: View, there: Mapping[str, str | None]) -> None:
    comment = there.get(view.name, "")
    if comment == view.comment:
        return
    if view.name in there and not view.is_ours(comment):
        log.warning("%s is somebody else's: our view of that name is not made", warehouse.names.of(view.name))
        return
    warehouse.do(f"making the view {warehouse.names.of(view.name)}")
    warehouse.create_view(view)
