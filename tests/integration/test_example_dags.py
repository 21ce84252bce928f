"""Airflow runs each example DAG to its end, and stores nothing but ids, paths and counts."""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import duckdb
import pytest

from airflow_speechkit.archive.ledger import Failure
from airflow_speechkit.archive.store import Archive
from tests.fixtures.emulator import airflow_connections
from tests.fixtures.environment import ROOT
from tests.fixtures.local_airflow import FinishedRun, LocalAirflow
from tests.unit.results.answers import final, submission, v3

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

RECORDING = (ROOT / "emulator/speechkit_emulator/samples/delivery.ogg").read_bytes()
#: A word that nothing else in an Airflow's logs or database contains.
SAID = "quincunxes"


@dataclass(frozen=True)
class World:
    """One test's bucket, archive and warehouse."""

    airflow: LocalAirflow
    emulator: EmulatorProcess
    place: Path
    prefix: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            **airflow_connections(self.emulator, self.archive.as_uri()),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(self.place / "speech.duckdb")}),
        }

    @property
    def archive(self) -> Path:
        return self.place / "archive"

    @property
    def target(self) -> str:
        return (self.place / "tables").as_uri()

    def record(self, name: str, text: str = f"the {SAID} of a garden", **transcript: Any) -> str:
        said = {"channels": [{"utterances": [{"text": text, "start_ms": 500}]}, {"utterances": []}]} | transcript
        self.emulator.put(f"{self.prefix}/{name}", RECORDING, said)
        return f"s3://{self.emulator.bucket}/{self.prefix}/{name}"

    def run(self, dag_id: str, **conf: Any) -> FinishedRun:
        run = self.airflow.run(dag_id, conf=conf, environment=self.environment)
        self.nothing_leaked(run)
        return run

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.place / "speech.duckdb"), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def nothing_leaked(self, run: FinishedRun) -> None:
        """Search everything that Airflow stores for transcripts and credentials."""
        kept = {"log": run.log}
        kept |= {str(file): file.read_text() for file in (self.airflow.home / "logs").rglob("*") if file.is_file()}
        for table in ("xcom", "rendered_task_instance_fields", "trigger", "task_instance", "dag_run"):
            kept[table] = str(run._query(f"SELECT * FROM {table} WHERE 1 OR (? = ?)"))
        for where, text in kept.items():
            for secret in (SAID, self.emulator.api_key, self.emulator.secret_access_key):
                assert secret not in text, f"{where} tells {secret!r}"


@pytest.fixture
def world(local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path) -> World:
    return World(local_airflow, emulator, tmp_path, uuid4().hex)


def test_a_prefix_becomes_rows_and_a_second_run_costs_nothing(world: World) -> None:
    world.record("1.ogg")
    world.record("2.ogg", "nothing else")
    billed = len(world.emulator.billing())
    conf = {"audio": f"s3://{world.emulator.bucket}/{world.prefix}/*.ogg", "target": world.target}
    for _ in range(2):
        run = world.run("speechkit_to_warehouse", **conf)
        assert run.state == "success", run.log[-5000:]
        assert run.tasks == {(task, -1): "success" for task in ("recognize", "rows", "load")}
        ids = run.xcom("recognize")
        assert len(ids) == 2
        assert all(len(one) == 20 for one in ids)
        manifest = run.xcom("rows")
        assert manifest["rows"]["words"] == 7
        assert world.rows("SELECT count(*), min(status), max(status) FROM recognitions") == [
            (2, "finished", "finished")
        ]
        assert world.rows("SELECT count(*) FROM words") == [(7,)]
    assert len(world.emulator.billing()) == billed + 2
    kept = {file.name for file in (world.archive / "operations").glob(f"{ids[0]}/*")}
    assert len(kept) == 3, kept


def test_mapped_calls_have_their_labels_and_a_backfill_reads_them_from_the_archive(
    world: World,
) -> None:
    calls = [
        {"audio": world.record("1.ogg"), "labels": {"call_id": "17", "channel_1": "customer"}},
        {"audio": world.record("2.ogg"), "labels": {"call_id": "18", "channel_1": "agent"}},
    ]
    run = world.run("speechkit_one_task_per_call", calls=calls, target=world.target)
    assert run.state == "success", run.log[-5000:]
    ids = [run.xcom("submit", map_index=index) for index in range(2)]
    assert [run.xcom("wait", map_index=index) for index in range(2)] == ids
    labelled = {
        one: json.loads(labels)["call_id"]
        for one, labels in world.rows("SELECT operation_id, labels FROM recognitions")
    }
    assert labelled == dict(zip(ids, ["17", "18"], strict=True))

    asked = world.emulator.requests()
    (world.place / "speech.duckdb").unlink()
    others = put_on_record(Archive.at(world.archive))
    for per_task in (1, 3000):
        backfill = world.run("speechkit_backfill_archive", target=f"{world.target}-again", per_task=per_task)
        assert backfill.state == "success", backfill.log[-5000:]
        prefixes = sorted({one[:5] for one in (*ids, *others)})
        shards = [[one] for one in prefixes] if per_task == 1 else [prefixes]
        assert backfill.xcom("prefixes") == shards
        states = [backfill.tasks["rows", index] for index in range(len(shards))]
        # Of those whose id begins with e04 none has ended.
        assert states == ["skipped" if one == ["e04ru"] else "success" for one in shards]
        found = dict(world.rows("SELECT recognition_id, status FROM recognitions"))
        assert found == {ids[0]: "finished", ids[1]: "finished", **{k: v for k, v in others.items() if v}}
        files = duckdb.sql(f"SELECT count(*) FROM '{world.place}/tables-again/recognitions/*/*.parquet'").fetchall()
        assert files == [(len(found),)]
    assert world.emulator.requests() == asked


def put_on_record(archive: Archive) -> dict[str, str | None]:
    """An operation of v3, a recording that was refused and an operation that runs; give their ids and states."""
    now = datetime(2026, 11, 22, 10, tzinfo=UTC)
    answer = replace(v3(final("0", 0, ("слово", 1, 2))), operation_id="f8d40vv9kf1kvb7pqa3j")
    for number, operation_id in enumerate((answer.operation_id, "e04running0000000000")):
        archive.record_submission(1, "a task", submission(operation_id, fingerprint=f"{number}" * 64))
    archive.keep(answer, now=now)
    refused = archive.refuse(submission("planned", fingerprint="a" * 64), Failure(3, "no header"), now)
    return {answer.operation_id: "finished", refused: "refused", "e04running0000000000": None}


def test_a_backfill_divides_the_operations_into_tasks_of_about_the_requested_size() -> None:
    shards = runpy.run_path(str(ROOT / "dags/speechkit_backfill_archive.py"))["shards"]
    letters = "0123456789abcdefghijklmnopqrstuv"
    ids = [f"e03{a}{b}{number:04d}" for a in letters for b in letters for number in range(10)]
    for some in ([], ids[:1], ids, [*ids, *(f"refused-{number:04d}" for number in range(999))]):
        for per_task, most in ((1, 256), (300, 256), (3000, 256), (3000, 2), (100_000, 1)):
            found = shards(some, per_task, most)
            assert len(found) <= most
            of_task = [sum(one.startswith(tuple(prefixes)) for one in ids) for prefixes in found]
            assert sum(of_task) >= len(set(ids) & set(some))
            assert max(of_task, default=0) <= max(per_task, -(-len(some) // most)) + 10
    assert [len(one) for one in shards(ids, 3000, 256)] == [300, 300, 300, 124]


def test_a_failed_recognition_fails_the_wait_with_its_code_and_its_recording(world: World) -> None:
    address = world.record("1.ogg", error={"code": 13, "message": "Audio could not be processed"})
    run = world.run("speechkit_one_task_per_call", calls=[{"audio": address}], target=world.target)
    assert run.state == "failed"
    assert run.tasks["wait", 0] == "failed"
    assert run.tasks["rows", -1] == "upstream_failed"
    assert "RecognitionFailedError" in run.log
    assert "Audio could not be processed (code 13)" in run.log
    assert address in run.log
