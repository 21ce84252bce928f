"""Airflow stores rendered templates and DAGs: credentials of an address are in neither."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fixtures.direct import AIRFLOW_3, OGG
from tests.fixtures.emulator import airflow_connections
from tests.fixtures.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

SIGNATURE = "X-Amz-Signature=5ecret5ecret"

DAG_FILE = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator

with DAG("links", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False) as dag:

    @dag.task
    def links() -> list[str]:
        return ["LINK/2.ogg?SIGNATURE", "LINK/2.ogg#SIGNATURE"]

    about = {"language": "en-US"}
    SpeechKitSubmitOperator(task_id="literal", audio="LINK/1.ogg?SIGNATURE", **about)
    SpeechKitSubmitOperator(task_id="listed", audio=["LINK/1.ogg?SIGNATURE", "{{ var.value.link }}"], **about)
    SpeechKitSubmitOperator(task_id="templated", audio="{{ var.value.link }}", **about)
    SpeechKitSubmitOperator(task_id="handed_on", audio=links(), **about)
    SpeechKitSubmitOperator.partial(task_id="mapped", **about).expand(audio=links())
    SpeechKitSubmitOperator.partial(task_id="partial", audio="{{ var.value.link }}", **about).expand(
        labels=[{"call_id": "1"}]
    )
"""


PASSWORD = "5ecretpassw0rd"

PASSWORDS_FILE = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

KEYS, USER = "s3://KEY:PASSWORD@BUCKET/1.ogg", "https://user:PASSWORD@storage.yandexcloud.net/BUCKET/1.ogg"
TEMPLATE = "{{ var.value.address }}"
MANIFEST = {"format": "csv", "name": "n", "tables": {"recognitions": {"paths": [KEYS], "rows": 1}}}

with DAG("passwords", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False) as dag:
    SpeechKitSubmitOperator(task_id="keys", audio=KEYS)
    SpeechKitSubmitOperator(task_id="user", audio=[USER, KEYS + "{{ ds }}", USER + "{{ ds }}"])
    SpeechKitSubmitOperator(task_id="schemeless", audio="storage.yandexcloud.net/BUCKET/1.ogg?X-Amz-Signature=PASSWORD")
    SpeechKitSubmitOperator(task_id="templated", audio=[TEMPLATE], upload_to=TEMPLATE, bucket=TEMPLATE)
    SpeechKitSubmitOperator(task_id="archive", audio="s3://BUCKET/1.ogg", archive=TEMPLATE)
    SpeechKitSubmitOperator(
        task_id="signed", audio="s3://BUCKET/none.ogg", archive="s3://BUCKET/archive?X-Amz-Signature=PASSWORD"
    )
    SpeechKitSubmitOperator.partial(task_id="mapped", archive=KEYS).expand(audio=[USER, TEMPLATE])
    SpeechKitSubmitOperator.partial(task_id="mappings").expand_kwargs([{"audio": USER, "archive": KEYS}])
    SpeechKitRecognitionSensor(task_id="wait", operation_id="e03", archive=KEYS)
    SpeechKitRecognitionSensor(task_id="wait_templated", operation_id="e03", archive=TEMPLATE)
    SpeechKitTransformOperator(task_id="rows", operation_id="e03", target=KEYS, archive=TEMPLATE)
    SpeechKitTransformOperator(task_id="saved", files=[KEYS, TEMPLATE], target=TEMPLATE)
    SpeechKitToSqlOperator(task_id="load", tables=[MANIFEST])
"""


def test_airflow_stores_and_logs_no_password(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    (tmp_path / "passwords.py").write_text(
        PASSWORDS_FILE.replace("PASSWORD", PASSWORD).replace("BUCKET", emulator.bucket)
    )
    run = local_airflow.run(
        "passwords",
        environment={
            **airflow_connections(emulator, tmp_path / "archive"),
            "AIRFLOW_VAR_ADDRESS": f"s3://KEY:{PASSWORD}@{emulator.bucket}/1.ogg",
        },
        dags=tmp_path,
    )
    assert run.state == "failed", run.log[-5000:]
    assert set(run.tasks.values()) == {"failed"}, run.tasks
    assert PASSWORD not in run.log
    with closing(sqlite3.connect(run.database)) as connection:
        # The DAG's own file is kept as it is written.
        kept = [line for line in connection.iterdump() if not line.startswith('INSERT INTO "dag_code"')]
    assert not [line for line in kept if PASSWORD in line]
    assert sum(line.startswith('INSERT INTO "rendered_task_instance_fields"') for line in kept) >= len(run.tasks)


def test_no_rendered_field_or_literal_has_a_links_query(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    link = f"https://storage.yandexcloud.net/{emulator.bucket}/links"
    for name in ("1.ogg", "2.ogg", "3.ogg"):
        emulator.put(f"links/{name}", OGG)
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "links.py").write_text(DAG_FILE.replace("SIGNATURE", SIGNATURE).replace("LINK", link))
    run = local_airflow.run(
        "links",
        environment={
            **airflow_connections(emulator, tmp_path / "archive"),
            "AIRFLOW_VAR_LINK": f"{link}/3.ogg?{SIGNATURE}",
        },
        dags=dags,
    )
    assert run.state == "success", run.log[-5000:]

    with closing(sqlite3.connect(run.database)) as connection:
        found = connection.execute(
            "SELECT task_id, map_index, rendered_fields FROM rendered_task_instance_fields WHERE dag_id = 'links'"
        ).fetchall()
        kept = str(connection.execute("SELECT * FROM serialized_dag WHERE dag_id = 'links'").fetchall())
    audio = {
        (task_id, map_index): json.loads(fields)["audio"] for task_id, map_index, fields in found if "audio" in fields
    }
    first, second, third = (f"{link}/{number}.ogg" for number in (1, 2, 3))
    assert audio == {
        ("literal", -1): first,
        ("listed", -1): _as_kept([first, third], audio["listed", -1]),
        ("templated", -1): third,
        ("handed_on", -1): _as_kept([second, second], audio["handed_on", -1]),
        ("mapped", 0): second,
        ("mapped", 1): second,
        ("partial", 0): third,
    }
    assert SIGNATURE not in str(found)
    # Without a scheduler 2.11 keeps no DAG.
    assert ("links" in kept) == AIRFLOW_3
    assert SIGNATURE not in kept


def _as_kept(links: list[str], kept: object) -> object:
    """Airflow 2.11 keeps a list as a text."""
    return links if isinstance(kept, list) else str(links)
