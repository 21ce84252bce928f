"""Labels that are added or corrected later are in the warehouse after another transform and load, at no cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import duckdb
import psycopg2
import pytest

from airflow_speechkit.cli import main
from airflow_speechkit.errors import SettingsError
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
from tests.fixtures.direct import Desk, TaskInstance, wait_for
from tests.fixtures.environment import ROOT
from tests.fixtures.postgres import PostgresServer

TWO_CHANNELS = (ROOT / "emulator/speechkit_emulator/samples/refund.ogg").read_bytes()

Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(params=["duckdb", "postgres"])
def ask(request: pytest.FixtureRequest, desk: Desk) -> Ask:
    """Ask the warehouse, an empty database behind the connection `warehouse`."""
    if request.param == "duckdb":
        path = str(desk.place / "speech.duckdb")
        desk.environment.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "duckdb", "host": path}))

        def ask_duckdb(sql: str) -> list[tuple[Any, ...]]:
            with duckdb.connect(path, read_only=True) as connection:
                return connection.execute(sql).fetchall()

        return ask_duckdb
    server: PostgresServer = request.getfixturevalue("postgres")
    database = server.create_database()
    about = {"host": server.host, "port": server.port, "schema": database, "login": server.user}
    connection = {"conn_type": "postgres", **about, "password": server.password}
    desk.environment.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))

    def ask_postgres(sql: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(server.url(database))) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    return ask_postgres


def submit(audio: Any, map_index: int = -1, **keywords: Any) -> Any:
    """Run a submit as a task instance, mapped or not."""
    ti = TaskInstance()
    ti.map_index = map_index  # type: ignore[misc]
    context: Any = {"ti": ti}
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, language="en-US", **keywords).execute(context)


def transform_and_load(desk: Desk, ids: Any) -> None:
    rows = SpeechKitTransformOperator(task_id="rows", operation_id=ids, target=str(desk.place / "t"))
    SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=rows.execute({}), views=True).execute({})


def test_corrected_labels_are_in_rows_and_views_whoever_corrected_them(desk: Desk, ask: Ask) -> None:
    said = [{"utterances": [{"text": "good morning"}]}, {"utterances": [{"text": "hello"}]}]
    audio = [desk.put("1.ogg", TWO_CHANNELS, channels=said), desk.put("2.ogg", TWO_CHANNELS, channels=said)]
    # A mapped submit has a task instance for each recording.
    ids = [submit(audio[0], 0, labels={"channel_0": "agent", "channel_1": "customer"}), submit(audio[1], 1)]
    wait_for(SpeechKitRecognitionSensor(task_id="wait", operation_id=ids, poke_interval=0.1))
    transform_and_load(desk, ids)

    def rows() -> dict[str, tuple[Any, ...]]:
        found = ask(
            "SELECT operation_id, labels ->> 'call_id', labels ->> 'channel_0', labels ->> 'channel_1' "
            "FROM recognitions"
        )
        assert len(found) == len(ids), "one row each"
        return {one[0]: one[1:] for one in found}

    first, second = ids
    assert rows() == {first: (None, "agent", "customer"), second: (None, None, None)}
    paid = desk.billed()

    # Labels that weren't there yet: a later submit adds them, and corrects none.
    for place, one in enumerate(ids):
        assert submit(audio[place], place, labels={"call_id": str(place), "channel_0": "customer"}) == one
    transform_and_load(desk, ids)
    assert rows() == {first: ("0", "agent", "customer"), second: ("1", "customer", None)}

    # Swapped roles.
    swapped = {"channel_0": "customer", "channel_1": "agent"}
    assert submit(audio[0], 0, labels=swapped, labels_update=True) == first
    archive = ["archive", "label", "--archive", desk.archive_url]
    assert main([*archive, second, "channel_0=agent", "channel_1=customer"]) == 0
    transform_and_load(desk, ids)
    assert rows() == {first: ("0", "customer", "agent"), second: ("1", "agent", "customer")}
    roles = (
        "SELECT DISTINCT operation_id, channel, role FROM dialogue WHERE labels ->> 'call_id' = '0' ORDER BY channel"
    )
    assert [one[2] for one in ask(roles)] == ["customer", "agent"]

    with SpeechKitHook() as hook:
        assert hook.label({first: {"call_id": 17}, audio[1]: {"call_id": 18, "channel_1": None}}) == 2
        assert hook.label({first: {"call_id": 17}, audio[1]: {"call_id": 18, "channel_1": None}}) == 0
    transform_and_load(desk, ids)
    assert rows() == {first: ("17", "customer", "agent"), second: ("18", "agent", None)}
    assert desk.billed() == paid == 2


def test_the_recognize_operator_corrects_labels_too(desk: Desk) -> None:
    audio = desk.put()
    ids = []
    for labels_update, role in ((False, "agent"), ("{{ params.correct }}", "customer")):
        task = SpeechKitRecognizeOperator(
            task_id="recognize", audio=audio, language="en-US", labels={"role": role}, labels_update=labels_update,
            deferrable=False,
        )  # fmt: skip
        context: Any = {"ti": TaskInstance(), "params": {"correct": True}}
        task.render_template_fields(context)
        ids.append(task.execute(context))
    submission = desk.archive.submission(ids[0])
    assert submission is not None
    assert (submission.labels, ids[1]) == ({"role": "customer"}, ids[0])
    assert desk.billed() == 1


def test_a_damaged_label_record_stops_no_wait_and_no_other_rows(desk: Desk) -> None:
    ids = submit([desk.put("1.ogg"), desk.put("2.ogg")], labels={"role": "agent"})
    desk.archive.folder.replace(f"operations/{ids[0]}/labels-0001.json", b'{"labels": "hunter2"')
    assert wait_for(SpeechKitRecognitionSensor(task_id="wait", operation_id=ids, poke_interval=0.1)) == ids
    rows = SpeechKitTransformOperator(task_id="rows", operation_id=ids, target=str(desk.place / "t")).execute({})
    assert rows["operations"] == 1
    [(unread, reason)] = rows["unread"]["operations"].items()
    assert unread == ids[0]
    assert "labels-0001.json is damaged" in reason
    assert "hunter2" not in json.dumps(rows)


def test_a_label_correction_records_its_task(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    operation_id = desk.on_record("e03known")
    monkeypatch.setattr("airflow.providers.common.compat.sdk.get_current_context", lambda: {"ti": TaskInstance()})
    with SpeechKitHook() as hook:
        assert hook.label({operation_id: {"role": "agent"}}) == 1
    [record] = desk.archive.label_records(operation_id)
    assert json.loads(record.by) == ["calls", "monday", "wait", -1]


def test_invalid_labels_are_refused_by_the_hook_and_change_nothing(desk: Desk) -> None:
    operation_id = desk.on_record("e03known")
    with SpeechKitHook() as hook:
        for wrong in ({operation_id: "a=b"}, {operation_id: {"": "b"}}, {operation_id: {1: "b"}}, {7: {"a": "b"}}):
            with pytest.raises(SettingsError, match=r"mappings? of names to texts"):
                hook.label(wrong)  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match="`archive` is False"):
            hook.label({operation_id: {"a": "b"}}, archive=False)  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match="e03unknown is not in the archive"):
            hook.label({operation_id: {"a": "b"}, "e03unknown": {"a": "b"}})
    submission = desk.archive.submission(operation_id)
    assert submission is not None
    assert submission.labels == {}
