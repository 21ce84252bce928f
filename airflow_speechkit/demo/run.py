"""Run the main job against the emulator, and check what came of it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_speechkit.demo.airflow import Airflow, DagFailedError
from airflow_speechkit.demo.display import Display
from speechkit_emulator.process import EmulatorProcess
from speechkit_emulator.samples import samples as sample_calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from speechkit_emulator.samples import Sample

DAG_ID = "speechkit_to_warehouse"
TABLES = ("recognitions", "utterances", "words")
MANIFESTS = "_manifests"
DATABASE = "speech.duckdb"


def run_demo(dags: Path, output: Path, *, speed: float) -> int:
    """Run the demo.

    :param dags: the folder of the project's DAGs
    :param output: where the DuckDB file and the Parquet files stay
    :param speed: seconds of the service's time in a second
    :return: 0, or 1 for a failure
    """
    display = Display()
    if not (dags / f"{DAG_ID}.py").exists():
        display.fail(f"The DAG {DAG_ID} is not in {dags}: run this in the project's folder")
        return 1
    # The sixth one is an MP3: the demo is about the five Ogg files.
    samples = [sample for sample in sample_calls() if sample.path.suffix == ".ogg"]
    with _interruptible(), contextlib.ExitStack() as kept:
        home = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="speechkit-demo-")))
        kept.enter_context(display.progress)
        try:
            display.begin("emulator", "a local SpeechKit and a bucket")
            emulator = kept.enter_context(EmulatorProcess(speed=speed, recognisers=2))
            for sample in samples:
                emulator.put(f"calls/{sample.path.name}", sample.path.read_bytes())
            display.end("emulator", f"{len(samples)} calls in s3://{emulator.bucket}/calls/")
            _empty(output)
            connections = emulator.airflow_connections()
            connections["warehouse"]["host"] = str(output / DATABASE)
            airflow = Airflow(home, dags, connections)
            display.begin("airflow", "a database of its own")
            airflow.run("db", "migrate")
            display.end("airflow", f"Airflow {version('apache-airflow')}")
            # The bare path: a URI's percent signs would be taken for a part of the folder's name.
            conf = {"audio": f"s3://{emulator.bucket}/calls/", "language": "en-US", "target": str(output)}
            airflow.test_dag(DAG_ID, conf, display.follow)
            billed = emulator.billing()
        except DagFailedError as error:
            display.fail(str(error))
            return 1
    return _show(display, output, samples, billed)


def _show(display: Display, output: Path, samples: list[Sample], billed: list[dict[str, Any]]) -> int:
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
    display.words(words)
    rows = ", ".join(f"{count} {table}" for table, count in counts.items())
    billed_seconds = sum(one["billed_seconds"] for one in billed)
    display.console.print(f"{rows}; {billed_seconds} s billed (by the emulator: nothing was spent).")
    display.console.print(f"DuckDB and Parquet files: {output}")
    failures = [*_failures(samples, counts, billed), *missing_files(output, counts)]
    for failure in failures:
        display.fail(failure)
    return 1 if failures else 0


def _failures(samples: list[Sample], counts: dict[str, int], billed: list[dict[str, Any]]) -> Iterator[str]:
    if counts["recognitions"] != len(samples):
        yield f"{len(samples)} calls became {counts['recognitions']} recognitions"
    if len(billed) != len(samples):
        yield f"{len(samples)} calls were paid for {len(billed)} times"
    spoken = sum(len(turn.split()) for sample in samples for turn in sample.text)
    if counts["words"] < spoken // 2:
        yield f"{spoken} spoken words became {counts['words']} rows"


def missing_files(output: Path, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what the Parquet files lack.

    :param output: where each table has a folder
    :param counts: table -> its rows in DuckDB, which were loaded from the files
    """
    import pyarrow.parquet

    for table in TABLES:
        files = list((output / table).rglob("*.parquet"))
        rows = sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
        if not files:
            yield f"there is no Parquet file of {table} in {output}"
        elif not rows:
            yield f"the Parquet files of {table} are empty"
        elif rows != counts[table]:
            yield f"{rows} rows of {table} in Parquet files became {counts[table]} in DuckDB"


def _empty(output: Path) -> None:
    """Make room for this run's output; only what an earlier run has made is removed."""
    output.mkdir(parents=True, exist_ok=True)
    (output / DATABASE).unlink(missing_ok=True)
    for made in (*TABLES, MANIFESTS):
        shutil.rmtree(output / made, ignore_errors=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Clean up on SIGTERM and SIGHUP as on Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
