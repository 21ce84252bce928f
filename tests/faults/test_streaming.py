"""Of 200 recordings with a quota of 50 the first answers are archived long before the last ones are submitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.faults.gate import Deed, Gate
from tests.faults.job import PATIENCE_S
from tests.faults.world import ARCHIVES, SAMPLES, World
from tests.fixtures.airflow import Component, RealAirflow

DAG_ID, NUMBER = "thousands", 200


@pytest.fixture
def service() -> Iterator[EmulatorProcess]:
    """A service that takes 50 recordings in its hour, which is five seconds long."""
    with EmulatorProcess("--submits-per-hour", "50", speed=720) as process:
        yield process


@pytest.fixture
def storage(service: EmulatorProcess) -> Iterator[Gate]:
    """The way to the service's buckets."""
    service.s3().create_bucket(Bucket=ARCHIVES)
    gate = Gate(urlsplit(service.storage_url).port or 80)
    yield gate
    gate.close()


def kill_worker(airflow: RealAirflow, run_id: str) -> None:
    path = f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/recognize"
    task = psutil.Process(int(airflow.call("GET", path)["pid"]))
    for process in (task.parent(), task):
        assert process is not None
        process.kill()


def test_answers_come_in_while_recordings_wait_whoever_is_killed(
    world: World, service: EmulatorProcess, storage: Gate
) -> None:
    recording = (SAMPLES / "message.ogg").read_bytes()
    said = {"channels": [{"utterances": [{"text": "два слова", "start_ms": 0, "end_ms": 900}]}], "processing_s": 0}
    for number in range(NUMBER):
        service.put(f"calls/{number:03}.ogg", recording + number.to_bytes(2), said)
    # The second visit comes so late that the triggerer can begin anew and archive answers, however slow it is here.
    service.fault("429", on="submit", after=50, times=1, retry_after="120")
    here, airflow = replace(world, emulator=service), world.airflow
    here.add_storage("small-storage", storage.url)
    here.add_speechkit("small-quota", "small-storage", service.url)
    airflow.add_dag(Path(__file__).parent / "dags" / "thousands.py")
    conf = {"audio": f"s3://{service.bucket}/calls/", "archive": f"s3://{ARCHIVES}/thousands"}
    run_id = airflow.trigger(DAG_ID, conf)

    airflow.wait_for_tasks(DAG_ID, run_id, {("recognize", -1): "deferred"})
    airflow.kill(Component.TRIGGERER)
    # The worker that goes on is killed before it sends anything: what is on its way would be lost.
    held = storage.add(Deed.HOLD, r"GET /archives/\S+/runs/")
    airflow.launch(Component.TRIGGERER)
    assert held.struck.wait(PATIENCE_S)
    kill_worker(airflow, run_id)
    held.drop()

    assert airflow.wait_for_run(DAG_ID, run_id) == "success", airflow.task_log(DAG_ID, run_id, "recognize")
    ids, archive = airflow.xcom(DAG_ID, run_id, "recognize"), here.archive_in_bucket("thousands")
    assert len(set(ids)) == NUMBER
    assert list(Counter(line["recording"] for line in service.billing()).values()) == [1] * NUMBER
    outcomes = [one for one in map(archive.outcome, ids) if one]
    submissions = [one for one in map(archive.submission, ids) if one]
    assert len(outcomes) == len(submissions) == NUMBER
    assert min(one.at for one in outcomes) < sorted(one.submitted_at for one in submissions)[99]
