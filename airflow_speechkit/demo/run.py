"""Run the main job against the emulator, and show what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from speechkit_emulator.process import EmulatorProcess
from speechkit_emulator.samples import samples as sample_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DAG_ID = "speechkit_to_warehouse"
TABLES = ("recognitions", "utterances", "words")
DATABASE = "speech.duckdb"

_LAST_LINES = 25
_ENDS = re.compile(r"end task task_id=(recognize|rows|load)\b")
_TASKS = {
    "recognize": "calls were submitted, and their answers archived",
    "rows": "answers became Parquet files",
    "load": "the files were loaded into DuckDB",
}


class DagFailedError(Exception):
    """Airflow, or the DAG, did not get to its end."""


def run_demo(dags: Path, output: Path, *, speed: float) -> int:
    """Run the demo.

    :param dags: the folder of the project's DAGs
    :param output: where the DuckDB file and the Parquet files stay
    :param speed: seconds of the service's time in a second
    :return: 0, or 1 for a failure
    """
    if not (dags / f"{DAG_ID}.py").exists():
        print(f"✗ The DAG {DAG_ID} is not in {dags}: run this in the project's folder")
        return 1
    # The sixth one is an MP3: the demo is about the five Ogg files.
    samples = [sample for sample in sample_calls() if sample.path.suffix == ".ogg"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    print("A DAG submits calls to a local SpeechKit, archives the answers, and loads them into DuckDB", flush=True)
    with contextlib.ExitStack() as kept:
        home = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="speechkit-demo-")))
        emulator = kept.enter_context(EmulatorProcess(speed=speed, recognisers=2))
        for sample in samples:
            emulator.put(f"calls/{sample.path.name}", sample.path.read_bytes())
        _print_step("emulator", f"{len(samples)} calls in s3://{emulator.bucket}/calls/")
        _empty(output)
        connections = emulator.airflow_connections()
        connections["warehouse"]["host"] = str(output / DATABASE)
        environment = _environment(home, dags, connections)
        # The bare path: a URI's percent signs would become a part of the folder's name.
        conf = {"audio": f"s3://{emulator.bucket}/calls/", "language": "en-US", "target": str(output)}
        try:
            _airflow(environment, "db", "migrate")
            _print_step("airflow", f"Airflow {version('apache-airflow')} with a database of its own")
            _airflow(environment, "dags", "test", DAG_ID, "--conf", json.dumps(conf), on_line=_follow)
        except DagFailedError as error:
            print(f"✗ {error}")
            return 1
        billed_s = sum(one["billed_seconds"] for one in emulator.billing())
    return _show(output, len(samples), billed_s)


def _print_step(step: str, result: str) -> None:
    print(f"✓ {step:<10} {result}", flush=True)


def _follow(line: str) -> None:
    """Print the DAG's tasks by a line of Airflow's log."""
    if found := _ENDS.search(line):
        _print_step(found[1], _TASKS[found[1]])


def _interrupt(number: int, frame: object) -> NoReturn:
    """Clean up as on Ctrl-C."""
    raise KeyboardInterrupt


def _empty(output: Path) -> None:
    """Make room for this run's output; only what an earlier run has made is removed."""
    output.mkdir(parents=True, exist_ok=True)
    (output / DATABASE).unlink(missing_ok=True)
    for made in (*TABLES, "_manifests"):
        shutil.rmtree(output / made, ignore_errors=True)


def _environment(home: Path, dags: Path, connections: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of an Airflow of its own.

    :param home: an empty folder for all that it writes
    :param connections: connection id -> connection
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "AWS_"))} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()},
    }


def _airflow(environment: Mapping[str, str], *arguments: str, on_line: Callable[[str], None] | None = None) -> None:
    """Run a command of Airflow.

    :param on_line: called with each line of its output
    :raises DagFailedError: its exit status isn't 0, or the DAG that it ran has failed
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
        [sys.executable, "-m", "airflow", *arguments], env=environment, cwd=environment["AIRFLOW_HOME"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    lines: list[str] = []
    try:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if on_line:
                on_line(lines[-1])
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    has_ended = on_line is None or any("state=success" in line and "DagRun Finished" in line for line in lines)
    if process.returncode or not has_ended:
        raise DagFailedError(f"airflow {' '.join(arguments[:2])} failed:\n" + "\n".join(lines[-_LAST_LINES:]))


def _show(output: Path, calls: int, billed_s: float) -> int:
    """Print every recognised word, a line for each stretch of one channel of a call, and how many rows there are."""
    import duckdb

    with contextlib.closing(duckdb.connect(str(output / DATABASE), read_only=True)) as connection:
        words = connection.execute(
            "SELECT r.audio_uri, w.channel, w.start_ms, w.end_ms, w.word FROM words w JOIN recognitions r "
            "USING (recognition_id) ORDER BY r.audio_uri, w.start_ms, w.channel, w.word_index"
        ).fetchall()
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]  # noqa: S608 - our own names
            for table in TABLES
        }
    print(f"\n{'call':<24} {'channel':>7} {'from':>9} {'to':>9}  words")
    for (uri, channel), rows in groupby(words, key=lambda row: row[:2]):
        stretch = list(rows)
        start_s, end_s = stretch[0][2] / 1000, stretch[-1][3] / 1000
        text = " ".join(row[4] for row in stretch)
        print(f"{uri.rpartition('/')[2]:<24} {channel:>7} {start_s:7.2f} s {end_s:7.2f} s  {text}")
    print(f"\n{', '.join(f'{count} {table}' for table, count in counts.items())}; ", end="")
    print(f"{billed_s} s billed (by the emulator: nothing was spent).\nDuckDB and Parquet files: {output}")
    if counts["recognitions"] != calls or not words:
        print(f"✗ {calls} calls became {counts['recognitions']} recognitions with {len(words)} words")
        return 1
    return 0
