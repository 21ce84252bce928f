"""Tasks mapped over the output of a submit: a list that Airflow would refuse is refused before anything is paid."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_speechkit.errors import (
    SettingsError,
)
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from tests.fixtures.direct import OGG, Desk


class _Mapped(BaseOperator):
    def __init__(self, *, given: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = given


def test_a_list_that_is_too_long_for_mapping_is_refused_before_anything_is_paid(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "1")
    audio = [desk.put("1.ogg"), desk.put("2.ogg")]
    with DAG("calls", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        mapped = SpeechKitSubmitOperator(task_id="mapped", audio=audio, language="en-US")
        _Mapped.partial(task_id="each").expand(given=mapped.output)
        whole = SpeechKitSubmitOperator(task_id="whole", audio=audio, language="en-US")
        _Mapped(task_id="all", given=whole.output)
    with pytest.raises(SettingsError, match=r"'each'.*max_map_length"):
        mapped.execute({})
    assert desk.billed() == 0
    assert len(whole.execute({})) == 2


def test_a_mapped_submit_accepts_lists_of_any_length(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "1")
    audio = [desk.put("1.ogg"), desk.put("2.ogg")]
    with DAG("calls", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        mapped = SpeechKitSubmitOperator.partial(task_id="mapped", language="en-US").expand(audio=[audio])
        _Mapped.partial(task_id="each").expand(given=mapped.output)
    assert len(dag.get_task("mapped").unmap({"audio": audio}).execute({})) == 2


def test_a_list_that_is_too_long_for_a_task_mapped_over_the_sensor_is_refused_before_uploads(
    desk: Desk, emulator_s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor

    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "1")
    audio = []
    for name in ("1.ogg", "2.ogg"):
        (tmp_path / name).write_bytes(OGG)
        audio.append(str(tmp_path / name))
    about: dict[str, Any] = {"language": "en-US", "upload_to": f"s3://{desk.bucket}/{desk.prefix}/uploads/"}
    with DAG("calls", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        mapped = SpeechKitSubmitOperator(task_id="mapped", audio=audio, **about)
        wait = SpeechKitRecognitionSensor(task_id="wait", operation_id=mapped.output)
        _Mapped.partial(task_id="each").expand(given=wait.output)
        whole = SpeechKitSubmitOperator(task_id="whole", audio=audio, **about)
        wait_for_all = SpeechKitRecognitionSensor(task_id="wait_for_all", operation_id=whole.output)
        _Mapped(task_id="all", given=wait_for_all.output)
        _Mapped.partial(task_id="others").expand(given=wait.output) << whole

    def uploaded() -> int:
        return int(emulator_s3.list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}/")["KeyCount"])

    with pytest.raises(SettingsError, match=r"'(each|others)'.*max_map_length"):
        mapped.execute({})
    assert uploaded() == 0
    assert len(whole.execute({})) == 2
    assert uploaded() == 2
