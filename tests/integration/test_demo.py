"""The demo as a user runs it: its files, its output, and that nothing else is left, also after an interrupt."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import duckdb
import psutil
import pyarrow.parquet as pq
import pytest

from tests.fixtures.environment import ROOT

PATIENCE_S = 600
MARK = "SPEECHKIT_DEMO_TEST"
TABLES = ("recognitions", "utterances", "words")


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.1)


class Demo:
    """One run of the demo, in a session of its own as in a terminal, with a folder for temporary files of its own.

    :param place: an empty folder
    """

    def __init__(self, place: Path) -> None:
        self.output = place / "a b й"
        self.temporary = place / "tmp"
        self.temporary.mkdir()
        self._log = place / "log"
        self._mark = uuid4().hex
        environment = {MARK: self._mark, "TMPDIR": str(self.temporary), "PYTHONIOENCODING": "utf-8"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "airflow_speechkit.cli", "demo", "--to", str(self.output)],
                cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True,
                # Background processes of a shell ignore SIGINT, and their children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip

    @property
    def printed(self) -> str:
        return self._log.read_text()

    def processes(self) -> list[psutil.Process]:
        """Whatever it has started and still runs, in whichever session or group: all have inherited the mark."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def runs(self, *arguments: str) -> bool:
        """Whether a process with these arguments, one after the other, is at work."""
        for process in self.processes():
            try:
                if " ".join(arguments) in " ".join(process.cmdline()):
                    return True
            except psutil.Error:
                continue
        return False

    def until_it_runs(self, *arguments: str) -> None:
        def so() -> bool:
            assert self.process.poll() is None, f"it ended before that:\n{self.printed}"
            return self.runs(*arguments)

        wait_until(so, f"a process {arguments}")

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def leaves_nothing(self) -> None:
        wait_until(lambda: not self.processes(), "its processes to end")
        assert list(self.temporary.iterdir()) == []

    def kill(self) -> None:
        for process in self.processes():
            process.kill()
        self.process.wait()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    demo.kill()


def test_the_demo_leaves_tables_and_files_and_nothing_else(demo: Demo) -> None:
    assert demo.end() == 0, demo.printed
    with duckdb.connect(str(demo.output / "speech.duckdb"), read_only=True) as connection:
        rows = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in TABLES}
    assert rows["recognitions"] == 5
    assert rows["utterances"] >= 5
    assert rows["words"] >= 100
    for table in TABLES:
        files = list((demo.output / table).glob("day=*/*.parquet"))
        assert len(files) == 5
        assert sum(pq.read_metadata(file).num_rows for file in files) == rows[table]
    assert {one.name for one in demo.output.iterdir()} == {"speech.duckdb", *TABLES, "_manifests"}
    assert [one.name for one in demo.output.parent.iterdir() if one.is_dir() and one != demo.temporary] == ["a b й"]
    # The output about tasks comes from Airflow's log.
    done = re.findall(r"^✓ (\w+) ", demo.printed, re.MULTILINE)
    assert done == ["emulator", "airflow", "recognize", "rows", "load"], demo.printed
    assert f"5 recognitions, {rows['utterances']} utterances, {rows['words']} words" in demo.printed
    demo.leaves_nothing()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_while_airflow_runs_leaves_nothing(demo: Demo, number: signal.Signals) -> None:
    demo.until_it_runs("dags", "test")
    demo.process.send_signal(number)
    assert demo.end() == 130, demo.printed
    assert "Traceback" not in demo.printed
    demo.leaves_nothing()


def test_an_interrupt_while_the_emulator_starts_leaves_nothing_and_prints_no_traceback(demo: Demo) -> None:
    demo.until_it_runs("speechkit_emulator", "--exit-with-stdin")
    # As Ctrl-C does: to all of the terminal's process group.
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.end() == 130, demo.printed
    assert "Traceback" not in demo.printed
    demo.leaves_nothing()
