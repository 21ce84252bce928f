"""The upgrade of tables of version 0.1, whose key was `operation_id`, to this version's columns and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.warehouse.ddl import Names, add_columns, add_comments, add_keys, sql_type

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow_speechkit.results.schema import TableSchema

#: What to do if a statement fails: the rows or keys that it refuses are the user's own, as 0.1 wrote none of that kind.
HINT = (
    "Nothing was changed. Correct what the statement refuses: rows without a value, rows with the same key, a key or "
    "index of your own on `operation_id`. Or drop the tables: transforming and loading the archive again fills new "
    "ones and costs nothing"
)

#: New columns that have a value in existing rows.
_FILLED = ("recognition_id", "analysis_index", "loaded_at")

_NUMBERED = "row_number() OVER (PARTITION BY operation_id ORDER BY {place}) - 1 AS analysis_index"
_REFUSED = "operation_id LIKE 'refused-%'"


def is_of_version_0_1(columns: Collection[str]) -> bool:
    """Return whether a table with these columns was created by version 0.1."""
    return "operation_id" in columns and "recognition_id" not in columns


def upgrade_postgresql(
    names: Names, table: TableSchema, existing: Collection[str], key: tuple[str, Sequence[str]] | None = None
) -> list[str]:
    """Return the statements for a table in PostgreSQL.

    :param existing: its columns
    :param key: name and columns of its primary key, if it has one
    """
    of, index = names.of(table.name), names.of(f"{table.name}_operation_id")
    statements = [*add_columns(names, table, existing), f"DROP INDEX IF EXISTS {index}"]
    if table.name == "analyses":
        statements.append(
            f"UPDATE {of} a SET analysis_index = n.analysis_index "  # noqa: S608 - names are quoted
            f"FROM (SELECT ctid AS place, {_NUMBERED.format(place='ctid')} FROM {of}) n WHERE a.ctid = n.place"
        )
    changes = ["ALTER recognition_id TYPE TEXT USING operation_id"]
    changes += [f"ALTER {names.quoted(name)} SET NOT NULL" for name in _never_empty(table, existing)]
    if key is not None and list(key[1]) == ["operation_id"]:
        changes += [f"DROP CONSTRAINT {names.quoted(key[0])}", "ALTER operation_id DROP NOT NULL"]
        key = None
    if table.name != "words":
        changes.append(f"ADD {'UNIQUE' if key else 'PRIMARY KEY'} ({names.columns(table.key)})")
    # In one statement, which writes the table once.
    statements.append(f"ALTER TABLE {of} {', '.join(changes)}")
    if table.name == "words":
        statements += add_keys(names, table)
    if table.name == "recognitions":
        statements.append(f"UPDATE {of} SET operation_id = NULL WHERE {_REFUSED}")  # noqa: S608
    return [*statements, *add_comments(names, table)]


def upgrade_duckdb(names: Names, table: TableSchema, existing: Collection[str]) -> list[str]:
    """Return the statements for a table in DuckDB.

    DuckDB can't make a column `NOT NULL` after the same transaction has updated its values, and version 1 can't alter a
    table after the same transaction has changed its rows. So `ALTER` writes the values, and rows are changed last.

    :param existing: the table's columns
    """
    of = names.of(table.name)
    values = {"recognition_id": "operation_id"}
    before, after = [], []
    if table.name == "recognitions":
        values["operation_id"] = f"CASE WHEN {_REFUSED} THEN NULL ELSE operation_id END"
    elif table.name == "analyses":
        values["analysis_index"] = "0"
        before = [
            f"CREATE TEMPORARY TABLE speechkit_numbered AS SELECT *, operation_id AS recognition_id, "  # noqa: S608
            f"{_NUMBERED.format(place='rowid')} FROM {of}",
        ]
        after = [
            f"DELETE FROM {of}",  # noqa: S608
            f"INSERT INTO {of} BY NAME SELECT * FROM speechkit_numbered",  # noqa: S608
            "DROP TABLE speechkit_numbered",
        ]
    types = {column.name: sql_type(names.dialect, table, column) for column in table.columns}
    changes = [f"ALTER {name} TYPE {types[name]} USING {value}" for name, value in values.items()]
    changes += [f"ALTER {names.quoted(name)} SET NOT NULL" for name in _never_empty(table, existing)]
    alter = [f"ALTER TABLE {of} {change}" for change in changes]
    return [*before, *add_columns(names, table, existing), *alter, *add_comments(names, table), *after]


def upgrade_generic(names: Names, table: TableSchema, existing: Collection[str]) -> list[str]:
    """Return the statements for a table in any other database, where it has neither a key nor `NOT NULL`.

    :param existing: the table's columns
    """
    of = names.of(table.name)
    statements = [
        # Some drivers don't begin a transaction with DDL.
        f"UPDATE {of} SET operation_id = operation_id WHERE 1 = 0",  # noqa: S608
        *add_columns(names, table, existing),
        f"UPDATE {of} SET recognition_id = operation_id",  # noqa: S608
    ]
    if table.name == "recognitions":
        statements += [
            f"UPDATE {of} SET loaded_at = CURRENT_TIMESTAMP",  # noqa: S608
            f"UPDATE {of} SET operation_id = NULL WHERE {_REFUSED}",  # noqa: S608
        ]
    return statements


def _never_empty(table: TableSchema, existing: Collection[str]) -> list[str]:
    filled = {*existing, *_FILLED}
    return [column.name for column in table.columns if not column.nullable and column.name in filled]
