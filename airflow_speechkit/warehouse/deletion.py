"""Remove operations from what was made of their answers: the tables' files, and a DuckDB database."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import StorageError
from airflow_speechkit.parsing import SURPRISES, parse_object

if TYPE_CHECKING:
    from collections.abc import Collection

    import pyarrow as pa

    from airflow_speechkit.storage import Folder

TABLES = ("recognitions", "utterances", "words", "analyses")

#: What means the same with and without quotes; a schema may have several parts.
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", re.ASCII)

#: What nobody has written to for so long was left by a process that was killed.
UNFINISHED_FOR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Files of the tables that aren't finished.

    :param removed: those that nobody has written to for `UNFINISHED_FOR`
    :param left: those that somebody may be writing just now
    """

    removed: list[str]
    left: list[str]


def erase_unfinished(target: Folder) -> Unfinished:
    """Remove what processes were killed while they wrote it: rows of any operation, in files that nobody reads.

    :param target: where the transform wrote the tables
    :raises StorageError: a file can't be removed
    """
    removed = [name for table in TABLES for name in target.unfinished(table, untouched_for=UNFINISHED_FOR)]
    for name in removed:
        target.delete(name)
    return Unfinished(removed=removed, left=[name for table in TABLES for name in target.unfinished(table)])


def erase_from_files(target: Folder, operation_ids: Collection[str]) -> list[str]:
    """Remove the operations' rows from every file of the tables; a file without any other row is removed.

    A file under ``day=…`` holds the operation that it is named after, but for those that were compacted. Manifests
    are left: what they have of an operation is its id.

    :param target: where the transform wrote the tables, or where they were compacted
    :return: the files that held rows of them, or were named after them
    :raises StorageError: a file can't be read or written; it is left as it was
    """
    from airflow_speechkit.results.manifest import COMPACTED_STEM, stem

    ids = frozenset(operation_ids)
    stems = {stem(one) for one in ids}
    changed = []
    for table in TABLES:
        for name in list(target.names(table)):
            file = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
            if file in stems:
                # Named after the operation: it goes even if it is empty.
                target.delete(name)
                changed.append(name)
            elif f"{table}/day=" not in name or file == COMPACTED_STEM:
                with tempfile.TemporaryDirectory(prefix="airflow-speechkit-") as folder:
                    changed += _erase(target, name, table, ids, Path(folder))
    return changed


def _erase(target: Folder, name: str, table: str, ids: frozenset[str], folder: Path) -> list[str]:
    """Remove the operations' rows from a file of many operations; return its name if it had any."""
    import pyarrow as pa

    remover = _REMOVERS.get(name.rpartition(".")[2])
    if remover is None:
        return []
    path, left = Path(target.fetch(name, str(folder / "whole"))), folder / "left"
    try:
        rows, rows_left = remover(path, left, table, ids)
    except (*SURPRISES, pa.ArrowException, OSError) as error:
        raise StorageError(
            f"{target.url_of(name)} isn't a file that the transform wrote, or is damaged "
            f"({type(error).__name__}): it can't be told whether it has rows of these operations",
            hint="See to the file, and remove it if it is of no use",
            retry_can_help=False,
        ) from None
    if rows_left == rows:
        return []
    if rows_left:
        target.put(name, left)
    else:
        target.delete(name)
    return [name]


def _others(rows: pa.Table, ids: frozenset[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    # Version 0.1 had no `recognition_id`.
    key = "recognition_id" if "recognition_id" in rows.column_names else "operation_id"
    return rows.filter(pc.invert(pc.is_in(rows[key], pa.array(sorted(ids), pa.string()))))


def _from_parquet(path: Path, left: Path, table: str, ids: frozenset[str]) -> tuple[int, int]:
    import pyarrow.parquet as pq

    from airflow_speechkit.results.formats import parquet_writer

    rows_left = 0
    with pq.ParquetFile(path) as file, parquet_writer(left, file.schema_arrow) as writer:
        for number in range(file.num_row_groups):
            others = _others(file.read_row_group(number), ids)
            writer.write_table(others)
            rows_left += others.num_rows
        return file.metadata.num_rows, rows_left


def _from_csv(path: Path, left: Path, table: str, ids: frozenset[str]) -> tuple[int, int]:
    import pyarrow.csv as pa_csv

    from airflow_speechkit.results import schema
    from airflow_speechkit.results.formats import FileFormat, write_file

    [columns] = [one.arrow for one in schema.TABLES if one.name == table]
    # An empty text is quoted, a missing one isn't.
    options = pa_csv.ConvertOptions(
        column_types=columns, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
    )
    rows = pa_csv.read_csv(path, convert_options=options, parse_options=pa_csv.ParseOptions(newlines_in_values=True))
    others = _others(rows, ids)
    write_file(left, others, FileFormat.CSV)
    return rows.num_rows, others.num_rows


def _from_json_lines(path: Path, left: Path, table: str, ids: frozenset[str]) -> tuple[int, int]:
    rows = rows_left = 0
    with path.open("rb") as lines, left.open("wb") as others:
        for line in lines:
            rows += 1
            row = parse_object(line)
            if row.get("recognition_id", row.get("operation_id")) not in ids:
                rows_left += 1
                others.write(line)
    return rows, rows_left


_REMOVERS = {"parquet": _from_parquet, "csv": _from_csv, "jsonl": _from_json_lines}


def erase_from_duckdb(
    database: str, operation_ids: Collection[str], *, schema: str | None = None, table_prefix: str = ""
) -> int:
    """Remove the operations' rows from the tables of a DuckDB database, in one transaction.

    :param database: its file
    :param schema: the tables' schema; all schemas without
    :param table_prefix: what stands before each table's name
    :return: how many rows were removed
    :raises StorageError: the file can't be opened, another process has it open, or none of the tables is in it
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
    with connection:
        # Tables of version 0.1 have no `recognition_id`; it comes behind `operation_id` in the alphabet.
        found: list[tuple[str, str, str]] = connection.execute(
            "SELECT table_schema, table_name, max(column_name) FROM information_schema.columns "
            "JOIN information_schema.tables USING (table_catalog, table_schema, table_name) "
            "WHERE table_type = 'BASE TABLE' AND list_contains(?, table_name) AND (? IS NULL OR table_schema = ?) "
            "AND column_name IN ('operation_id', 'recognition_id') GROUP BY ALL",
            [[f"{table_prefix}{table}" for table in TABLES], schema, schema],
        ).fetchall()
        if not found:
            where = database if schema is None else f"schema `{schema}` of {database}"
            raise StorageError(
                f"There is none of the tables {', '.join(f'{table_prefix}{table}' for table in TABLES)} in {where}",
                hint="Give the `table_prefix` and the `schema` that SpeechKitToSqlOperator loads them with",
                retry_can_help=False,
            )
        connection.begin()
        removed = 0
        for table_schema, table, key in found:
            place = f"{_quoted(table_schema)}.{_quoted(table)}"
            row: tuple[Any, ...] | None = connection.execute(
                f"DELETE FROM {place} WHERE list_contains(?, {key})",  # noqa: S608 - both names quoted
                [sorted(operation_ids)],
            ).fetchone()
            removed += int(row[0]) if row else 0
        connection.commit()
        # Deleted rows stay readable in the file until it is rewritten.
        connection.execute("CHECKPOINT")
    return removed


def sql_for(operation_ids: Collection[str], *, schema: str | None = None, table_prefix: str = "") -> str:
    """Return the statements that remove the operations from any other database.

    :param schema: the tables' schema
    :param table_prefix: what stands before each table's name
    """
    quoted = ", ".join(f"'{one}'" for one in sorted(operation_ids))
    names = [_as_needed(f"{table_prefix}{table}") for table in TABLES]
    names = names if schema is None else [f"{_as_needed(schema)}.{name}" for name in names]
    return "\n".join(f"DELETE FROM {name} WHERE recognition_id IN ({quoted});" for name in names)  # noqa: S608


def _as_needed(name: str) -> str:
    """Quote a name only where it has to be: not every database takes these quotes."""
    return name if _PLAIN.fullmatch(name) else _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
