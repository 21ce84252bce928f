"""Load a night's 2,000 recordings from a file for each recording, and from one file with the same rows.

    python benchmarks/small_files.py [--operations 2000] [--words 150]

The transform writes the small files, and `compact` merges them; the large ones are loaded with a manifest of one file
for each table. Both are loaded from a disk and from moto's S3 in one process.
"""

from __future__ import annotations

import argparse
import atexit
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from collections.abc import Callable


def timed(name: str, do: Callable[[], Any]) -> Any:
    began, cpu = time.perf_counter(), time.process_time()
    result = do()
    print(f"{name:<44}{time.perf_counter() - began:8.2f} s{time.process_time() - cpu:8.2f} s of this process's CPU")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=2_000)
    parser.add_argument(
        "--words", type=int, default=150, help="words of a recording; it has a tenth as many utterances"
    )
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="speechkit-bench-"))
    home.chmod(0o755)
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.setdefault("AIRFLOW_HOME", str(home / "airflow"))
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    logging.disable(logging.WARNING)

    from moto.server import ThreadedMotoServer

    from airflow_speechkit.hooks.storage import object_storage_path
    from airflow_speechkit.results.compact import compact
    from airflow_speechkit.results.many import write_many
    from airflow_speechkit.storage import Folder
    from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
    from tests.fixtures.postgres import start_postgres
    from tests.unit.results.answers import chunk, submission, v2, word

    chunks = [
        chunk("1", *(word("слово", f"{first + n}s", f"{first + n}.5s") for n in range(10)))
        for first in range(0, arguments.words, 10)
    ]
    answer = v2(*chunks, day="2026-11-22")
    ids = [f"e03{number:017}" for number in range(arguments.operations)]

    def load_one(operation_id: str) -> Any:
        raw = answer.operation.replace(b"e03one", operation_id.encode())
        return replace(answer, operation_id=operation_id, operation=raw), submission(operation_id)

    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    aws = {
        "conn_type": "aws", "login": "a", "password": "b",
        "extra": {"endpoint_url": f"http://{host}:{port}", "region_name": "ru-central1"},
    }  # fmt: skip
    os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(aws)
    object_storage_path("s3://lake/").fs.mkdir("lake", region_name="ru-central1")
    (home / "postgres").mkdir(mode=0o755)
    server, process = start_postgres(home / "postgres")
    try:
        for place in (f"{home}", "s3://aws_default@lake/"):
            small, large = (Folder.at(object_storage_path(f"{place.rstrip('/')}/{one}")) for one in ("small", "large"))
            where = "disk" if place.startswith("/") else "S3"
            manifest = timed(f"{where}: transform", lambda small=small: write_many(load_one, ids, small))
            now = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(days=2)
            timed(f"{where}: compact", lambda small=small, large=large, now=now: list(compact(small, large, now=now)))
            tables = {
                name: replace(table, paths=(f"{name}/day=2026-11-22/part-0.parquet",) if table.rows else ())
                for name, table in manifest.tables.items()
            }
            one = replace(manifest, target=large.url, tables=tables)
            large.replace(one.place, json.dumps(one.to_json()).encode())
            for number, (files, given) in enumerate((("one file", one), ("small files", manifest)) * 2):
                database = f"{home}/{where}-{number}.duckdb"
                os.environ["AIRFLOW_CONN_DUCKDB"] = json.dumps({"conn_type": "duckdb", "host": database})
                os.environ["AIRFLOW_CONN_POSTGRES"] = json.dumps(
                    {
                        "conn_type": "postgres", "host": server.host, "port": server.port, "login": server.user,
                        "password": server.password, "schema": server.create_database(f"bench{where}{number}".lower()),
                    }
                )  # fmt: skip
                for conn_id in ("duckdb", "postgres"):
                    load = SpeechKitToSqlOperator(task_id="load", conn_id=conn_id, tables=given.summary(), views=False)
                    rows = timed(f"{where}: load, {files}, {conn_id}", lambda load=load: load.execute({}))
                    if rows != given.summary()["rows"]:
                        raise RuntimeError(f"{rows} rows were loaded")
    finally:
        process.stop()
        s3.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
