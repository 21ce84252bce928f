"""A credential that was written into an address, a connection or a key is in nothing that is kept or raised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseHook, BaseOperator

from airflow_speechkit.api.credentials import AuthorizedKey, read_token
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import SpeechKitError
from airflow_speechkit.hooks.archive import archive_url
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.hooks.storage import object_storage_path, storage_client
from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.recordings.address import parse_address
from airflow_speechkit.recordings.pattern import parse_pattern
from airflow_speechkit.recordings.upload import parse_upload_to
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
from tests.unit.package.test_standards import OPERATORS

SECRET = "5ecret"
ADDRESSES = [
    f"https://u:{SECRET}@storage.yandexcloud.net/b/1.ogg",
    f"https://storage.yandexcloud.net/b/1.ogg?X-Amz-Signature={SECRET}",
    f"s3://KEY:{SECRET}@b/folder/",
    f"s3://KEY:5ec/{SECRET}@b/*.ogg",
    f"s3://b/folder?X-Amz-Signature={SECRET}",
    f"storage.yandexcloud.net/b/1.ogg?X-Amz-Signature={SECRET}",
    f"https://u:5ec/{SECRET}@storage.yandexcloud.net/b/1.ogg",
    f"https://storage.yandexcloud.net:{SECRET}/b/1.ogg",
    f"https://storage.yandexcloud.net/%ff?{SECRET}",
]
#: Where an operator takes addresses, and what else it must be given.
FIELDS: list[tuple[Any, str, dict[str, Any]]] = [
    *(
        (kind, field, {} if field == "audio" else {"audio": "1.ogg"})
        for kind in (SpeechKitSubmitOperator, SpeechKitRecognizeOperator)
        for field in ("audio", "bucket", "labels_from_sidecar", "archive", "upload_to")
    ),
    (SpeechKitTransformOperator, "target", {}),
    (SpeechKitTransformOperator, "files", {"target": "/tables"}),
    (SpeechKitTransformOperator, "archive", {"target": "/tables"}),
    (SpeechKitRecognitionSensor, "archive", {"operation_id": "e03"}),
    (SpeechKitToSqlOperator, "tables", {}),
]


def everything_in(error: BaseException) -> Iterator[str]:
    """What an error, and whatever it was raised from or beside, can say."""
    seen: BaseException | None = error
    while seen is not None:
        yield from map(
            str, (seen, repr(seen), seen.args, vars(seen), getattr(seen, "doc", ""), getattr(seen, "object", ""))
        )
        assert seen.__cause__ is None or seen.__context__ in (None, seen.__cause__)
        seen = seen.__cause__ or seen.__context__


def refused(act: Callable[[], Any]) -> None:
    with pytest.raises(SpeechKitError) as raised:
        act()
    said = " ".join(everything_in(raised.value))
    assert SECRET not in said
    assert "5ec" not in said


def test_every_operator_s_addresses_are_among_these() -> None:
    known = {(kind, field) for kind, field, _ in FIELDS}
    assert {(kind, field) for kind in OPERATORS for field in kind.address_fields} == known  # type: ignore[attr-defined]
    for kind in OPERATORS:
        named = {"audio", "bucket", "labels_from_sidecar", "archive", "upload_to", "target", "files", "tables"}
        assert named & set(kind.template_fields) == set(kind.address_fields)  # type: ignore[attr-defined]


@pytest.mark.parametrize("address", ADDRESSES[:6])
@pytest.mark.parametrize(("kind", "field", "given"), FIELDS)
def test_no_field_of_an_operator_holds_it(kind: Any, field: str, given: dict[str, Any], address: str) -> None:
    for value in (address, [address], {"paths": [address]}, f"{address}{{{{ ds }}}}"):
        operator = kind(task_id="one", **{**given, field: value})
        assert SECRET not in str(getattr(operator, field))
        rendered = kind(task_id="one", **{**given, field: "{{ address }}"})
        rendered.render_template_fields({"address": address})
        assert SECRET not in str(getattr(rendered, field))


@pytest.mark.parametrize("address", ADDRESSES[:6])
@pytest.mark.parametrize(("kind", "field", "given"), FIELDS)
def test_no_field_of_a_mapped_operator_holds_it(kind: Any, field: str, given: dict[str, Any], address: str) -> None:
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), default_args={field: address}):
        by_default = (
            kind.partial(task_id="by_default", **given).expand(speechkit_conn_id=["a"])
            if kind is not SpeechKitToSqlOperator
            else kind.partial(task_id="by_default").expand(conn_id=["a"])
        )
        partial = kind.partial(task_id="partial", **{**given, field: address})
        partial = (
            partial.expand(conn_id=["a"]) if kind is SpeechKitToSqlOperator else partial.expand(speechkit_conn_id=["a"])
        )
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        listed = kind.partial(task_id="listed", **given).expand(**{field: [address, [address]]})
        mappings = kind.partial(task_id="mappings", **given).expand_kwargs([{field: address}])
    for mapped in (by_default, partial, listed, mappings):
        assert SECRET not in str(mapped.partial_kwargs) + str(mapped.expand_input.value)


@pytest.mark.parametrize("address", ADDRESSES[:6])
@pytest.mark.parametrize("kind", [SpeechKitSubmitOperator, SpeechKitRecognizeOperator])
def test_no_address_that_labels_are_keyed_by_holds_it(kind: Any, address: str) -> None:
    labels = {address: {"call_id": "17"}}
    link = {"link": "https://crm/?id=17"}
    assert kind(task_id="one", audio="1.ogg", labels=link).labels == link, "it is the user's own"
    rendered = kind(task_id="one", audio="1.ogg", labels=labels)
    assert SECRET not in str(rendered.labels)
    rendered.labels = labels
    rendered.render_template_fields({})
    assert SECRET not in str(rendered.labels)
    assert "17" in str(rendered.labels)
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        partial = kind.partial(task_id="partial", labels=labels).expand(audio=["1.ogg"])
        listed = kind.partial(task_id="listed", audio="1.ogg").expand(labels=[labels])
    for mapped in (partial, listed):
        assert SECRET not in str(mapped.partial_kwargs) + str(mapped.expand_input.value)


def test_a_partial_that_is_never_expanded_is_still_airflow_s() -> None:
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        upstream = BaseOperator(task_id="upstream").output
        mapped = SpeechKitSubmitOperator.partial(task_id="mapped").expand(audio=upstream)
    assert mapped.upstream_task_ids == {"upstream"}


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_error_about_an_address_has_it(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps({"conn_type": "speechkit", "password": "key"}))
    monkeypatch.chdir(tmp_path)
    refused_or_none = (
        lambda: parse_address(address, ["https://storage.yandexcloud.net"]),
        lambda: parse_pattern(address),
        lambda: parse_upload_to(address),
        lambda: object_storage_path(address),
        lambda: Archive.at(object_storage_path(address)).probe(datetime.now(UTC)),
        lambda: archive_url(address, SpeechKitHook()),
    )
    for act in refused_or_none:
        try:
            made = act()
        except SpeechKitError as error:
            said = " ".join(everything_in(error))
        else:
            said = str(made)
        assert SECRET not in said, said


@pytest.mark.parametrize(
    "host",
    [
        f"u:{SECRET}@host",
        f"https://u:{SECRET}@host",
        f"https://u:5ec/{SECRET}@host",
        f"https://u:1/{SECRET}@host",
        f"http://host:{SECRET}",
    ],
)
@pytest.mark.parametrize("field", ["host", "recognition_host", "storage_host", "iam_host"])
def test_no_error_about_a_connection_s_host_has_it(host: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "speechkit", "password": "AQVNkey", "extra": {}}
    place = connection if field == "host" else connection["extra"]
    place[field] = host  # type: ignore[index]
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps(connection))
    refused(lambda: SpeechKitHook().connection)


@pytest.mark.parametrize("endpoint", [f"https://u:{SECRET}@host", f"https://u:5ec/{SECRET}@host"])
def test_no_error_about_the_bucket_s_connection_has_it(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "aws", "login": "k", "password": "s", "extra": {"endpoint_url": endpoint}}
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(connection))
    refused(lambda: storage_client("store", storage_endpoint="https://storage.yandexcloud.net"))
    refused(lambda: object_storage_path("s3://store@b/folder"))


KEY = json.dumps(
    {
        "id": "aje",
        "service_account_id": "ajf",
        "private_key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n",
    }
)


@pytest.mark.parametrize("cut", [KEY[:-1], KEY[:-30], KEY + "}", KEY.replace('"id"', "id"), f"{{{SECRET}"])
def test_no_error_about_an_authorized_key_has_it(cut: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(cut)
    (tmp_path / "latin1.json").write_bytes(KEY.encode() + b"\xff")
    refused(lambda: AuthorizedKey.from_json(cut))
    for about in (
        {"password": cut},
        {"extra": {"authorized_key": cut}},
        {"extra": {"authorized_key_path": str(tmp_path / "key.json")}},
        {"extra": {"authorized_key_path": str(tmp_path / "latin1.json")}},
        {"extra": f'{{"authorized_key": {cut},'},
    ):
        monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps({"conn_type": "speechkit", **about}))
        refused(lambda: SpeechKitHook().connection)
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps({"conn_type": "speechkit", "password": KEY})[:-9])
    monkeypatch.setattr(BaseHook, "get_connection", _not_found)
    refused(lambda: SpeechKitHook().connection)


def _not_found(*_: Any) -> Any:
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    raise AirflowNotFoundException("it isn't defined")


def test_no_error_about_a_private_key_or_a_token_has_it() -> None:
    refused(lambda: AuthorizedKey.from_json(KEY).jwt(1_800_000_000.0))
    for body in (f'{{"iamToken": "{SECRET}", "expiresAt": "never"}}', f'{{"iamToken": "{SECRET}"', f'["{SECRET}"]'):
        refused(lambda body=body: read_token(body.encode(), 0.0))
