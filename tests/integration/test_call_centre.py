"""The call centre's DAG: mono files and JSON in the bucket become rows of stereo calls, each billed once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import duckdb
import numpy as np
import pytest

from tests.fixtures.emulator import airflow_connections
from tests.fixtures.environment import ROOT
from tests.unit.recordings.clicks import speech, written

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.local_airflow import LocalAirflow

DAG_ID = "speechkit_call_centre"
RATE = 8000


def a_law(samples: np.ndarray[Any, Any]) -> bytes:
    return written("pcm_alaw", "wav", RATE, 1, samples=samples.reshape(1, -1))


@pytest.fixture
def calls(emulator: EmulatorProcess) -> str:
    """A day of calls: answered, short, without a sound, with a stereo side, without JSON. And one of the next day."""
    calls = uuid4().hex
    agent, customer = speech("delivery.ogg", RATE)
    silence = np.zeros(10 * RATE)
    folder = f"{calls}/2026-11-21"
    for call, incoming, outgoing in (
        (17, customer, agent),
        (18, customer[: 2 * RATE], agent[: 3 * RATE]),
        (19, silence, silence),
        (21, customer, agent),
    ):
        emulator.put(f"{folder}/{call}-in.wav", a_law(incoming))
        emulator.put(f"{folder}/{call}-out.wav", a_law(outgoing))
    emulator.put(f"{folder}/20-in.wav", a_law(customer))
    emulator.put(f"{folder}/20-out.wav", written("pcm_alaw", "wav", RATE, 2))
    for call in (17, 18, 19, 20):
        sidecar = {"call_id": call, "queue": "sales", "number": "+7 900 000-00-00"}
        emulator.put(f"{folder}/{call}.json", json.dumps(sidecar).encode())
    emulator.put(f"{calls}/2026-11-22/22-in.wav", a_law(customer))
    return calls


def with_own_places(source: str, place: Path, emulator: EmulatorProcess, calls: str) -> str:
    for written_there, own in (
        ('"s3://calls/', f'"s3://{emulator.bucket}/{calls}/'),
        ('"s3://calls-converted/"', f'"s3://{emulator.bucket}/{calls}-converted/"'),
        ('"s3://lake/speech/"', f'"{(place / "tables").as_uri()}"'),
        ("deferrable=True", 'deferrable=True, language="en-US"'),
        ('"retries": 2', '"retries": 0'),
    ):
        assert source.count(written_there) == 1, written_there
        source = source.replace(written_there, own)
    return source


def test_a_night_becomes_rows_of_calls(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path, calls: str
) -> None:
    (dags := tmp_path / "dags").mkdir()
    source = (ROOT / f"dags/{DAG_ID}.py").read_text()
    (dags / f"{DAG_ID}.py").write_text(with_own_places(source, tmp_path, emulator, calls))

    def run_at(time: str) -> tuple[list[Any], list[Any]]:
        finished = local_airflow.run(
            DAG_ID,
            dags=dags,
            logical_date=f"2026-11-22T{time}",
            environment={
                **airflow_connections(emulator, (tmp_path / "archive").as_uri()),
                "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(tmp_path / "speech.duckdb")}),
            },
        )
        assert finished.state == "success", finished.log[-5000:]
        with duckdb.connect(str(tmp_path / "speech.duckdb"), read_only=True) as warehouse:
            return (
                warehouse.execute(
                    "SELECT audio_uri, paired_uri, status, filter_reason, channels, billed_seconds, model, labels "
                    "FROM recognitions ORDER BY audio_uri"
                ).fetchall(),
                warehouse.execute(
                    "SELECT labels ->> 'call_id', role, text FROM dialogue ORDER BY labels ->> 'call_id', turn"
                ).fetchall(),
            )

    folder = f"s3://{emulator.bucket}/{calls}/2026-11-21"
    recognitions, dialogue = run_at("12:00:00")
    assert [row[:-1] for row in recognitions] == [
        (f"{folder}/{call}-in.wav", f"{folder}/{call}-out.wav", *rest, "deferred-general")
        for call, *rest in (
            (17, "finished", None, 2, 17),
            (18, "filtered", "too_short", 2, 0),
            (19, "filtered", "silent", 2, 0),
            (20, "refused", None, None, None),
            (21, "refused", None, None, None),
        )
    ]
    roles = {"channel_0": "customer", "channel_1": "agent"}
    assert [json.loads(row[-1]) for row in recognitions] == [
        *({"call_id": str(call), "queue": "sales", **roles} for call in (17, 18, 19, 20)),
        roles,
    ]
    assert {call for call, _, _ in dialogue} == {"17"}
    assert dialogue[0] == ("17", "agent", "Good morning how can i help you today")
    assert dialogue[1][1] == "customer"
    assert run_at("13:00:00") == (recognitions, dialogue)
    assert sum(f"/{calls}-converted/" in str(one) for one in emulator.billing()) == 1
