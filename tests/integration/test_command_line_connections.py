"""The command line opens buckets through Airflow's connections, from all places where Airflow stores them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.local_airflow import LocalAirflow
from tests.unit.archive.world import T0, archive_at
from tests.unit.cli.test_archive import spoken

OPERATION = "e03sncdp55uvg2tfpso1"


def connection(endpoint: str, **fields: Any) -> str:
    extra = {"endpoint_url": endpoint, "region_name": "ru-central1"}
    return json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra} | fields)


@pytest.fixture(scope="module")
def airflow(local_airflow: LocalAirflow, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> LocalAirflow:
    """An Airflow with the connection `in_database`, and one as Airflow itself makes them, `empty`."""
    file = tmp_path_factory.mktemp("connections") / "connections.json"
    file.write_text(json.dumps({"in_database": json.loads(connection(s3_endpoint)), "empty": {"conn_type": "aws"}}))
    command = [sys.executable, "-m", "airflow", "connections", "import", str(file)]
    subprocess.run(command, env=local_airflow.environment, check=True, capture_output=True, timeout=600)
    return local_airflow


@pytest.fixture
def archive(s3: str) -> str:
    """The place of an archive in which one operation has ended."""
    kept = archive_at("lake/archive", s3)
    kept.probe(T0)
    kept.keep(spoken(OPERATION), now=T0)
    return "lake/archive"


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airflow_speechkit.cli", *arguments],
        env=dict(environment), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def listed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What `archive list --json` found; nothing else is on its outputs."""
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line)["operation_id"] for line in done.stdout.splitlines()]


def test_connections_are_found_where_airflow_stores_them(
    airflow: LocalAirflow, archive: str, s3: str, tmp_path: Path
) -> None:
    secrets = tmp_path / "connections.json"
    secrets.write_text(json.dumps({"in_backend": json.loads(connection(s3))}))
    environment = {
        **airflow.environment,
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(secrets)}),
        "AIRFLOW_CONN_AWS_DEFAULT": connection(s3),
    }

    source, target = f"s3://in_database@{archive}", "s3://in_backend@lake/copy"
    exported = run(environment, "archive", "export", "--archive", source, "--to", target)
    assert (exported.returncode, exported.stderr) == (0, "")
    assert exported.stdout.endswith(f" files to {target}\n")
    # An address that names no connection uses `aws_default`.
    assert listed(run(environment, "archive", "list", "--json", "--archive", "s3://lake/copy")) == [OPERATION]


def test_tables_are_written_through_a_connection(
    airflow: LocalAirflow, s3: str, s3_client: Any, tmp_path: Path
) -> None:
    answer = tmp_path / "answer.json"
    answer.write_bytes(spoken(OPERATION).operation)

    done = run(airflow.environment, "transform", str(answer), "--to", "s3://in_database@lake/tables")
    assert done.returncode == 0, done.stderr
    keys = [one["Key"] for one in s3_client.list_objects_v2(Bucket="lake")["Contents"]]
    assert any(key.startswith("tables/recognitions/") for key in keys)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that failed."""
    assert (done.returncode, done.stdout) == (1, "")
    [message] = done.stderr.splitlines()
    return message


def test_a_missing_connection_is_an_error(airflow: LocalAirflow) -> None:
    message = refused(run(airflow.environment, "archive", "list", "--archive", "s3://nowhere@lake/archive"))

    assert "There is no connection `nowhere`" in message
    assert "AIRFLOW_CONN_NOWHERE" in message
    assert "and Airflow's metadata database" in message
    assert "airflow connections add nowhere --conn-type aws" in message


def test_no_bucket_is_accessed_anonymously(airflow: LocalAirflow) -> None:
    message = refused(run(airflow.environment, "archive", "list", "--archive", "s3://empty@lake/archive"))

    assert "The connection `empty` has no keys" in message


@pytest.mark.parametrize("database", ["sqlite:///{}/new.db", "postgresql+psycopg2://airflow:hunter2@127.0.0.1:1/a"])
def test_an_unreachable_metadata_database_is_an_error_that_says_so(
    airflow: LocalAirflow, tmp_path: Path, database: str
) -> None:
    environment = {**airflow.environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.format(tmp_path)}
    message = refused(run(environment, "archive", "list", "--archive", "s3://lake/archive"))

    assert "There is no connection `aws_default`" in message
    assert "metadata database, or they can't be read" in message
    assert "hunter2" not in message


def test_commands_without_a_connection_need_no_metadata_database(
    airflow: LocalAirflow, archive: str, s3: str, tmp_path: Path
) -> None:
    environment = {
        **airflow.environment,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/new.db",
        "AIRFLOW_CONN_ELSEWHERE": connection(s3),
    }
    copy = str(tmp_path / "copy")
    done = run(environment, "archive", "export", "--archive", f"s3://elsewhere@{archive}", "--to", copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(run(environment, "archive", "list", "--json", "--archive", copy)) == [OPERATION]
