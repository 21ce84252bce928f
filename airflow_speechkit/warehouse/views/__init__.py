"""The views that analysts start from, as SQL files that DuckDB and PostgreSQL both understand.

Each file is one statement that runs unchanged in a session whose schema holds the tables. Only names of tables and
views are in double quotes, so that another schema or a prefix can be put in.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.warehouse.ddl import Names

#: In the order in which they build on each other.
VIEWS = (
    "current_recognitions",
    "dialogue",
    "talk_time",
    "words_per_minute",
    "interruptions",
    "word_search",
)

#: The comment of a view that this package created begins with it.
MARK = "airflow-speechkit view"
_QUOTED = re.compile(r'"([a-z_]+)"')


@dataclass(frozen=True)
class View:
    """One view for one database.

    :param name: its name, without any prefix
    :param statement: the statement that creates it
    """

    name: str
    statement: str

    @property
    def comment(self) -> str:
        """The view's comment in the database: the mark of this package, and the statement's version."""
        return f"{MARK} {hashlib.sha256(self.statement.encode()).hexdigest()[:16]}"


def sql_of(name: str) -> str:
    """Return a view's SQL as it is in its file."""
    return (files(__name__) / f"{name}.sql").read_text(encoding="utf-8")


def views_for(names: Names) -> list[View]:
    """Return the views of a DuckDB or PostgreSQL database."""
    return [View(name, _QUOTED.sub(lambda quoted: names.of(quoted[1]), sql_of(name))) for name in VIEWS]
