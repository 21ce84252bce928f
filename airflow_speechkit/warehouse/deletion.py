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
from airflow_speechkit.warehouse.duckdb import connect_when_free

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_speechkit.storage import Folder

TABLES = ("recognitions", "utterances", "words", "analyses")

#: A schema and a table that mean the same with and without quotes; a schema may have several parts.
_PLAIN = re.compile(r"([a-z_][a-z0-9_]*\.)+[a-z_][a-z0-9_]*")

#: An unfinished file that was not written to for so long was left by a process that was killed.
UNFINISHED_FOR = timedelta(hours=1)

#: How long to wait while another process has a DuckDB file open.
_LOCK_TIMEOUT_S = 30.0


def delete_unfinished_files(target: Folder) -> list[str]:
    """Delete the unfinished files of processes that were killed: any operation's rows may be in them.

    :param target: the folder that the transform wrote to
    :return: those that may still be written to, which are kept
    :raises StorageError: a file can't be deleted
    """
    for table in TABLES:
        for name in target.unfinished(table, untouched_for=UNFINISHED_FOR):
            target.delete(name)
    return [name for table in TABLES for name in target.unfinished(table)]


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
            # Only version 0.1 wrote these for several operations.
            with path.open("rb") as lines:
                if not any(one.encode() in line for line in lines for one in ids):
                    return []
            raise ValueError("not Parquet")
        rows, rows_remaining = _without(path, remaining, ids)
    except (*SURPRISES, pa.ArrowException, OSError) as error:
        raise StorageError(
            f"{target.url_of(name)} may hold rows of these operations, and they can't be deleted: it isn't Parquet, "
            f"or is damaged ({type(error).__name__})",
            hint="Inspect the file, delete it, and forget the operations again. `airflow-speechkit archive export "
            "--answers` and `airflow-speechkit transform` write the tables of others in it again, at no cost",
            retry_can_help=False,
        ) from None
    if rows_remaining == rows:
        return []
    if rows_remaining:
        target.replace(name, remaining)
    else:
        target.delete(name)
    return [name]


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


def delete_rows_in_duckdb(database: str, recognition_ids: Collection[str], names: Names) -> int:
    """Delete the recognitions' rows from the tables of a DuckDB database, in one transaction.

    :param database: its file
    :param names: the names of the tables; without a schema they are searched for in all schemas
    :return: how many rows were deleted
    :raises StorageError: the file can't be opened, another process keeps it open, or it has none of the tables
    """
    import duckdb

    if not Path(database).is_file():
        raise StorageError(f"There is no DuckDB database at {database}", retry_can_help=False)
    connection = connect_when_free(lambda: duckdb.connect(database), _LOCK_TIMEOUT_S)
    tables = [names.bare(table) for table in TABLES]
    deleted = 0
    with connection:
        # Tables of version 0.1 have no `recognition_id`, which is after `operation_id` in the alphabet.
        found = connection.execute(
            "SELECT table_schema, table_name, max(column_name) FROM information_schema.columns "
            "JOIN information_schema.tables USING (table_catalog, table_schema, table_name) "
            "WHERE table_type = 'BASE TABLE' AND list_contains(?, table_name) "
            "AND table_schema = coalesce(?, table_schema) "
            "AND column_name IN ('operation_id', 'recognition_id') GROUP BY ALL",
            [tables, names.schema],
        ).fetchall()
        if not found:
            raise StorageError(
                f"There is none of the tables {', '.join(tables)} in {database}",
                hint="Give the `table_prefix` and the `schema` that SpeechKitToSqlOperator loads them with",
                retry_can_help=False,
            )
        connection.begin()
        for schema, table, key in found:
            [(count,)] = connection.execute(
                f"DELETE FROM {Names(Dialect.DUCKDB, schema).of(table)} WHERE list_contains(?, {key})",  # noqa: S608
                [sorted(recognition_ids)],
            ).fetchall()
            deleted += count
        connection.commit()
        # Deleted rows stay readable in the file until it is rewritten.
        connection.execute("CHECKPOINT")
    return deleted


def delete_statements(recognition_ids: Collection[str], names: Names) -> str:
    """Return the SQL that deletes the recognitions' rows from any other database.

    :param names: the names of the tables; names are quoted only where they have to be, as databases differ in quotes
    """
    if _PLAIN.fullmatch(f"{names.schema or 'main'}.{names.bare('words')}"):
        names = Names(Dialect.GENERIC, names.schema, names.prefix)
    ids = ", ".join(f"'{one}'" for one in sorted(recognition_ids))
    return "\n".join(f"DELETE FROM {names.of(table)} WHERE recognition_id IN ({ids});" for table in TABLES)  # noqa: S608
