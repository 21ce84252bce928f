"""What the troubleshooting page quotes is what the package says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
#: Said by Jinja.
NOT_OURS = "'data_interval_start' is undefined"


def texts(node: ast.AST) -> Iterator[str]:
    """Each text of a source, with `…` where something is put in when it runs."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.sub(r"%[\d.,]*[drsfg]", "…", node.value)
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def quoted() -> list[str]:
    """What stands in double backticks in the first column of the page's tables."""
    cells = [line.split(" | ")[0] for line in PAGE.splitlines() if line.startswith("| ")]
    return [one.strip() for cell in cells for one in re.findall(r"``(.+?)``(?!`)", cell)]


def test_each_message_that_the_page_quotes_is_in_the_source() -> None:
    sources = (ROOT / "airflow_speechkit").rglob("*.py")
    said = "\n".join(text for source in sources for text in texts(ast.parse(source.read_text())))
    messages = quoted()
    assert len(messages) > 50
    assert [one for one in messages if one not in said and one != NOT_OURS] == []
