"""What the demo shows while it runs, and at its end."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What is shown of a task of the DAG while it runs.
_TASKS = {
    "recognize": "calls are submitted; the trigger asks when an answer is due, and archives it",
    "rows": "answers become tables",
    "load": "tables into DuckDB",
}

_STARTS = re.compile(r"starting task_id=(\w+)")
_ENDS = re.compile(r"end task task_id=(\w+)")
_SUBMITTED = re.compile(r"(submitted [\d,]+) of ([\d,]+), ended")
_LOADED = re.compile(r"Loaded (.+?)(?: \[|$)")


class Display:
    """A line for each step, with a spinner while it runs; `progress` has to be entered first."""

    def __init__(self) -> None:
        console = Console()
        # Without a terminal (a log, a pipe) rich assumes 80 columns.
        self.console = console if console.is_terminal else Console(width=120)
        self.progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"), TextColumn("[bold]{task.fields[step]:<10}"),
            TextColumn("{task.description}"), TimeElapsedColumn(), console=self.console,
        )  # fmt: skip
        self._steps: dict[str, TaskID] = {}
        self._results = dict(_TASKS)

    def begin(self, step: str, about: str) -> None:
        """Show that a step has begun."""
        self._steps[step] = self.progress.add_task(about, total=1, step=step)

    def end(self, step: str, result: str) -> None:
        """Show that a step has ended, and with what."""
        self.progress.update(self._steps[step], description=result, completed=1)

    def follow(self, line: str) -> None:
        """Show the DAG's tasks by a line of Airflow's log."""
        if (found := _STARTS.search(line)) and found[1] in _TASKS and found[1] not in self._steps:
            self.begin(found[1], _TASKS[found[1]])
        if found := _SUBMITTED.search(line):
            self._results["recognize"] = f"{found[2]} calls: {found[1]}"
        if found := _LOADED.search(line):
            self._results["load"] = found[1]
        if (found := _ENDS.search(line)) and found[1] in self._steps:
            self.end(found[1], self._results[found[1]])

    def words(self, words: Iterable[tuple[Any, ...]]) -> None:
        """Show every recognised word, in a line for each stretch of one channel of a call.

        :param words: address of the call, channel, start and end in milliseconds, word; in order
        """
        table = Table(title="words", title_justify="left")
        for column in ("call", "channel", "from", "to", "words"):
            table.add_column(column, justify="right" if column in ("channel", "from", "to") else "left")
        for (uri, channel), rows in groupby(words, key=lambda row: row[:2]):
            stretch = list(rows)
            start_s, end_s = stretch[0][2] / 1000, stretch[-1][3] / 1000
            text = " ".join(row[4] for row in stretch)
            table.add_row(uri.rpartition("/")[2], channel, f"{start_s:.2f} s", f"{end_s:.2f} s", text)
        self.console.print(table)

    def fail(self, what: str) -> None:
        """Show a failure."""
        self.console.print(f"[red]✗[/] {what}", highlight=False, markup=True)
