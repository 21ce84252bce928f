"""What all scenes share: one Airflow, one emulator with its bucket, one warehouse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.fixtures.airflow import RealAirflow
from tests.fixtures.postgres import PostgresServer

if TYPE_CHECKING:
    from airflow_speechkit.archive.store import Archive
    from speechkit_emulator.process import EmulatorProcess

SAMPLES = Path(__file__).parents[2] / "emulator/speechkit_emulator/samples"
ARCHIVES = "archives"
LAKE = "lake"

#: As many task processes as there are scenes and dead workers, whose places LocalExecutor does not give back.
SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "24",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
}


@dataclass(frozen=True, kw_only=True)
class World:
    """The shared parts, and a way to each."""

    airflow: RealAirflow
    emulator: EmulatorProcess
    postgres: PostgresServer
    warehouse: str
    disk: Path
    lock: Lock = field(default_factory=Lock)

    @property
    def storage_port(self) -> int:
        return urlsplit(self.emulator.storage_url).port or 80

    def prepare(self) -> None:
        """Make the buckets and the connection without a fault; hand the DAGs over."""
        for bucket in (ARCHIVES, LAKE):
            self.emulator.s3().create_bucket(Bucket=bucket)
        self.airflow.add_dag(Path(__file__).parent / "dags" / "recordings_to_rows.py")

    def add_speechkit(self, conn_id: str, aws_conn_id: str, url: str, **credential: Any) -> None:
        """Make a connection to the emulator, by way of the URL.

        :param credential: fields of its extra; the API key is taken without any
        """
        extra = {
            "storage_host": self.emulator.storage_url,
            "aws_conn_id": aws_conn_id,
            "checks_per_hour": 360_000,
            "checks_per_second": 100,
            **(credential or {"api_key": self.emulator.api_key}),
        }
        self.airflow.add_connection(conn_id, "speechkit", host=url, extra=json.dumps(extra))

    def add_storage(self, conn_id: str, url: str) -> None:
        """Make a connection to the bucket's server, by way of the URL."""
        self.airflow.add_connection(
            conn_id,
            "aws",
            login=self.emulator.access_key_id,
            password=self.emulator.secret_access_key,
            extra=json.dumps({"endpoint_url": url, "region_name": "ru-central1"}),
        )

    def add_warehouse(self, conn_id: str, port: int) -> None:
        """Make a connection to the warehouse, by way of the port."""
        self.airflow.add_connection(
            conn_id,
            "postgres",
            host="127.0.0.1",
            port=port,
            schema=self.warehouse,
            login=self.postgres.user,
            password=self.postgres.password,
        )

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the warehouse."""
        import psycopg2

        with closing(psycopg2.connect(self.postgres.url(self.warehouse))) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def archive_in_bucket(self, folder: str) -> Archive:
        """Open an archive in the bucket, past all gates."""
        from s3fs import S3FileSystem

        from airflow_speechkit.archive.store import Archive
        from airflow_speechkit.errors import ArchiveError
        from airflow_speechkit.storage import Folder

        fs = S3FileSystem(
            key=self.emulator.access_key_id,
            secret=self.emulator.secret_access_key,
            endpoint_url=self.emulator.storage_url,
            client_kwargs={"region_name": "ru-central1"},
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        return Archive(Folder(fs, f"{ARCHIVES}/{folder}", f"s3://{ARCHIVES}/{folder}", ArchiveError))

    def command(self, *arguments: str) -> str:
        """Run ``airflow-speechkit`` as a person would beside the emulator's bucket, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow_speechkit.cli", *arguments, "--endpoint-url", self.emulator.storage_url],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
                "AWS_ACCESS_KEY_ID": self.emulator.access_key_id,
                "AWS_SECRET_ACCESS_KEY": self.emulator.secret_access_key,
                "AWS_DEFAULT_REGION": "ru-central1",
                "PYTHONPATH": "",
            },
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"airflow-speechkit {arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout
