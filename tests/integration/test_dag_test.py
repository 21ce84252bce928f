"""`dag.test()`, `airflow dags test` and `airflow tasks test` run deferrable operators, with any connections."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_speechkit.hooks.archive import open_archive
from tests.fixtures.direct import OGG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.local_airflow import LocalAirflow

#: Its first argument is what to do: a mapping is the `conf` of a `dag.test()`, a list a command line of Airflow. All in
#: one process: starting Airflow takes longer than running a DAG.
DAG_FILE = """
import json
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor

when = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False}
about = {"speechkit_conn_id": "{{ params.conn_id }}", "archive": "{{ params.archive }}"}
audio = {"audio": "{{ params.audio }}", "language": "en-US", **about}
wait = {"deferrable": True, "poke_interval": 1, "timeout": 600}

with DAG("calls", params={"conn_id": "", "archive": "", "audio": ""}, **when) as dag:

    @dag.task
    def connect_in_threads(params):
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: SpeechKitHook(params["conn_id"]).connection, range(8)))

    submit = SpeechKitSubmitOperator(task_id="submit", **audio)
    connect_in_threads() >> SpeechKitRecognitionSensor(task_id="wait", operation_id=submit.output, **about, **wait)

with DAG("recognize", params={"conn_id": "", "archive": "", "audio": ""}, **when):
    SpeechKitRecognizeOperator(task_id="recognize", on_failure="record", **audio, **wait)

with DAG("wait_only", params={"conn_id": "", "archive": "", "operation_id": ""}, **when):
    SpeechKitRecognitionSensor(task_id="wait", operation_id="{{ params.operation_id }}", **about, **wait)

if __name__ == "__main__":
    from airflow.__main__ import main

    for command in json.loads(sys.argv[1]):
        try:
            if isinstance(command, dict):
                dag.test(run_conf=command)
            else:
                sys.argv = ["airflow", *command]
                main()
        except BaseException:
            traceback.print_exc()
"""

SOURCES = ("database", "environment", "secrets_backend")
WAYS = ("dag.test()", "dags test", "tasks test")


def connections_of(emulator: EmulatorProcess, source: str) -> dict[str, dict[str, Any]]:
    """Connections to the emulator and its storage, with ids of their own."""
    return {
        source: {
            "conn_type": "speechkit",
            "host": emulator.url,
            "password": emulator.api_key,
            "extra": {"aws_conn_id": f"{source}_storage", "storage_host": emulator.storage_url},
        },
        f"{source}_storage": {
            "conn_type": "aws",
            "login": emulator.access_key_id,
            "password": emulator.secret_access_key,
            "extra": {"endpoint_url": emulator.storage_url, "region_name": "ru-central1"},
        },
    }


def in_environment(connections: Mapping[str, Any]) -> dict[str, str]:
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(one) for name, one in connections.items()}


def task_test(dag_id: str, task_id: str, params: Mapping[str, str]) -> list[str]:
    return ["tasks", "test", dag_id, task_id, "2026-01-02", "--task-params", json.dumps(params)]


def recording(emulator: EmulatorProcess, **transcript: Any) -> str:
    key = f"{uuid4().hex}.ogg"
    emulator.put(key, OGG, {"processing_s": 0, **transcript})
    return f"s3://{emulator.bucket}/{key}"


def command_for(emulator: EmulatorProcess, source: str, way: str, archive: str) -> dict[str, str] | list[str]:
    conf = {"conn_id": source, "archive": archive}
    if way == "tasks test":
        (conf["operation_id"],) = emulator.stand_ins()
        return task_test("wait_only", "wait", conf)
    conf["audio"] = recording(emulator, channels=[{"utterances": [{"text": "two words"}]}])
    return conf if way == "dag.test()" else ["dags", "test", "recognize", "--conf", json.dumps(conf)]


def test_dag_test_archives_the_answers_of_deferred_waits(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = {source: connections_of(emulator, source) for source in SOURCES}
    archives = {
        (source, way): str(tmp_path / source)
        if way == "dags test"
        else f"s3://{source}_storage@{emulator.bucket}/{uuid4().hex}"
        for source in SOURCES
        for way in WAYS
    }
    (tmp_path / "calls.py").write_text(DAG_FILE)
    for source in SOURCES:
        (tmp_path / f"{source}.json").write_text(json.dumps(connections[source]))
    failing = recording(emulator, error={"code": 13, "message": "Internal error"})
    commands = [
        ["connections", "import", str(tmp_path / "database.json")],
        *(command_for(emulator, source, way, archive) for (source, way), archive in archives.items()),
        task_test(
            "recognize", "recognize", {"conn_id": "database", "archive": str(tmp_path / "failing"), "audio": failing}
        ),
    ]

    log = subprocess.run(
        [sys.executable, tmp_path / "calls.py", json.dumps(commands)],
        env={
            **local_airflow.environment,
            **in_environment(connections["environment"]),
            "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
            "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
            "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(
                {"connections_file_path": str(tmp_path / "secrets_backend.json")}
            ),
        },
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=True,
    ).stdout  # fmt: skip

    for source in SOURCES:
        for name, value in in_environment(connections[source]).items():
            monkeypatch.setenv(name, value)
    answers = {}
    for run, archive in archives.items():
        opened = open_archive(archive)
        answers[run] = [opened.outcome(one) is not None for one in opened.operations()]
    assert answers == {key: [True] for key in archives}, log[-20_000:]
    assert "Traceback" not in log, log[-20_000:]
    # The task that resumes after its wait knows the recordings that it has sent.
    assert sum(failing.removeprefix("s3:/") in str(one) for one in emulator.billing()) == 1
