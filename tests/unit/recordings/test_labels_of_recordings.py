"""Labels are read from a recording's key, and from the JSON object beside it."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from airflow_speechkit.errors import RecordingError, StorageError
from airflow_speechkit.models import Recording
from airflow_speechkit.recordings.labels import LabelRules
from airflow_speechkit.recordings.source import RecordingSource
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from tests.unit.recordings.sounds import ogg

KEY = r"(?P<date>\d{8})_(?P<agent>[^_]+)_(?P<call_id>\d+)\.ogg"
SECRET = "+7 900 000-00-00"


def rules(key: str | None = None, sidecar: str | None = None, fields: Any = None, on_missing: str = "fail") -> Any:
    return LabelRules.of(key, sidecar, fields or (sidecar and ["call_id"]), on_missing)


@pytest.fixture
def client(s3_client: Any) -> Any:
    s3_client.create_bucket(Bucket="calls", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
    return s3_client


def source_of(client: Any, **about: Any) -> RecordingSource:
    settings = RecognitionSettings(api_version=ApiVersion.V3)
    return RecordingSource(settings, "https://storage.yandexcloud.net", "aws_default", lambda _: client, **about)


def put(client: Any, objects: dict[str, bytes | str]) -> None:
    for key, content in objects.items():
        client.put_object(Bucket="calls", Key=key, Body=content)


def resolve(client: Any, audio: Any, where: LabelRules, labels: Any = None) -> list[Recording]:
    source = source_of(client)
    findings = source.find(audio)
    return source.resolve(findings, labels or [{} for _ in findings.places], where)


def test_sidecars_are_not_taken_for_recordings_and_each_is_read_once(client: Any) -> None:
    for number in range(20):
        put(client, {f"{number:02}.ogg": ogg(), f"{number:02}.json": f'{{"call_id": {number}}}'})
    read: Counter[str] = Counter()
    client.meta.events.register("provide-client-params.s3.GetObject", lambda params, **_: read.update([params["Key"]]))
    source = source_of(client)
    findings = source.find("s3://calls/")
    # The first bytes tell what isn't named like audio.
    read.clear()
    found = source.resolve(findings, [{}] * 20, rules(sidecar="{stem}.json"))
    assert [one.labels for one in found] == [{"call_id": str(number)} for number in range(20)]
    assert not any(one.error for one in found)
    assert read == {f"{number:02}.json": 1 for number in range(20)}
    again = source.resolve_again(found)
    assert [one.labels for one in again] == [one.labels for one in found]
    assert read.total() == 20


def test_the_task_s_own_labels_come_before_the_sidecar_s_and_these_before_the_key_s(client: Any) -> None:
    put(client, {"k.ogg": ogg(), "k.json": '{"b": "sidecar", "c": "sidecar"}'})
    where = rules("(?P<a>k)(?P<b>.)(?P<c>.)", "{stem}.json", ["b", "c"])
    [one] = resolve(client, ["s3://calls/k.ogg"], where, [{"c": "own"}])
    assert one.labels == {"a": "k", "b": "sidecar", "c": "own"}


@pytest.mark.parametrize("content", [None, "", "{", '{"call_id": ["+7 900 000-00-00"]}'])
def test_a_recording_whose_sidecar_can_not_be_used_fails_alone(client: Any, content: str | None) -> None:
    put(client, {"1.ogg": ogg(), "1.json": '{"call_id": 1}', "2.ogg": ogg()})
    if content is not None:
        put(client, {"2.json": content})
    first, second = resolve(client, "s3://calls/*.ogg", rules("(?P<name>.)[.]", "{stem}.json"))
    assert (first.labels, first.error) == ({"name": "1", "call_id": "1"}, None)
    assert second.labels == {"name": "2"}
    assert isinstance(second.error, RecordingError)
    assert second.error.recording == "s3://calls/2.ogg"
    assert re.search(r"The sidecar s3://calls/2\.json can't be used.*on_missing_labels='pass'", str(second.error))
    assert "recording is empty" not in str(second.error)
    assert SECRET not in str(second.error)


def test_with_pass_recordings_go_without_and_one_line_counts_them(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    put(client, {"1_17.ogg": ogg(), "1_17.json": "{", "2.ogg": ogg(), "3_18.ogg": ogg()})
    put(client, {"3_18.json": f'{{"call_id": 18, "phone": "{SECRET}"}}'})
    where = rules(r"_(?P<n>\d+)", "{stem}.json", ["call_id"], on_missing="pass")
    with caplog.at_level(logging.INFO):
        found = resolve(client, "s3://calls/*.ogg", where)
    assert [one.labels for one in found] == [{"n": "17"}, {}, {"n": "18", "call_id": "18"}]
    assert not any(one.error for one in found)
    [line] = [one.getMessage() for one in caplog.records if one.name.startswith("airflow_speechkit")]
    assert line.startswith("2 recordings lack labels from their key or sidecar (on_missing_labels='pass'), such as: ")
    assert "s3://calls/1_17.ogg" in line
    assert SECRET not in caplog.text


def test_a_missing_recording_keeps_its_own_error_and_the_labels_of_its_key(client: Any) -> None:
    [one] = resolve(client, ["s3://calls/20261122_a_1.ogg"], rules(KEY, "{stem}.json"), [{"own": "1"}])
    assert one.labels == {"date": "20261122", "agent": "a", "call_id": "1", "own": "1"}
    assert "no such object" in str(one.error)


@pytest.mark.parametrize("on_missing", ["fail", "pass"])
def test_a_storage_that_is_away_is_not_a_missing_sidecar(client: Any, on_missing: str) -> None:
    put(client, {"1.ogg": ogg(), "1.json": "{}"})

    def away(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://storage")

    client.meta.events.register("before-call.s3.GetObject", away)
    [one] = resolve(client, ["s3://calls/1.ogg"], rules(sidecar="{stem}.json", on_missing=on_missing))
    assert isinstance(one.error, StorageError)
    assert one.error.retry_can_help
    assert one.error.recording == "s3://calls/1.ogg"
    assert "The sidecar s3://calls/1.json" in str(one.error)


def test_a_local_file_has_its_sidecar_on_the_disk(client: Any, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.ogg").write_bytes(ogg())
    (tmp_path / "1.json").write_text('{"call_id": 1}')
    audio = [str(tmp_path / "1.ogg"), (tmp_path / "2.ogg").as_uri()]
    first, second = resolve(client, audio, rules(sidecar="{stem}.json"))
    assert first.labels == {"call_id": "1"}
    assert f"The sidecar {tmp_path}/2.json can't be used: The file can't be read" in str(second.error)
    assert second.error is not None
    assert second.error.recording == str(tmp_path / "2.ogg")
