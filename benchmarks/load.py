"""Load a million words into DuckDB and PostgreSQL: ours, pandas' `to_sql` and Airflow's `insert_rows`.

    python benchmarks/load.py [--json FILE] [--rows 1000000] [--slow-rows 100000]

All start from a Parquet file and an empty database. Ours creates and loads its four tables with keys and indexes, as
its operator does. `to_sql` creates its own table without an index; `insert_rows` gets one without an index. "ours,
again" replaces all rows of the load before. The others load fewer rows, the slowest the fewest, so compare rows per
second. PostgreSQL is the tests' server, started for this run with the same settings for all.
"""

from __future__ import annotations

import argparse
import atexit
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

ROWS, SLOW_ROWS = 1_000_000, 100_000
WORDS_IN_AN_OPERATION = 900
SEED = 20261122
SYLLABLES = ("ра", "ко", "мо", "сте", "ни", "по", "дра", "ве", "ло", "чи", "ту", "за", "гре", "ю", "ща", "ль")

Result = dict[str, Any]


def write_words(folder: Path, rows: int) -> dict[str, Any]:
    """Write the files of `rows` words and their recognitions; return the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from airflow_speechkit.results.files import FileFormat
    from airflow_speechkit.results.manifest import Manifest, WrittenTable
    from airflow_speechkit.results.schema import TABLES
    from airflow_speechkit.storage import Folder

    chance = random.Random(SEED)
    vocabulary = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(20_000)]
    operations = [f"e03{chance.getrandbits(68):017x}" for _ in range(-(-rows // WORDS_IN_AN_OPERATION))]
    places = range(rows)
    operation_of_word = [operations[i // WORDS_IN_AN_OPERATION] for i in places]
    start_ms = [i % WORDS_IN_AN_OPERATION * 400 for i in places]
    columns: dict[str, dict[str, Any]] = {
        "recognitions": {
            "recognition_id": operations,
            "operation_id": operations,
            "audio_uri": [f"s3://calls/{i}.ogg" for i in range(len(operations))],
            "labels": ["{}"] * len(operations),
            "api_version": ["v2"] * len(operations),
            "utterances": [0] * len(operations),
            "words": [WORDS_IN_AN_OPERATION] * len(operations),
            "status": ["finished"] * len(operations),
        },
        "words": {
            "recognition_id": operation_of_word,
            "operation_id": operation_of_word,
            "channel": [str(i % 2 + 1) for i in places],
            "channel_index": [i % 2 for i in places],
            "utterance": [i % WORDS_IN_AN_OPERATION // 10 for i in places],
            "alternative": [0] * rows,
            "word_index": [i % 10 for i in places],
            "word": chance.choices(vocabulary, k=rows),
            "start_ms": start_ms,
            "end_ms": [start + 350 for start in start_ms],
        },
    }
    folder.mkdir()
    tables = {}
    for schema in TABLES:
        given = columns.get(schema.name, {})
        length = len(given["recognition_id"]) if given else 0
        arrays = [pa.array(given.get(field.name, [None] * length), field.type) for field in schema.arrow]
        path = folder / f"{schema.name}.parquet"
        pq.write_table(pa.table(arrays, schema=schema.arrow), path, compression="zstd")
        tables[schema.name] = WrittenTable((path.name,), length)
    manifest = Manifest(str(folder), FileFormat.PARQUET, f"{rows}-words", tables, len(operations))
    Folder.at(folder).replace(manifest.place, json.dumps(manifest.to_json()).encode())
    return {**manifest.summary(), "words": str(folder / "words.parquet")}


def frame_of(manifest: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(manifest["words"])


def rows_of(manifest: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(manifest["words"]) as file:
        for batch in file.iter_batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def ours(manifest: dict[str, Any]) -> None:
    from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

    SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=manifest, views=False).execute({})  # type: ignore[arg-type]


def insert_rows(manifest: dict[str, Any]) -> None:
    from airflow.providers.common.compat.sdk import BaseHook

    from airflow_speechkit.results.schema import WORDS
    from airflow_speechkit.warehouse.ddl import Dialect, Names, create_table

    hook: Any = BaseHook.get_connection("warehouse").get_hook()
    hook.run(create_table(Names(Dialect(hook.dialect_name)), WORDS), autocommit=True)
    hook.insert_rows("words", rows_of(manifest), target_fields=WORDS.arrow.names, commit_every=10_000, executemany=True)


def to_sql(method: str | None) -> Callable[[dict[str, Any]], None]:
    def run(manifest: dict[str, Any]) -> None:
        from airflow.providers.common.compat.sdk import BaseHook

        hook: Any = BaseHook.get_connection("warehouse").get_hook()
        engine = hook.get_sqlalchemy_engine()
        # PostgreSQL accepts at most 65,535 values in a statement.
        chunk = 65_535 // 10 if method else 10_000
        frame_of(manifest).to_sql("words", engine, index=False, method=method, chunksize=chunk)
        engine.dispose()

    return run


def measure(
    name: str, target: str, run: Callable[[dict[str, Any]], None], manifest: dict[str, Any], count: Callable[[], int]
) -> Result:
    rows = manifest["rows"]["words"]
    started = time.perf_counter()
    run(manifest)
    seconds = time.perf_counter() - started
    if count() != rows:
        raise RuntimeError(f"{name} loaded {count()} rows into {target} instead of {rows}")
    return {"name": name, "target": target, "seconds": seconds, "rows": rows, "rows_per_second": rows / seconds}


def into_duckdb(folder: Path, rows: int, slow_rows: int) -> list[Result]:
    import duckdb

    results = []
    for name, run, count_of_rows in (
        ("to_sql", to_sql(None), slow_rows // 50),
        ("insert_rows", insert_rows, slow_rows // 50),
        ("ours", ours, rows),
    ):
        manifest = write_words(folder / f"for {name}", count_of_rows)
        path = folder / f"{name}.duckdb"
        os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps({"conn_type": "duckdb", "host": str(path)})

        def count(path: Path = path) -> int:
            with duckdb.connect(str(path)) as connection:
                return int(connection.execute("SELECT count(*) FROM words").fetchall()[0][0])

        results.append(measure(name, "duckdb", run, manifest, count))
        if run is ours:
            results.append(measure("ours, again", "duckdb", run, manifest, count))
        path.unlink()
    return results


def into_postgresql(folder: Path, rows: int, slow_rows: int) -> list[Result]:
    import psycopg2

    from tests.fixtures.postgres import start_postgres

    scratch = folder / "postgres"
    scratch.mkdir()
    for path in (folder.parent, folder, scratch):
        path.chmod(0o755)
    server, process = start_postgres(scratch)
    results = []
    try:
        for name, run, count_of_rows in (
            ("to_sql", to_sql(None), slow_rows),
            ("to_sql, method='multi'", to_sql("multi"), slow_rows // 10),
            ("insert_rows", insert_rows, slow_rows),
            ("ours", ours, rows),
        ):
            manifest = write_words(folder / f"for {name}", count_of_rows)
            database = server.create_database("bench")
            os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps(
                {
                    "conn_type": "postgres", "host": server.host, "port": server.port, "schema": database,
                    "login": server.user, "password": server.password,
                }
            )  # fmt: skip

            def count(database: str = database) -> int:
                with closing(psycopg2.connect(server.url(database))) as connection, connection.cursor() as cursor:
                    cursor.execute("SELECT count(*) FROM words")
                    return int(cursor.fetchone()[0])

            results.append(measure(name, "postgresql", run, manifest, count))
            if run is ours:
                results.append(measure("ours, again", "postgresql", run, manifest, count))
    finally:
        process.stop()
    return results


def run_load(rows: int = ROWS, slow_rows: int = SLOW_ROWS) -> list[Result]:
    """Measure all loads; return ``name, target, seconds, rows, rows_per_second`` of each."""
    home = Path(tempfile.mkdtemp(prefix="speechkit-bench-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.setdefault("AIRFLOW_HOME", str(home / "airflow"))
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    logging.disable(logging.INFO)
    try:
        results = []
        for target in (into_duckdb, into_postgresql):
            folder = home / target.__name__
            folder.mkdir()
            results += target(folder, rows, slow_rows)
        return results
    finally:
        logging.disable(logging.NOTSET)
        os.environ.pop("AIRFLOW_CONN_WAREHOUSE", None)


def print_table(results: list[Result]) -> None:
    best = {one["target"]: one["rows_per_second"] for one in results if one["name"] == "ours"}
    print(f"{'target':<12}{'loader':<26}{'rows':>10}{'seconds':>10}{'rows/s':>12}{'ours is':>10}")
    for one in results:
        times = best[one["target"]] / one["rows_per_second"]
        print(
            f"{one['target']:<12}{one['name']:<26}{one['rows']:>10,}{one['seconds']:>10.2f}"
            f"{one['rows_per_second']:>12,.0f}" + (f"{times:>9.1f}x" if not one["name"].startswith("ours") else "")
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--rows", type=int, default=ROWS, help="number of words for ours")
    parser.add_argument("--slow-rows", type=int, default=SLOW_ROWS, help="number of words for the others")
    arguments = parser.parse_args()
    results = run_load(arguments.rows, arguments.slow_rows)
    print_table(results)
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
