"""What the demo shows while it works, and in the end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

#: What is said about a task of the DAG while it runs.
_ABOUT = {
    "recognize": "calls are submitted; the trigger asks when an answer is due, and archives it",
    "rows": "answers become tables",
    "load": "tables into DuckDB",
}

_STARTS = re.compile(r"starting task_id=(\w+)")
_ENDS = re.compile(r"end task task_id=(\w+)")
_SUBMITTED = re.compile(r"(submitted [\d,]+) of ([\d,]+), ended")
_LOADED = re.compile(r"Loaded (.+?)(?: \[|$)")


class Display:
    """A line for each step, with a spinner while it runs.

    :param tasks: the DAG's tasks, in order
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        console = Console()
        # Beside a terminal (a log, a pipe) rich takes 80 columns for granted.
        self._console = console if console.is_terminal else Console(width=120)
        self._tasks = tasks
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("[bold]{task.fields[step]:<10}"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._steps: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, step: str, about: str) -> None:
        """Show that a step has begun."""
        self._steps[step] = self._progress.add_task(about, total=1, step=step)

    def end(self, step: str, result: str) -> None:
        """Show that a step has ended, and with what."""
        self._progress.update(self._steps[step], description=result, completed=1)

    def task(self, line: str) -> None:
        """Follow the DAG's tasks by Airflow's log."""
        if (found := _STARTS.search(line)) and found[1] in self._tasks and found[1] not in self._steps:
            self.begin(found[1], _ABOUT.get(found[1], ""))
        if found := _SUBMITTED.search(line):
            self._said["recognize"] = f"{found[2]} calls: {found[1]}"
        if found := _LOADED.search(line):
            self._said["load"] = found[1]
        if (found := _ENDS.search(line)) and found[1] in self._steps:
            self.end(found[1], self._said.get(found[1], _ABOUT.get(found[1], "")))

    def words(self, words: Sequence[tuple[Any, ...]]) -> None:
        """Show every recognised word, in a line for each stretch of one speaker."""
        table = Table(title="words", title_justify="left")
        for column in ("call", "channel", "from", "to", "words"):
            table.add_column(column, justify="right" if column in ("channel", "from", "to") else "left")
        for call, channel, start_ms, end_ms, text in _stretches(words):
            table.add_row(call, channel, f"{start_ms / 1000:.2f} s", f"{end_ms / 1000:.2f} s", text)
        self._console.print(table)

    def summary(self, output: Path, counts: dict[str, int], *, billed_seconds: int) -> None:
        """Show what was made."""
        rows = ", ".join(f"{count} {table}" for table, count in counts.items())
        self._console.print(f"{rows}; {billed_seconds} s billed (by the emulator: nothing was spent).")
        self._console.print(f"DuckDB and Parquet files: {output}")

    def fail(self, what: str) -> None:
        """Show what fell short."""
        self._console.print(f"[red]✗[/] {what}", highlight=False, markup=True)


def _stretches(words: Sequence[tuple[Any, ...]]) -> list[tuple[str, str, int, int, str]]:
    found: list[tuple[str, str, int, int, str]] = []
    for audio_uri, channel, start_ms, end_ms, word in words:
        call = audio_uri.rpartition("/")[2]
        if found and found[-1][:2] == (call, channel):
            first = found.pop()
            found.append((call, channel, first[2], end_ms, f"{first[4]} {word}"))
        else:
            found.append((call, channel, start_ms, end_ms, word))
    return found
