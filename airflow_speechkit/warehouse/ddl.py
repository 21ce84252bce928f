"""The tables in SQL: names, types and statements, derived from the Arrow schemas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_speechkit.results.schema import Column, TableSchema

#: Columns whose text is JSON: they have the type JSON where the database has one.
JSON_COLUMNS = frozenset(
    {("recognitions", "labels"), ("recognitions", "settings"), ("recognitions", "parts"), ("analyses", "payload")}
)

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
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
        if self.schema is not None and not self.schema:
            raise SettingsError("`schema` is empty", hint="Remove it to use the connection's own schema")
        if self.dialect is Dialect.GENERIC and self.schema is not None:
            # Databases differ in how they quote names, so names that need quotes are refused.
            for part in self.schema.split("."):
                if not _PLAIN_NAME.fullmatch(part):
                    raise SettingsError("`schema` takes ASCII letters, digits and underscores for this database")

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


def column_definition(names: Names, table: TableSchema, column: Column) -> str:
    """Return a column's name, type and default."""
    default = "" if column.in_files or names.dialect not in _NOW else f" DEFAULT {_NOW[names.dialect]}"
    return f"{names.quoted(column.name)} {sql_type(names.dialect, table, column)}{default}"


def create_table(names: Names, table: TableSchema) -> str:
    """Return the statement that creates a table.

    In PostgreSQL the key is added later, see `add_keys`. In DuckDB there is none: with a key, replacing a million words
    takes fifty times as long.
    """
    parts = [
        column_definition(names, table, column) + ("" if column.nullable else " NOT NULL") for column in table.columns
    ]
    if names.dialect is Dialect.GENERIC:
        parts.append(f"PRIMARY KEY ({names.columns(table.key)})")
    return f"CREATE TABLE {names.of(table.name)} ({', '.join(parts)})"


def add_keys(names: Names, table: TableSchema) -> list[str]:
    """Return the statements that create a table's key once it has its rows.

    `words` has an index only: with a key, replacing words takes 1.4 to 4 times as long.
    """
    if names.dialect is not Dialect.POSTGRESQL:
        return []
    if table.name == "words":
        index = names.quoted(names.bare("words_recognition_id"))
        return [f"CREATE INDEX {index} ON {names.of('words')} (recognition_id)"]
    return [f"ALTER TABLE {names.of(table.name)} ADD PRIMARY KEY ({names.columns(table.key)})"]


def add_references(names: Names, table: TableSchema, *, check: bool) -> list[str]:
    """Return the statements that create a foreign key to `recognitions`. `words` has none, as it slows loads down.

    :param check: whether existing rows are checked
    """
    if names.dialect is not Dialect.POSTGRESQL or table.name not in ("utterances", "analyses"):
        return []
    return [
        f"ALTER TABLE {names.of(table.name)} ADD FOREIGN KEY (recognition_id) REFERENCES {names.of('recognitions')} "
        f"(recognition_id) ON DELETE CASCADE{'' if check else ' NOT VALID'}"
    ]


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
    new = [column for column in table.columns if column.name not in existing]
    alter = f"ALTER TABLE {names.of(table.name)}"
    if names.dialect is not Dialect.DUCKDB:
        return [f"{alter} ADD {column_definition(names, table, column)}" for column in new]
    # DuckDB 1 can't commit if the table is altered again after a column was added with a default.
    added = [f"{alter} ADD {names.quoted(column.name)} {sql_type(names.dialect, table, column)}" for column in new]
    for column in new:
        if not column.in_files:
            name, kind, now = names.quoted(column.name), sql_type(names.dialect, table, column), _NOW[names.dialect]
            added += [f"{alter} ALTER {name} TYPE {kind} USING {now}", f"{alter} ALTER {name} SET DEFAULT {now}"]
    return added


def missing(
    names: Names,
    tables: Collection[TableSchema],
    existing: Mapping[str, Collection[str]],
    upgraded: Collection[TableSchema] = (),
) -> tuple[list[str], list[str]]:
    """Return the statements that create missing tables and columns, and those that create keys.

    Keys come after the rows: over existing rows a key is made in a third of the time.

    :param existing: the columns of the tables that exist, by the tables' names without prefix
    :param upgraded: those of them that this load has upgraded
    :return: statements to run before the rows are written, and after
    """
    before: list[str] = []
    after: list[str] = []
    new = [table for table in tables if table.name not in existing]
    for table in tables:
        if table in new:
            before += [create_table(names, table), *add_comments(names, table)]
            after += add_keys(names, table)
        elif table not in upgraded:
            before += add_columns(names, table, existing[table.name])
    ours = [*new, *upgraded]
    if any(table.name == "recognitions" for table in ours):
        for table in ours:
            after += add_references(names, table, check=table in new)
    return before, after
