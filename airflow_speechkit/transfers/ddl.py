"""The tables as a database's own: names, types and statements, derived from the Arrow schemas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pyarrow as pa

    from airflow_speechkit.results.schema import TableSchema

#: Columns whose text is JSON, and which a database that knows JSON keeps as such.
JSON_COLUMNS = frozenset({("recognitions", "labels"), ("analyses", "payload")})

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PREFIX = re.compile(r"[A-Za-z0-9_]{0,30}")


class Dialect(StrEnum):
    """Whose SQL it is."""

    DUCKDB = "duckdb"
    POSTGRESQL = "postgresql"
    GENERIC = "generic"


#: What holds a column of an Arrow type, and one whose text is JSON.
_TYPES: dict[Dialect, dict[str, str]] = {
    Dialect.DUCKDB: {
        "int64": "BIGINT",
        "int32": "INTEGER",
        "string": "VARCHAR",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
        "json": "JSON",
    },
    Dialect.POSTGRESQL: {
        "int64": "BIGINT",
        "int32": "INTEGER",
        "string": "TEXT",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
        "json": "JSONB",
    },
    Dialect.GENERIC: {
        "int64": "BIGINT",
        "int32": "INTEGER",
        "string": "TEXT",
        "timestamp[us, tz=UTC]": "TIMESTAMP",
        "json": "TEXT",
    },
}


def sql_type(dialect: Dialect, table: str, field: pa.Field) -> str:
    """Return the type of a column in a database.

    :param dialect: the database's
    :param table: the table's name, without any prefix
    :param field: the column
    """
    return _TYPES[dialect]["json" if (table, field.name) in JSON_COLUMNS else str(field.type)]


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
            raise SettingsError("`schema` is empty", todo="Leave it out to use the connection's own schema")
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


def create_table(names: Names, table: TableSchema) -> str:
    """Return the statement that makes a table."""
    columns = [f"{names.quoted(field.name)} {sql_type(names.dialect, table.name, field)}" for field in table.arrow]
    if names.dialect is Dialect.POSTGRESQL and _has_one_row_each(table):
        columns.append(f"PRIMARY KEY ({names.quoted('operation_id')})")
    return f"CREATE TABLE {names.of(table.name)} ({', '.join(columns)})"


def create_indexes(names: Names, table: TableSchema) -> list[str]:
    """Return the statements that make what finds an operation's rows in a table quickly.

    DuckDB gets neither key nor index: it skips row groups by their statistics, and checks a key against rows
    that the same transaction has just deleted.
    """
    if names.dialect is not Dialect.POSTGRESQL or _has_one_row_each(table):
        return []
    index = names.quoted(f"{names.bare(table.name)}_operation_id")
    return [f"CREATE INDEX {index} ON {names.of(table.name)} ({names.quoted('operation_id')})"]


def _has_one_row_each(table: TableSchema) -> bool:
    return table.key == ("operation_id",)


def add_columns(names: Names, table: TableSchema, there: Collection[str]) -> list[str]:
    """Return the statements that add the columns that an older table lacks. None is ever dropped or changed.

    :param there: the columns that it has
    """
    return [
        f"ALTER TABLE {names.of(table.name)} ADD {names.quoted(field.name)} "
        f"{sql_type(names.dialect, table.name, field)}"
        for field in table.arrow
        if field.name not in there
    ]


@dataclass(frozen=True)
class Shaping:
    """The statements after which every table, column and index is there; none if they are already.

    :param before: to run before the rows are written
    :param after: to run after that: an index over rows that are there is made in a third of the time
    """

    before: tuple[str, ...]
    after: tuple[str, ...]

    @classmethod
    def of(cls, names: Names, tables: Collection[TableSchema], there: Mapping[str, Collection[str]]) -> Shaping:
        """Compare what there is with what there should be.

        :param there: the columns of the tables that exist, by the tables' names without their prefix
        """
        before: list[str] = []
        after: list[str] = []
        for table in tables:
            if table.name in there:
                before += add_columns(names, table, there[table.name])
            else:
                before.append(create_table(names, table))
                after += create_indexes(names, table)
        return cls(tuple(before), tuple(after))
