"""The tables in SQL: names, types and statements, derived from the Arrow schemas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_speechkit.results.schema import Column, TableSchema

#: Columns whose text is JSON: they have the type JSON where the database has one.
JSON_COLUMNS = frozenset(
    {("recognitions", "labels"), ("recognitions", "settings"), ("recognitions", "parts"), ("analyses", "payload")}
)

_PLAIN_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_PREFIX = re.compile(r"[A-Za-z0-9_]{0,30}")


class Dialect(StrEnum):
    """The SQL that a database understands."""

    DUCKDB = "duckdb"
    POSTGRESQL = "postgresql"
    GENERIC = "generic"


_NUMBERS = {"int64": "BIGINT", "int32": "INTEGER"}
_MOMENT = "timestamp[us, tz=UTC]"
_WITH_ZONE = "TIMESTAMP WITH TIME ZONE"
#: The type for a column by its Arrow type; for text that is JSON, and for text in a key.
_TYPES: dict[Dialect, dict[str, str]] = {
    Dialect.DUCKDB: {**_NUMBERS, "string": "VARCHAR", _MOMENT: _WITH_ZONE, "json": "JSON", "key": "VARCHAR"},
    Dialect.POSTGRESQL: {**_NUMBERS, "string": "TEXT", _MOMENT: _WITH_ZONE, "json": "JSONB", "key": "TEXT"},
    # MySQL takes no TEXT as a key.
    Dialect.GENERIC: {**_NUMBERS, "string": "TEXT", _MOMENT: "TIMESTAMP", "json": "TEXT", "key": "VARCHAR(255)"},
}

#: The default of `loaded_at`, which must not be earlier than that of a load that has committed before. Loads wait for
#: each other: in PostgreSQL after their transaction has begun, whose start `now()` returns; in DuckDB before it begins.
#: In other databases the load inserts the value.
_NOW = {Dialect.DUCKDB: "now()", Dialect.POSTGRESQL: "statement_timestamp()"}

#: The column by which a database addresses a row.
_ROW_ID = {Dialect.DUCKDB: "rowid", Dialect.POSTGRESQL: "ctid"}


def sql_type(dialect: Dialect, table: TableSchema, column: Column) -> str:
    """Return the type of a table's column in a database."""
    if column.name in table.key and str(column.type) == "string":
        return _TYPES[dialect]["key"]
    return _TYPES[dialect]["json" if (table.name, column.name) in JSON_COLUMNS else str(column.type)]


@dataclass(frozen=True)
class Names:
    """The names of the tables and views in a database.

    :param dialect: the database's SQL
    :param schema: the database's schema; None for the connection's own, or if the database has no schemas
    :param prefix: put before each table's and view's name
    """

    dialect: Dialect
    schema: str | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        """Check that names can be made of them.

        :raises SettingsError: one can't be part of a name
        """
        if not _PREFIX.fullmatch(self.prefix):
            raise SettingsError("`table_prefix` takes up to 30 ASCII letters, digits and underscores")
        # Databases differ in how they quote names, so names that need quotes are refused.
        needs_quotes = self.schema is not None and not _PLAIN_SCHEMA.fullmatch(self.schema)
        if self.schema == "" or (needs_quotes and self.dialect is Dialect.GENERIC):
            raise SettingsError(
                f"`schema` can't be {self.schema!r} in this database",
                hint="Remove it to use the connection's own schema",
            )

    def bare(self, table: str) -> str:
        """Return a table's or view's name, unquoted and without its schema."""
        return f"{self.prefix}{table}"

    def quoted(self, name: str) -> str:
        """Return a name as it is written in SQL."""
        if self.dialect is Dialect.GENERIC:
            return name
        return '"' + name.replace('"', '""') + '"'

    def of(self, table: str) -> str:
        """Return a table's or view's name as it is written in SQL, with its schema."""
        name = self.quoted(self.bare(table))
        if self.schema is None:
            return name
        schema = self.schema if self.dialect is Dialect.GENERIC else self.quoted(self.schema)
        return f"{schema}.{name}"

    def columns(self, names: Collection[str]) -> str:
        """Return columns' names as they are written in SQL."""
        return ", ".join(self.quoted(name) for name in names)


def create_table(names: Names, table: TableSchema) -> str:
    """Return the statement that creates a table.

    In PostgreSQL the key is added later, see `add_keys`. In DuckDB there is none: with a key, replacing a million words
    takes fifty times as long.
    """
    parts = []
    for column in table.columns:
        default = "" if column.in_files or names.dialect not in _NOW else f" DEFAULT {_NOW[names.dialect]}"
        required = "" if column.nullable else " NOT NULL"
        parts.append(f"{names.quoted(column.name)} {sql_type(names.dialect, table, column)}{default}{required}")
    if names.dialect is Dialect.GENERIC:
        parts.append(f"PRIMARY KEY ({names.columns(table.key)})")
    return f"CREATE TABLE {names.of(table.name)} ({', '.join(parts)})"


def add_keys(names: Names, table: TableSchema, *, refers: bool, has_key: bool = False) -> list[str]:
    """Return the statements that create a table's keys once it has its rows.

    `words` has an index only: with a key, replacing words takes 1.4 to 4 times as long.

    :param refers: whether it refers to `recognitions`
    :param has_key: whether it has a primary key of the user's own
    """
    if names.dialect is not Dialect.POSTGRESQL:
        return []
    if table.name == "words":
        index = names.quoted(names.bare("words_recognition_id"))
        return [f"CREATE INDEX {index} ON {names.of('words')} (recognition_id)"]
    alter = f"ALTER TABLE {names.of(table.name)} ADD"
    keys = [f"{alter} {'UNIQUE' if has_key else 'PRIMARY KEY'} ({names.columns(table.key)})"]
    if refers and table.name != "recognitions":
        referred = f"{names.of('recognitions')} (recognition_id)"
        keys.append(f"{alter} FOREIGN KEY (recognition_id) REFERENCES {referred} ON DELETE CASCADE")
    return keys


def add_comments(names: Names, table: TableSchema) -> list[str]:
    """Return the statements that describe a table and its columns in the database."""
    if names.dialect is Dialect.GENERIC:
        return []
    comments = {f"TABLE {names.of(table.name)}": f"One row for each: {table.row}."} | {
        f"COLUMN {names.of(table.name)}.{names.quoted(column.name)}": column.about for column in table.columns
    }
    return [f"COMMENT ON {what} IS " + "'" + text.replace("'", "''") + "'" for what, text in comments.items()]


def add_columns(names: Names, table: TableSchema, existing: Collection[str]) -> list[str]:
    """Return the statements that add the columns that an older table lacks. Columns are never dropped or changed.

    :param existing: the table's columns
    """
    alter = f"ALTER TABLE {names.of(table.name)}"
    new = [column for column in table.columns if column.name not in existing]
    added = [f"{alter} ADD {names.quoted(column.name)} {sql_type(names.dialect, table, column)}" for column in new]
    # DuckDB 1 can't commit if the table is altered again after a column was added with a default.
    return added + [
        f"{alter} ALTER {names.quoted(column.name)} SET DEFAULT {_NOW[names.dialect]}"
        for column in new
        if not column.in_files and names.dialect in _NOW
    ]


def _fill_moments(names: Names, table: TableSchema, existing: Collection[str]) -> list[str]:
    """Return the statements that put the time of the load into a new `loaded_at` of older rows."""
    new = [column.name for column in table.columns if not column.in_files and column.name not in existing]
    return [f"UPDATE {names.of(table.name)} SET {names.quoted(name)} = CURRENT_TIMESTAMP" for name in new]  # noqa: S608


def is_of_version_0_1(columns: Collection[str]) -> bool:
    """Return whether a table with these columns was created by version 0.1, whose key was `operation_id`."""
    return "operation_id" in columns and "recognition_id" not in columns


def upgrade(
    names: Names, table: TableSchema, existing: Collection[str], key: tuple[str, Sequence[str]] | None
) -> list[str]:
    """Return the statements that give a table of version 0.1 this version's columns, with values in its rows.

    Rows are changed last: DuckDB 1 can't alter a table after the same transaction has changed its rows.

    :param existing: the table's columns
    :param key: name and columns of its primary key, where it is known to have one
    """
    of = names.of(table.name)
    # Some drivers don't begin a transaction with DDL.
    before = [f"UPDATE {of} SET operation_id = operation_id WHERE 1 = 0"] * (names.dialect is Dialect.GENERIC)  # noqa: S608
    if names.dialect is Dialect.POSTGRESQL:
        before.append(f"DROP INDEX IF EXISTS {names.of(f'{table.name}_operation_id')}")
        if key is not None and _is_of_0_1(key):
            before.append(f"ALTER TABLE {of} DROP CONSTRAINT {names.quoted(key[0])}, ALTER operation_id DROP NOT NULL")
    after = [f"UPDATE {of} SET recognition_id = operation_id"]  # noqa: S608
    if table.name == "recognitions":
        after.append(f"UPDATE {of} SET operation_id = NULL WHERE operation_id LIKE 'refused-%'")  # noqa: S608
    elif table.name == "analyses" and names.dialect in _ROW_ID:
        row = _ROW_ID[names.dialect]
        number = f"row_number() OVER (PARTITION BY operation_id ORDER BY {row}) - 1 AS number"
        after.append(
            f"UPDATE {of} SET analysis_index = numbered.number "  # noqa: S608
            f"FROM (SELECT {row} AS place, {number} FROM {of}) numbered WHERE {of}.{row} = numbered.place"
        )
    added = add_columns(names, table, existing)
    return [*before, *added, *add_comments(names, table), *_fill_moments(names, table, existing), *after]


def _is_of_0_1(key: tuple[str, Sequence[str]]) -> bool:
    return list(key[1]) == ["operation_id"]


def missing(
    names: Names,
    tables: Collection[TableSchema],
    existing: Mapping[str, Collection[str]],
    primary_keys: Mapping[str, tuple[str, Sequence[str]]],
) -> tuple[list[str], list[str]]:
    """Return the statements that create missing tables and columns, and those that create keys.

    Keys come after the rows: over existing rows a key is made in a third of the time.

    :param existing: the columns of the tables that exist, by the tables' names without prefix
    :param primary_keys: the names and columns of their primary keys, where these are known
    :return: statements to run before the rows are written, and after
    """
    before: list[str] = []
    after: list[str] = []
    for table in tables:
        is_new, key = table.name not in existing, primary_keys.get(table.name)
        if is_new:
            before += [create_table(names, table), *add_comments(names, table)]
        elif is_of_version_0_1(existing[table.name]):
            before += upgrade(names, table, existing[table.name], key)
        else:
            before += add_columns(names, table, existing[table.name])
            before += _fill_moments(names, table, existing[table.name])
            continue
        has_key = key is not None and not _is_of_0_1(key)
        after += add_keys(names, table, refers=is_new and "recognitions" not in existing, has_key=has_key)
    return before, after
