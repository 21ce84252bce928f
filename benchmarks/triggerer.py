"""Two thousand deferred tasks in one real triggerer, each waiting for one operation of the emulator.

    python benchmarks/triggerer.py [--tasks 2000] [--json FILE]

Two ways, one after the other in the same Airflow (PostgreSQL, API server, a new triggerer, the connection through the
execution API), on the same operations: `SpeechKitRecognitionSensor`, and a naive trigger for each task, which checks
every 10 s with a separate session and archives nothing. Measured: the time until all triggers run, memory (each
shared page once) and CPU time of the triggerer with all its processes, the number of checks, the delays from an
operation's end to the check that shows it and to the resumption of its task, and Airflow's warnings of a blocked
event loop.

To start 2,000 workers that only defer would take most of an hour on two cores. Instead, the deferrals are written
into the metadata database with Airflow's ORM, as the execution API does for a worker; the triggers are those that the
sensor's `execute` defers with. No scheduler runs, so a resumed task stays `scheduled`. The emulator's quota is
lifted, and the connection's limit is 50 checks a second, 90 times v2's default. Within the real quota, 2,000 ends
take an hour at least.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psutil

    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.airflow import RealAirflow

ROOT = Path(__file__).parents[1]
CHECKS_PER_SECOND = 50
NAIVE_INTERVAL_S = 10.0
#: The length of all recordings: by the documented speed it takes the middle of these times.
FIRST_DONE_S, SPREAD_S = 150.0, 100.0
AUDIO_S = (FIRST_DONE_S + SPREAD_S / 2) * 6
PATIENCE_S = 600.0
WAYS = {"shared": "SpeechKitRecognitionSensor", "naive": "a naive trigger each"}

DAGS = """
from airflow.sdk import DAG, task

from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from benchmarks.triggerer import NaiveWait


@task
def submitted():
    return []


with DAG("shared", schedule=None):
    SpeechKitRecognitionSensor.partial(task_id="wait", deferrable=True).expand(operation_id=submitted())

with DAG("naive", schedule=None):
    NaiveWait.partial(task_id="wait").expand(operation_id=submitted())
"""


class NaiveTrigger(BaseTrigger):
    """Checks one operation every 10 s."""

    def __init__(self, *, operation_id: str, speechkit_conn_id: str) -> None:
        super().__init__()
        self.operation_id = operation_id
        self.speechkit_conn_id = speechkit_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        fields = {"operation_id": self.operation_id, "speechkit_conn_id": self.speechkit_conn_id}
        return "benchmarks.triggerer.NaiveTrigger", fields

    async def run(self) -> AsyncIterator[TriggerEvent]:
        import aiohttp
        from airflow.providers.common.compat.connection import get_async_connection

        connection = await get_async_connection(self.speechkit_conn_id)
        about = f"{connection.host}/operations/{self.operation_id}"
        async with aiohttp.ClientSession(headers={"Authorization": f"Api-Key {connection.password}"}) as session:
            while True:
                async with session.get(about) as answer:
                    answer.raise_for_status()
                    operation = await answer.json()
                if operation["done"]:
                    yield TriggerEvent({"operation_id": self.operation_id})
                    return
                await asyncio.sleep(NAIVE_INTERVAL_S)


class NaiveWait(BaseOperator):
    """Defers to a :class:`NaiveTrigger`."""

    def __init__(self, *, operation_id: str, speechkit_conn_id: str = "speechkit_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation_id = operation_id
        self.speechkit_conn_id = speechkit_conn_id

    def execute(self, context: Any) -> None:
        trigger = NaiveTrigger(operation_id=self.operation_id, speechkit_conn_id=self.speechkit_conn_id)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(hours=1))

    def execute_complete(self, context: Any, event: dict[str, Any]) -> str:
        return str(event["operation_id"])


def write_deferrals() -> int:
    """Write a run with deferred mapped tasks in one transaction; runs in a process with that Airflow's environment."""
    from airflow.models.dagbag import DBDagBag
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.sdk.exceptions import TaskDeferred
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor

    asked = json.load(sys.stdin)
    way, ids = asked["way"], asked["ids"]
    if way == "shared":
        record_submissions(asked["archive"], ids, asked["submitted_at"])

    def deferral(operation_id: str) -> TaskDeferred:
        task = (
            SpeechKitRecognitionSensor(
                task_id="wait", operation_id=operation_id, deferrable=True, archive=asked["archive"]
            )
            if way == "shared"
            else NaiveWait(task_id="wait", operation_id=operation_id)
        )
        try:
            task.execute({})
        except TaskDeferred as deferred:
            return deferred
        raise AssertionError(f"the task for {operation_id} did not defer")

    deferrals = [deferral(one) for one in ids]
    now = datetime.now(UTC)
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag(way, session=session)
        run = dag.create_dagrun(
            run_id="benchmark",
            run_after=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        instances = {one.task_id: one for one in run.get_task_instances(session=session)}
        instances["submitted"].state = TaskInstanceState.SUCCESS
        version_id = instances["wait"].dag_version_id
        session.delete(instances["wait"])
        session.flush()
        for index, deferred in enumerate(deferrals):
            trigger = Trigger.from_object(deferred.trigger)
            session.add(trigger)
            session.flush()
            instance = TaskInstance(
                dag.get_task("wait"),
                dag_version_id=version_id,
                run_id="benchmark",
                state=TaskInstanceState.DEFERRED,
                map_index=index,
            )
            instance.try_number = 1
            instance.start_date = now
            instance.trigger_id = trigger.id
            instance.trigger_timeout = now + deferred.timeout
            instance.next_method = deferred.method_name
            instance.next_kwargs = {}
            session.add(instance)
    return 0


def record_submissions(archive_url: str, ids: list[str], submitted_at: float) -> None:
    """Record the submissions in the archive, so that the sensor knows the recordings' lengths."""
    from airflow_speechkit.archive.ledger import fingerprint
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Recording, Submission
    from airflow_speechkit.settings import RecognitionSettings

    archive, settings = Archive.at(archive_url), RecognitionSettings()
    for number, operation_id in enumerate(ids):
        address = f"s3://recordings/{number}.ogg"
        submission = Submission(
            operation_id=operation_id,
            fingerprint=fingerprint(Recording(audio_uri=address, version="1", settings=settings)),
            audio_uri=address,
            settings=settings,
            submitted_at=datetime.fromtimestamp(submitted_at, UTC),
            duration_ms=round(1000 * AUDIO_S),
            channels=1,
        )
        archive.record_submission(1, "benchmark", submission)


class Usage:
    """The CPU time and memory of processes, sampled once a second.

    :param processes: the triggerer's main process, which uses the database, and the one with the event loop
    """

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self._over = threading.Event()
        self._began_s, self.first_mb = self._look()
        self.processor_s, self.peak_mb = [0.0 for _ in processes], self.first_mb
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _look(self) -> tuple[list[float], float]:
        spent = [process.cpu_times() for process in self._processes]
        memory = sum(process.memory_full_info().pss for process in self._processes)
        return [one.user + one.system for one in spent], memory / 2**20

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            processor_s, memory_mb = self._look()
            self.processor_s = [now - first for now, first in zip(processor_s, self._began_s, strict=True)]
            self.peak_mb = max(self.peak_mb, memory_mb)

    def end(self) -> None:
        self._over.set()
        self._thread.join()


def states(airflow: RealAirflow, way: str) -> list[tuple[int, str, str, datetime | None]]:
    """The tasks: map index, state, the method to resume with, and the time at which they were scheduled."""
    import psycopg2

    url = airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    connection = psycopg2.connect(url)
    try:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT map_index, state, next_method, scheduled_dttm FROM task_instance"
            " WHERE dag_id = %s AND task_id = 'wait'",
            [way],
        )
        return list(cursor.fetchall())
    finally:
        connection.close()


def started(airflow: RealAirflow, way: str) -> list[float]:
    """The time at which each trigger began to run, from its task's log."""
    times = []
    for path in (airflow.logs / f"dag_id={way}").rglob("*.trigger.*.log"):
        lines = (json.loads(line) for line in path.read_text().splitlines())
        first = next(line for line in lines if line["event"].endswith(" starting"))
        times.append(datetime.fromisoformat(first["timestamp"]).timestamp())
    return times


def quantile(values: list[float], share: float) -> float:
    chosen = sorted(values)
    return chosen[min(int(share * len(chosen)), len(chosen) - 1)] if chosen else float("nan")


def one_way(airflow: RealAirflow, emulator: EmulatorProcess, way: str, tasks: int, archive: Path) -> dict[str, Any]:
    from airflow_speechkit.archive.store import Archive
    from tests.fixtures.airflow import Component

    airflow.launch(Component.TRIGGERER)
    airflow.wait_until_healthy(Component.API_SERVER, Component.TRIGGERER)
    emulator.clear_requests()
    log_from = len(airflow.component_log(Component.TRIGGERER))
    usage = Usage(airflow.process(Component.TRIGGERER).processes())
    submitted_at = time.time()
    ids = emulator.stand_ins(tasks, processing_s=FIRST_DONE_S, spread_s=SPREAD_S)
    asked = {"way": way, "ids": ids, "submitted_at": submitted_at, "archive": str(archive)}
    written = subprocess.run(
        [sys.executable, "-m", "benchmarks.triggerer", "--write-deferrals"],
        input=json.dumps(asked), env=airflow.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if written.returncode:
        raise RuntimeError(f"The deferrals were not written:\n{written.stderr[-3000:]}")
    begun = time.time()
    while any(state == "deferred" for _, state, _, _ in states(airflow, way)):
        if time.time() > begun + PATIENCE_S:
            print(f"{way}: tasks were still deferred after {PATIENCE_S:g} s", file=sys.stderr)
            break
        time.sleep(3.0)
    usage.end()
    found = states(airflow, way)
    checks = [one for one in emulator.request_log() if one["kind"] == "operation"]
    last = {one["path"].rpartition("/")[2]: one["wall_s"] for one in checks}
    ends = {one: submitted_at + FIRST_DONE_S + SPREAD_S * number / tasks for number, one in enumerate(ids)}
    seen = [last[one] - ends[one] for one in ids if one in last]
    resumed = [at.timestamp() - ends[ids[index]] for index, _, _, at in found if at is not None]
    log = airflow.component_log(Component.TRIGGERER)[log_from:]
    blocked = [float(seconds) for seconds in re.findall(r"async thread was blocked for ([\d.]+) seconds", log)]
    starts = started(airflow, way)
    airflow.stop_component(Component.TRIGGERER)
    kept = Archive.at(str(archive))
    return {
        "way": WAYS[way],
        "tasks": tasks,
        "running": len(starts),
        "all_running_s": round(max(starts, default=float("nan")) - begun, 1),
        "events": sum(state == "scheduled" and method == "execute_complete" for _, state, method, _ in found),
        "archived": sum(kept.outcome(one) is not None for one in ids),
        "checks": sum(emulator.requests().get("operation", {}).values()),
        "seen_median_s": round(median(seen), 1),
        "seen_p95_s": round(quantile(seen, 0.95), 1),
        "resumed_median_s": round(median(resumed), 1),
        "resumed_p95_s": round(quantile(resumed, 0.95), 1),
        "processor_s": round(sum(usage.processor_s), 1),
        "event_loop_s": round(sum(usage.processor_s[1:]), 1),
        "idle_mb": round(usage.first_mb),
        "peak_mb": round(usage.peak_mb),
        "blocked": len(blocked),
        "blocked_longest_s": max(blocked, default=0.0),
    }


def measure(tasks: int, home: Path) -> list[dict[str, Any]]:
    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.airflow import Component, RealAirflow
    from tests.fixtures.postgres import start_postgres

    cluster = Path(tempfile.mkdtemp(prefix="speechkit-pg-"))
    cluster.chmod(0o755)
    server, database = start_postgres(cluster)
    settings = {
        "AIRFLOW__TRIGGERER__CAPACITY": str(2 * tasks),
        # Airflow's defaults; those of the test harness are for tests that kill processes.
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "5",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "30",
        "PYTHONPATH": str(ROOT),
    }
    airflow = RealAirflow(home / "airflow", server, settings)
    archive = home / "archive"
    archive.mkdir()
    try:
        with EmulatorProcess("--v2-checks-per-hour", "100000000", speed=1.0) as emulator:
            airflow.add_dag(DAGS, "waits.py")
            airflow.cli("db", "migrate")
            airflow.cli("dags", "reserialize")
            airflow.launch(Component.API_SERVER)
            airflow.wait_until_healthy(Component.API_SERVER)
            extra = {"archive": str(archive), "checks_per_hour": CHECKS_PER_SECOND * 3600}
            airflow.add_connection(
                "speechkit_default", "speechkit", host=emulator.url, password=emulator.api_key, extra=json.dumps(extra)
            )
            rows = []
            for way in WAYS:
                rows.append(one_way(airflow, emulator, way, tasks, archive))
                print(rows[-1], file=sys.stderr, flush=True)
            return rows
    finally:
        airflow.stop()
        database.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Two thousand deferred tasks in one real triggerer.")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--write-deferrals", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write_deferrals:
        return write_deferrals()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="speechkit-triggerer-", ignore_cleanup_errors=True) as home:
        rows = measure(arguments.tasks, Path(home))
    print("The deferrals were written into Airflow's database by its own ORM; no worker and no scheduler ran.")
    print(f"{'':18}" + "".join(f"  {row['way']:>26}" for row in rows))
    for name in (name for name in rows[0] if name != "way"):
        print(f"{name:18}" + "".join(f"  {row[name]:>26}" for row in rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"ways": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
