"""The tables as a database's own: names, types and statements, derived from the Arrow schemas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_speechkit.results.schema import Column, TableSchema

#: Columns whose text is JSON, and which a database that knows JSON keeps as such.
JSON_COLUMNS = frozenset(
    {("recognitions", "labels"), ("recognitions", "settings"), ("recognitions", "parts"), ("analyses", "payload")}
)

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PREFIX = re.compile(r"[A-Za-z0-9_]{0,30}")


class Dialect(StrEnum):
    """Whose SQL it is."""

    DUCKDB = "duckdb"
    POSTGRESQL = "postgresql"
    GENERIC = "generic"


#: What holds a column of an Arrow type, one whose text is JSON, and the key's text.
_TYPES: dict[Dialect, dict[str, str]] = {
    Dialect.DUCKDB: {
        "int64": "BIGINT",
        "int32": "INTEGER",
        "string": "VARCHAR",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
        "json": "JSON",
        "key": "VARCHAR",
    },
    Dialect.POSTGRESQL: {
        "int64": "BIGINT",
        "int32": "INTEGER",
        "string": "TEXT",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
        "json": "JSONB",
        "key": "TEXT",
    },
    Dialect.GENERIC: {
        "int64": "BIGINT",
        "int32": "INTEGER",
        "string": "TEXT",
        "timestamp[us, tz=UTC]": "TIMESTAMP",
        "json": "TEXT",
        # MySQL takes no TEXT as a key.
        "key": "VARCHAR(255)",
    },
}

#: What sets `loaded_at`. It must not be earlier than that of a load that committed before, and loads wait for each
#: other: in PostgreSQL after their transaction has begun, which is what `now()` tells; in DuckDB before that.
#: Elsewhere the load gives the value.
_NOW = {Dialect.DUCKDB: "now()", Dialect.POSTGRESQL: "statement_timestamp()"}


def sql_type(dialect: Dialect, table: TableSchema, column: Column) -> str:
    """Return the type of a table's column in a database."""
    if column.name in table.key and str(column.type) == "string":
        return _TYPES[dialect]["key"]
    return _TYPES[dialect]["json" if (table.name, column.name) in JSON_COLUMNS else str(column.type)]


@dataclass(frozen=True)
class Names:
    """What the tables and views are called in a database.

    :param dialect: the database's
    :param schema: the database's schema; None where it has none, or the connection's own is meant
    :param prefix: put before each table's and view's name
    """

    dialect: Dialect
    schema: str | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        """Refuse what can't be a name.

        :raises SettingsError: naming the keyword
        """
        if not _PREFIX.fullmatch(self.prefix):
            raise SettingsError("`table_prefix` takes up to 30 ASCII letters, digits and underscores")
        if self.schema is not None and not self.schema:
            raise SettingsError("`schema` is empty", hint="Leave it out to use the connection's own schema")
        if self.dialect is Dialect.GENERIC and self.schema is not None:
            # How quotes are written differs between databases, so nothing that needs them is taken.
            for part in self.schema.split("."):
                if not _PLAIN_NAME.fullmatch(part):
                    raise SettingsError("`schema` takes ASCII letters, digits and underscores for this database")

    def bare(self, table: str) -> str:
        """Return a table's or view's name, unquoted and without its schema."""
        return f"{self.prefix}{table}"

    def quoted(self, name: str) -> str:
        """Return a name as SQL takes it."""
        if self.dialect is Dialect.GENERIC:
            return name
        return '"' + name.replace('"', '""') + '"'

    def of(self, table: str) -> str:
        """Return a table's or view's name as SQL takes it, with its schema."""
        name = self.quoted(self.bare(table))
        if self.schema is None:
            return name
        schema = self.schema if self.dialect is Dialect.GENERIC else self.quoted(self.schema)
        return f"{schema}.{name}"

    def columns(self, names: Collection[str]) -> str:
        """Return columns' names as SQL takes them."""
        return ", ".join(self.quoted(name) for name in names)


def column_definition(names: Names, table: TableSchema, column: Column) -> str:
    """Return a column's name, type and default."""
    default = "" if column.in_files or names.dialect not in _NOW else f" DEFAULT {_NOW[names.dialect]}"
    return f"{names.quoted(column.name)} {sql_type(names.dialect, table, column)}{default}"


def create_table(names: Names, table: TableSchema) -> str:
    """Return the statement that makes a table.

    PostgreSQL gets the key later, see `add_keys`. DuckDB gets none: with it a load that replaces a million words takes
    fifty times as long.
    """
    parts = [
        column_definition(names, table, column) + ("" if column.nullable else " NOT NULL") for column in table.columns
    ]
    if names.dialect is Dialect.GENERIC:
        parts.append(f"PRIMARY KEY ({names.columns(table.key)})")
    return f"CREATE TABLE {names.of(table.name)} ({', '.join(parts)})"


def add_keys(names: Names, table: TableSchema) -> list[str]:
    """Return the statements that make a table's key, once it has its rows.

    `words` gets an index only: with a key a load that replaces words takes 1.4 to 4 times as long.
    """
    if names.dialect is not Dialect.POSTGRESQL:
        return []
    if table.name == "words":
        index = names.quoted(names.bare("words_recognition_id"))
        return [f"CREATE INDEX {index} ON {names.of('words')} (recognition_id)"]
    return [f"ALTER TABLE {names.of(table.name)} ADD PRIMARY KEY ({names.columns(table.key)})"]


def add_references(names: Names, table: TableSchema, *, check: bool) -> list[str]:
    """Return the statements that tie a table's rows to those of `recognitions`, as far as loads stay as fast.

    :param check: whether the rows that are there are checked
    """
    if names.dialect is not Dialect.POSTGRESQL or table.name not in ("utterances", "analyses"):
        return []
    return [
        f"ALTER TABLE {names.of(table.name)} ADD FOREIGN KEY (recognition_id) REFERENCES {names.of('recognitions')} "
        f"(recognition_id) ON DELETE CASCADE{'' if check else ' NOT VALID'}"
    ]


def add_comments(names: Names, table: TableSchema) -> list[str]:
    """Return the statements that say in the database what the table and its columns are."""
    if names.dialect is Dialect.GENERIC:
        return []
    said = {f"TABLE {names.of(table.name)}": f"One row for each: {table.row}."} | {
        f"COLUMN {names.of(table.name)}.{names.quoted(column.name)}": column.about for column in table.columns
    }
    return [f"COMMENT ON {what} IS " + "'" + text.replace("'", "''") + "'" for what, text in said.items()]


def add_columns(names: Names, table: TableSchema, there: Collection[str]) -> list[str]:
    """Return the statements that add the columns that an older table lacks. None is ever dropped or changed.

    :param there: the columns that it has
    """
    new = [column for column in table.columns if column.name not in there]
    alter = f"ALTER TABLE {names.of(table.name)}"
    if names.dialect is not Dialect.DUCKDB:
        return [f"{alter} ADD {column_definition(names, table, column)}" for column in new]
    # DuckDB 1 can't commit where the table is altered again after a column came with a default.
    added = [f"{alter} ADD {names.quoted(column.name)} {sql_type(names.dialect, table, column)}" for column in new]
    for column in new:
        if not column.in_files:
            name, kind, now = names.quoted(column.name), sql_type(names.dialect, table, column), _NOW[names.dialect]
            added += [f"{alter} ALTER {name} TYPE {kind} USING {now}", f"{alter} ALTER {name} SET DEFAULT {now}"]
    return added


@dataclass(frozen=True)
class Shaping:
    """The statements after which every table, column and key is there; none if they are already.

    :param before: to run before the rows are written
    :param after: to run after that: a key over rows that are there is made in a third of the time
    """

    before: tuple[str, ...]
    after: tuple[str, ...]

    @classmethod
    def of(
        cls,
        names: Names,
        tables: Collection[TableSchema],
        there: Mapping[str, Collection[str]],
        upgraded: Collection[TableSchema] = (),
    ) -> Shaping:
        """Compare what there is with what there should be.

        :param there: the columns of the tables that exist, by the tables' names without their prefix
        :param upgraded: those of them that this load has upgraded
        """
        before: list[str] = []
        after: list[str] = []
        new = [table for table in tables if table.name not in there]
        for table in tables:
            if table in new:
                before += [create_table(names, table), *add_comments(names, table)]
                after += add_keys(names, table)
            elif table not in upgraded:
                before += add_columns(names, table, there[table.name])
        ours = [*new, *upgraded]
        if any(table.name == "recognitions" for table in ours):
            for table in ours:
                after += add_references(names, table, check=table in new)
        return cls(tuple(before), tuple(after))
