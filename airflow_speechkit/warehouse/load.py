"""A load, the same for every database: create what is missing, then replace the rows of each recognition."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.warehouse.database import step
from airflow_speechkit.warehouse.ddl import is_of_version_0_1, missing
from airflow_speechkit.warehouse.views import MARK, views_for

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Mapping

    import pyarrow as pa

    from airflow_speechkit.results.manifest import Manifest
    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.storage import Folder
    from airflow_speechkit.warehouse.database import Database, DatabaseWithViews

log = logging.getLogger(__name__)

#: What to do if a statement of an upgrade fails: the rows or keys that it refuses are the user's own.
_UPGRADE_HINT = (
    "Nothing was changed. Correct what the statement refuses: rows without a value, rows with the same key, a key or "
    "index of your own on `operation_id`. Or drop the tables: transforming and loading the archive again fills new "
    "ones and costs nothing"
)


@dataclass(frozen=True)
class Source:
    """The output of one transform.

    :param manifest: which files hold which table
    :param folder: the folder that the files are in
    """

    manifest: Manifest
    folder: Folder

    @classmethod
    def read(cls, folder: Folder, place: str) -> Source:
        """Read a manifest.

        :param folder: the folder that the transform wrote to
        :param place: the manifest's path in it
        :raises StorageError: the manifest is missing, damaged, or can't be read
        """
        from airflow_speechkit.results.files import unusable
        from airflow_speechkit.results.manifest import Manifest

        url = folder.url_of(place)
        try:
            manifest = Manifest.from_json(json.loads(folder.read(place)), url)
            # Only `recognitions` lists every operation, also those that failed or have no utterances.
            manifest.tables["recognitions"]
        except FileNotFoundError:
            raise unusable(f"The manifest {url} does not exist") from None
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
            raise unusable(f"{url} is not a manifest, or is damaged") from None
        return cls(manifest, folder)

    def batches(self, table: TableSchema) -> Generator[pa.RecordBatch]:
        """Read a table's files as batches of the table's own types; files in a bucket are fetched in advance.

        Close the generator if you don't exhaust it.

        :raises StorageError: a file can't be read
        """
        from airflow_speechkit.results.files import rows_of

        paths = self.manifest.tables[table.name].paths
        return rows_of(self.folder, paths, self.manifest.file_format, table.arrow)


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
    with database.transaction():
        with step("reading the tables' columns"):
            if create:
                database.create_schema()
            existing = before = database.columns(TABLES)
            primary_keys = database.primary_keys(TABLES)
        old = [database.names.of(name) for name, columns in before.items() if is_of_version_0_1(columns)]
        keys: list[str] = []
        if create:
            statements, keys = missing(database.names, TABLES, before, primary_keys)
            if statements:
                log.info("Creating what is missing: %d statements, the first: %s", len(statements), statements[0])
            _run(database, statements, _UPGRADE_HINT if old else None)
            existing = {table.name: frozenset(column.name for column in table.columns) for table in TABLES}
        elif old:
            raise SettingsError(
                f"Tables of version 0.1 have no `recognition_id`: {', '.join(old)}",
                hint="Run one load with `create=True`: it upgrades the tables in place and keeps their rows",
            )
        for source in sources:
            with step(f"reading `recognitions` of the manifest {source.manifest.name!r}", quotes_rows=True):
                recognitions = list(source.batches(RECOGNITIONS))
                ids = _recognition_ids(recognitions)
            # Tables that this load created have no index yet: they are searched only for what it has inserted.
            tables = before if loaded.isdisjoint(ids) else existing
            with step("deleting the rows to replace", quotes_rows=True):
                database.delete_rows(tables, ids)
            loaded.update(ids)
            for table in TABLES:
                if table.name in source.manifest.tables:
                    # Those of `recognitions` are few, and have been read already.
                    rows = (one for one in recognitions) if table is RECOGNITIONS else source.batches(table)
                    written[table.name] += _insert(database, table, source, rows, existing)
        _run(database, keys, _UPGRADE_HINT if old else None)
    return written


def _run(database: Database, statements: Iterable[str], hint: str | None) -> None:
    for statement in statements:
        with step(f"running `{statement}`", hint=hint):
            database.execute(statement)


def _recognition_ids(recognitions: Iterable[pa.RecordBatch]) -> list[str]:
    ids = [one for batch in recognitions for one in batch["recognition_id"].to_pylist()]
    if None in ids:
        raise SettingsError(
            "The manifest's files have no `recognition_id`: an earlier version wrote them",
            hint="Run the transform again: it reads the archive and costs nothing",
        )
    return ids


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
    columns = [column for column in table.arrow.names if column in existing[name]]
    if left_out := [column for column in table.arrow.names if column not in columns]:
        log.warning("The table `%s` has no column for %s: left out, as `create` is off", name, ", ".join(left_out))
    inserted = 0
    with closing(batches), step(f"inserting into `{name}`", quotes_rows=True):
        for rows in batches:
            database.insert(table, rows.select(columns), existing[name])
            inserted += rows.num_rows
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
            if view.name in existing and not (comment or "").startswith(MARK):
                log.warning("%s was not created by this package: our view of that name is left out", name)
            elif comment != view.comment:
                with step(f"creating the view {name}"):
                    database.create_view(view)
