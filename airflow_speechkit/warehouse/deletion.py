"""Delete the rows of recognitions: in the files of the tables, in a DuckDB file, and by SQL for any other database."""

from __future__ import annotations

import re
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_speechkit.errors import StorageError
from airflow_speechkit.parsing import SURPRISES
from airflow_speechkit.warehouse.ddl import Dialect, Names

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_speechkit.storage import Folder

TABLES = ("recognitions", "utterances", "words", "analyses")

#: A name that means the same with and without quotes; a schema may have several parts.
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", re.ASCII)

#: An unfinished file that was not written to for so long was left by a process that was killed.
UNFINISHED_FOR = timedelta(hours=1)


def delete_unfinished_files(target: Folder) -> tuple[list[str], list[str]]:
    """Delete the unfinished files of processes that were killed: any operation's rows may be in them.

    :param target: the folder that the transform wrote to
    :return: the deleted files, and those that may still be written to
    :raises StorageError: a file can't be deleted
    """
    deleted = [name for table in TABLES for name in target.unfinished(table, untouched_for=UNFINISHED_FOR)]
    for name in deleted:
        target.delete(name)
    return deleted, [name for table in TABLES for name in target.unfinished(table)]


def delete_rows_in_files(target: Folder, recognition_ids: Collection[str]) -> list[str]:
    """Delete the recognitions' rows from the files of the tables; a file without other rows is deleted.

    A file under ``day=…`` holds the recognition that it is named after, unless it was compacted. Manifests are kept: of
    a recognition they have its id only.

    :param target: the folder that the transform wrote to, or that the tables were compacted to
    :return: the files that had rows of them, or were named after them
    :raises StorageError: a file can't be read or written, and is left as it was
    """
    from airflow_speechkit.results.manifest import COMPACTED_STEM, stem

    ids = frozenset(recognition_ids)
    stems = {stem(one) for one in ids}
    changed = []
    for table in TABLES:
        for name in list(target.names(table)):
            file = name.rpartition("/")[2].rpartition(".")[0]
            if file in stems:
                # Named after the recognition: it goes even if it is empty.
                target.delete(name)
                changed.append(name)
            elif f"{table}/day=" not in name or file == COMPACTED_STEM:
                with tempfile.TemporaryDirectory(prefix="airflow-speechkit-") as folder:
                    changed += _delete_in_shared_file(target, name, ids, Path(folder))
    return changed


def _delete_in_shared_file(target: Folder, name: str, ids: frozenset[str], folder: Path) -> list[str]:
    """Delete the rows from a file of several recognitions; return its name if it had any."""
    import pyarrow as pa

    ending = name.rpartition(".")[2]
    if ending not in ("parquet", "csv", "jsonl"):
        return []
    path, remaining = Path(target.fetch(name, str(folder / "whole"))), folder / "remaining"
    try:
        if ending != "parquet":
            _check_absent(target.url_of(name), path, ids)
            return []
        rows, rows_remaining = _without(path, remaining, ids)
    except (*SURPRISES, pa.ArrowException, OSError) as error:
        raise StorageError(
            f"{target.url_of(name)} was not written by the transform, or is damaged ({type(error).__name__}): whether "
            "it has rows of these operations is unknown",
            hint="Inspect the file, and delete it if it is not needed",
            retry_can_help=False,
        ) from None
    if rows_remaining == rows:
        return []
    if rows_remaining:
        target.put(name, remaining)
    else:
        target.delete(name)
    return [name]


def _check_absent(url: str, path: Path, ids: frozenset[str]) -> None:
    """Check that a CSV or JSON Lines file, which only version 0.1 wrote for several operations, has no such rows."""
    with path.open("rb") as lines:
        found = {one for line in lines for one in ids if one.encode() in line}
    if found:
        raise StorageError(
            f"{url} holds rows of several operations, {', '.join(sorted(found))} among them, and rows can't be deleted "
            "from CSV and JSON Lines files",
            hint="Delete the file, then forget the operation again. `airflow-speechkit archive export --answers` and "
            "`airflow-speechkit transform` write the other operations' tables again, at no cost",
            retry_can_help=False,
        )


def _without(path: Path, remaining: Path, ids: frozenset[str]) -> tuple[int, int]:
    """Write a Parquet file's other rows to a second file; return how many rows each has."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from airflow_speechkit.results.files import parquet_writer

    rows_remaining = 0
    with pq.ParquetFile(path) as file, parquet_writer(remaining, file.schema_arrow) as writer:
        # Version 0.1 had no `recognition_id`.
        key = "recognition_id" if "recognition_id" in file.schema_arrow.names else "operation_id"
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number)
            others = rows.filter(pc.invert(pc.is_in(rows[key], pa.array(sorted(ids), pa.string()))))
            writer.write_table(others)
            rows_remaining += others.num_rows
        return file.metadata.num_rows, rows_remaining


def delete_rows_in_duckdb(
    database: str, recognition_ids: Collection[str], *, schema: str | None = None, table_prefix: str = ""
) -> int:
    """Delete the recognitions' rows from the tables of a DuckDB database, in one transaction.

    :param database: its file
    :param schema: the tables' schema; None for all schemas
    :param table_prefix: the prefix of the tables' names
    :return: how many rows were deleted
    :raises StorageError: the file can't be opened, another process has it open, or it has none of the tables
    """
    import duckdb

    if not Path(database).is_file():
        raise StorageError(f"There is no DuckDB database at {database}", retry_can_help=False)
    try:
        connection = duckdb.connect(database)
    except duckdb.Error as error:
        raise StorageError(
            f"The DuckDB database {database} can't be opened: {type(error).__name__}",
            hint="Close whatever has it open",
        ) from error
    tables = [f"{table_prefix}{table}" for table in TABLES]
    deleted = 0
    with connection:
        # Tables of version 0.1 have no `recognition_id`, which is after `operation_id` in the alphabet.
        found = connection.execute(
            "SELECT table_schema, table_name, max(column_name) FROM information_schema.columns "
            "JOIN information_schema.tables USING (table_catalog, table_schema, table_name) "
            "WHERE table_type = 'BASE TABLE' AND list_contains(?, table_name) AND (? IS NULL OR table_schema = ?) "
            "AND column_name IN ('operation_id', 'recognition_id') GROUP BY ALL",
            [tables, schema, schema],
        ).fetchall()
        if not found:
            raise StorageError(
                f"There is none of the tables {', '.join(tables)} in {f'schema `{schema}` of ' if schema else ''}"
                f"{database}",
                hint="Give the `table_prefix` and the `schema` that SpeechKitToSqlOperator loads them with",
                retry_can_help=False,
            )
        connection.begin()
        for table_schema, table, key in found:
            name = Names(Dialect.DUCKDB, table_schema).of(table)
            [(count,)] = connection.execute(
                f"DELETE FROM {name} WHERE list_contains(?, {key})",  # noqa: S608 - names are quoted
                [sorted(recognition_ids)],
            ).fetchall()
            deleted += count
        connection.commit()
        # Deleted rows stay readable in the file until it is rewritten.
        connection.execute("CHECKPOINT")
    return deleted


def delete_statements(recognition_ids: Collection[str], *, schema: str | None = None, table_prefix: str = "") -> str:
    """Return the SQL that deletes the recognitions' rows from any other database.

    :param schema: the tables' schema
    :param table_prefix: the prefix of the tables' names
    """
    ids = ", ".join(f"'{one}'" for one in sorted(recognition_ids))
    tables = [
        ".".join(_quoted_if_needed(part) for part in (schema, f"{table_prefix}{table}") if part) for table in TABLES
    ]
    return "\n".join(f"DELETE FROM {table} WHERE recognition_id IN ({ids});" for table in tables)  # noqa: S608


def _quoted_if_needed(name: str) -> str:
    """Quote a name only where it has to be: not every database understands these quotes."""
    return name if _PLAIN.fullmatch(name) else Names(Dialect.DUCKDB).quoted(name)
