"""Labels from keys, from JSON beside the recordings, and by address, on their way to `recognitions`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_speechkit.errors import RecordingError, SettingsError
from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import OGG, Desk, TaskInstance, wait_for
from tests.fixtures.manifests import paths_of

KEY = r"(?P<date>\d{8})_(?P<agent>[^_]+)_(?P<call_id>\d+)\.ogg$"
PHONE = "+7 900 000-00-00"


def put(desk: Desk, name: str, sidecar: str | None = None) -> str:
    """Put a recording, unlike any other, and its sidecar into the bucket."""
    if sidecar is not None:
        desk.emulator.put(f"{desk.prefix}/{name.rpartition('.')[0]}.json", sidecar.encode())
    return desk.put(name, OGG + name.encode())


def submit(audio: Any, **kwargs: Any) -> Any:
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, language="en-US", **kwargs).execute({})


def labels_of(desk: Desk, ids: list[str]) -> list[dict[str, str]]:
    return [dict(one.labels) for one in map(desk.archive.submission, ids) if one is not None]


def labels_in_rows(desk: Desk, ids: list[str]) -> dict[str, tuple[str, dict[str, str]]]:
    """Transform operations, and return status and labels in `recognitions` by the recordings' names."""
    import pyarrow.parquet as pq

    operator = SpeechKitTransformOperator(task_id="rows", operation_id=ids, target=str(desk.place / "tables"))
    rows = [row for path in paths_of(operator.execute({}), "recognitions") for row in pq.read_table(path).to_pylist()]
    return {row["audio_uri"].rpartition("/")[2]: (row["status"], json.loads(row["labels"])) for row in rows}


def test_a_prefix_with_sidecars_becomes_rows_with_labels(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    put(desk, "20261122_irina_17.ogg", f'{{"id": 9007199254740993, "rate": 1.10, "phone": "{PHONE}", "crm": null}}')
    put(desk, "20261122_oleg_18.ogg", '{"crm": {"queue": {"name": "sales"}, "vip": true}}')
    put(desk, "20261123_oleg_19.ogg", f'{{"phone": "{PHONE}"')
    put(desk, "test.ogg", "{}")
    with caplog.at_level(logging.DEBUG):
        ids = submit(
            f"s3://{desk.bucket}/{desk.prefix}/",
            labels={"source": "nightly"},
            labels_from_key=KEY,
            labels_from_sidecar="{stem}.json",
            sidecar_fields={"id": "id", "rate": "rate", "queue": "crm.queue.name", "vip": "crm.vip"},
            on_failure="record",
        )
        assert desk.billed() == 2
        wait = SpeechKitRecognitionSensor(task_id="w", operation_id=ids, poke_interval=0.1, on_failure="record")
        ids = wait_for(wait)
        rows = labels_in_rows(desk, ids)
    own, irina, oleg = {"source": "nightly"}, {"agent": "irina", "call_id": "17"}, {"agent": "oleg", "call_id": "18"}
    assert rows == {
        "20261122_irina_17.ogg": (
            "finished",
            {**own, **irina, "date": "20261122", "id": "9007199254740993", "rate": "1.10"},
        ),
        "20261122_oleg_18.ogg": ("finished", {**own, **oleg, "date": "20261122", "queue": "sales", "vip": "true"}),
        "20261123_oleg_19.ogg": ("refused", {**own, **oleg, "date": "20261123", "call_id": "19"}),
        "test.ogg": ("refused", own),
    }
    kept = "".join(path.read_text("latin-1") for path in Path(desk.archive_url).rglob("*") if path.is_file())
    assert PHONE not in caplog.text + kept


def test_a_recording_without_its_sidecar_fails_the_task_after_all_others_were_sent(desk: Desk) -> None:
    put(desk, "1.ogg", '{"call_id": 1}')
    put(desk, "2.ogg")
    about: dict[str, Any] = {"labels_from_sidecar": "{stem}.json", "sidecar_fields": ["call_id"]}
    prefix = f"s3://{desk.bucket}/{desk.prefix}/"
    with pytest.raises(RecordingError, match=r"The sidecar s3://.*/2\.json can't be used.*on_missing_labels='pass'"):
        submit(prefix, **about)
    assert desk.billed() == 1
    assert len(submit(prefix, **about, on_failure="skip")) == 1
    ids = submit(prefix, **about, on_missing_labels="pass")
    assert labels_of(desk, ids) == [{"call_id": "1"}, {}]
    put(desk, "2.ogg", '{"call_id": 2}')
    assert submit(prefix, **about) == ids
    assert labels_of(desk, ids) == [{"call_id": "1"}, {"call_id": "2"}]
    assert desk.billed() == 2


def test_labels_by_address_reach_what_a_prefix_lists(desk: Desk) -> None:
    first, _ = put(desk, "1.ogg"), put(desk, "2.ogg")
    prefix = f"s3://{desk.bucket}/{desk.prefix}/"
    labels = {f"{desk.emulator.storage_url}/{first.removeprefix('s3://')}": {"call_id": 17}}
    assert labels_of(desk, submit(prefix, labels=labels)) == [{"call_id": "17"}, {}]


def test_the_keywords_are_templates_and_recognize_has_them_too(desk: Desk) -> None:
    put(desk, "in/17.ogg")
    desk.emulator.put(f"{desk.prefix}/meta/17.json", b'{"agent": {"name": "Irina"}}')
    dag = DAG("calls", schedule=None, render_template_as_native_obj=True)
    task = SpeechKitRecognizeOperator(
        task_id="recognize",
        dag=dag,
        audio=f"s3://{desk.bucket}/{desk.prefix}/in/",
        language="en-US",
        poke_interval=0.1,
        deferrable=False,
        labels_from_key="{{ params.key }}",
        labels_from_sidecar=f"s3://{desk.bucket}/{desk.prefix}/{{{{ params.folder }}}}/{{stem}}.json",
        sidecar_fields="{{ params.fields }}",
    )
    params = {"key": r"(?P<call_id>\d{2})\.ogg", "folder": "meta", "fields": {"agent": "agent.name"}}
    context: Any = {"ti": TaskInstance(), "params": params}
    task.render_template_fields(context)
    assert labels_of(desk, task.execute(context)) == [{"call_id": "17", "agent": "Irina"}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels_from_key", r"\d+"),
        ("labels_from_key", "(?P<call_id>"),
        ("labels_from_sidecar", "{key}.json"),
        ("sidecar_fields", ["call_id"]),
        ("sidecar_fields", "call_id"),
        ("on_missing_labels", "skip"),
    ],
)
def test_an_invalid_keyword_is_named_before_anything_is_sent(desk: Desk, name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"`{name}`"):
        submit(put(desk, "1.ogg"), **{name: value})
    assert desk.billed() == 0
