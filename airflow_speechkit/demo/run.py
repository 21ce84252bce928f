"""Run the main job against the emulator, and check what came of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_speechkit.demo.airflow import Airflow, DagFailedError
from airflow_speechkit.demo.display import Display
from speechkit_emulator.process import EmulatorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DAG_ID = "speechkit_to_warehouse"
TASKS = ("recognize", "rows", "load")
TABLES = ("recognitions", "utterances", "words")
#: What has Parquet files; the samples are not analysed, so the last one's have no rows.
WRITTEN = (*TABLES, "analyses")
DATABASE = "speech.duckdb"


@dataclass(frozen=True)
class Sample:
    """A sample call: a file, and what is said in it."""

    path: Path
    call_id: str
    spoken_words: int


def run_demo(dags: Path, output: Path, *, speed: float) -> int:
    """Run the demo.

    :param dags: the folder of the project's DAGs, with the sample calls in ``samples/``
    :param output: where the DuckDB file and the Parquet files stay
    :param speed: seconds of the service's time in a second
    :return: 0, or 1 where anything fell short
    """
    display = Display(TASKS)
    samples = _samples(dags / "samples")
    if not samples:
        display.fail(f"There are no sample calls in {dags / 'samples'}: run this in the project's folder")
        return 1
    with _interruptible(), contextlib.ExitStack() as kept:
        home = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="speechkit-demo-")))
        kept.enter_context(display)
        try:
            display.begin("emulator", "a local SpeechKit and a bucket")
            emulator = kept.enter_context(EmulatorProcess(speed=speed, recognisers=2))
            for sample in samples:
                emulator.put(f"calls/{sample.path.name}", sample.path.read_bytes())
            display.end("emulator", f"{len(samples)} calls in s3://{emulator.bucket}/calls/")
            _empty(output)
            airflow = Airflow(home, dags, _connections(emulator, output))
            display.begin("airflow", "a database of its own")
            airflow.migrate()
            display.end("airflow", airflow.version())
            # The bare path: a URI's percent signs would be taken for a part of the folder's name.
            conf = {"audio": f"s3://{emulator.bucket}/calls/", "language": "en-US", "target": str(output)}
            airflow.run(DAG_ID, conf, display.task)
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
    display.summary(output, counts, billed_seconds=sum(one["billed_seconds"] for one in billed))
    short = [*_shortcomings(samples, counts, billed), *missing_files(output, counts)]
    for one in short:
        display.fail(one)
    return 1 if short else 0


def _shortcomings(samples: list[Sample], counts: dict[str, int], billed: list[dict[str, Any]]) -> Iterator[str]:
    if counts["recognitions"] != len(samples):
        yield f"{len(samples)} calls became {counts['recognitions']} recognitions"
    if len(billed) != len(samples):
        yield f"{len(samples)} calls were paid for {len(billed)} times"
    spoken = sum(sample.spoken_words for sample in samples)
    if counts["words"] < spoken // 2:
        yield f"{spoken} spoken words became {counts['words']} rows"


def missing_files(output: Path, counts: Mapping[str, int]) -> Iterator[str]:
    """What the Parquet files lack.

    :param output: where each table has a folder
    :param counts: table -> its rows in DuckDB, which were loaded from the files
    """
    import pyarrow.parquet

    for table in WRITTEN:
        files = list((output / table).rglob("*.parquet"))
        rows = sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
        if not files:
            yield f"there is no Parquet file of {table} in {output}"
        elif table in TABLES and not rows:
            yield f"the Parquet files of {table} are empty"
        elif rows != counts.get(table, rows):
            yield f"{rows} rows of {table} in Parquet files became {counts[table]} in DuckDB"


def _samples(folder: Path) -> list[Sample]:
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return []
    return [
        Sample(
            folder / call["file"],
            call["call_id"],
            sum(len(turn["text"].split()) for turn in call["turns"]),
        )
        for call in json.loads(manifest.read_text())
        if call["file"].endswith(".ogg")
    ]


def _empty(output: Path) -> None:
    """Make room for this run's output; only what an earlier run has made is removed."""
    output.mkdir(parents=True, exist_ok=True)
    (output / DATABASE).unlink(missing_ok=True)
    for table in WRITTEN:
        shutil.rmtree(output / table, ignore_errors=True)


def _connections(emulator: EmulatorProcess, output: Path) -> dict[str, dict[str, Any]]:
    return {
        "speechkit_default": {
            "conn_type": "speechkit",
            "host": emulator.url,
            "password": emulator.api_key,
            "extra": {
                "archive": f"s3://{emulator.bucket}/archive",
                "storage_host": emulator.storage_url,
            },
        },
        "aws_default": {
            "conn_type": "aws",
            "login": emulator.access_key_id,
            "password": emulator.secret_access_key,
            "extra": {"endpoint_url": emulator.storage_url, "region_name": "ru-central1"},
        },
        "warehouse": {"conn_type": "duckdb", "host": str(output / DATABASE)},
    }


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
