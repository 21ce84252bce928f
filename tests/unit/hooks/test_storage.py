"""Requirements on reaching Object Storage through the amazon provider's connection."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from airflow_speechkit.errors import ConnectionSettingsError, SettingsError
from airflow_speechkit.hooks.storage import object_storage_path, storage_client

REAL = "https://storage.yandexcloud.net"


def connection(**extra: Any) -> str:
    return json.dumps({"conn_type": "aws", "login": "id", "password": "secret", "extra": extra})


@pytest.fixture
def own(s3_endpoint: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket, and the connections `aws_default` and `own` that lead to it."""
    for name in ("AWS_DEFAULT", "OWN"):
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{name}",
            connection(endpoint_url=s3_endpoint, region_name="ru-central1", config_kwargs={"read_timeout": 7}),
        )
    s3_client.create_bucket(Bucket="calls", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
    return s3_client


def test_the_client_comes_from_the_connection_with_its_own_settings_first(own: Any, s3_endpoint: str) -> None:
    client = storage_client("own", storage_endpoint=s3_endpoint)

    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["calls"]
    config = client.meta.config
    assert (config.read_timeout, config.connect_timeout, config.max_pool_connections) == (7, 10, 32)
    assert config.request_checksum_calculation == "when_required"
    client.close()


def test_a_connection_without_an_endpoint_leads_to_the_storage_that_the_service_reads_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BARE", connection())
    client = storage_client("bare", storage_endpoint=REAL)

    assert (client.meta.endpoint_url, client.meta.region_name) == (REAL, "ru-central1")
    client.close()


def test_two_different_storages_are_pointed_out(own: Any, s3_endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        storage_client("own", storage_endpoint=s3_endpoint).close()
        assert "the same storage" not in caplog.text
        storage_client("own", storage_endpoint=REAL).close()

    assert "if these aren't the same storage" in caplog.text


def test_a_missing_bucket_connection_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for ask in (
        lambda: storage_client("nowhere", storage_endpoint=REAL),
        lambda: object_storage_path("s3://nowhere@calls/archive/"),
        lambda: object_storage_path("s3://calls/archive/", "nowhere"),
    ):
        with pytest.raises(ConnectionSettingsError, match=r"no connection `nowhere`.*endpoint_url"):
            ask()


def test_a_missing_default_connection_is_an_error() -> None:
    for ask in (
        lambda: storage_client(storage_endpoint=REAL),
        lambda: object_storage_path("s3://calls/archive/"),
    ):
        with pytest.raises(ConnectionSettingsError, match="no connection `aws_default`"):
            ask()


def test_a_connection_without_keys_is_refused_not_used_anonymously(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", json.dumps({"conn_type": "aws"}))
    with pytest.raises(ConnectionSettingsError, match="The connection `empty` has no keys"):
        object_storage_path("s3://empty@calls/archive/")


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:SECRET@calls/archive",
        "s3://AKIA:SEC/RET+SECRET@calls/archive",
        "s3://:SECRET@calls/archive",
        "S3://AKIA:SECRET@calls/archive",
        "s3a://AKIA:SECRET@calls/archive",
        "gs://AKIA:SECRET@calls/archive",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match=r"looks like a key.*Airflow connection") as refused:
        object_storage_path(url)

    assert "AKIA" not in str(refused.value)
    assert "SECRET" not in str(refused.value)


# Airflow 2.11's own paths provoke it.
@pytest.mark.filterwarnings("ignore:in a future version of UPath:PendingDeprecationWarning")
@pytest.mark.parametrize("url", ["zz://x", "hdfs://host:9000/archive", "http://host/archive"])
def test_an_address_that_airflow_knows_no_filesystem_for_is_refused_by_its_scheme(url: str) -> None:
    with pytest.raises(SettingsError, match=rf"{url.partition(':')[0]}://.*Write s3://bucket/folder"):
        object_storage_path(url)


def test_an_address_that_can_not_be_read_is_refused(own: Any) -> None:
    with pytest.raises(SettingsError, match="isn't a valid address"):
        object_storage_path("s3://own@[calls/archive")


# Airflow 2.11's own paths provoke it.
@pytest.mark.filterwarnings("ignore:in a future version of UPath:PendingDeprecationWarning")
@pytest.mark.parametrize("url", ["s3://own@calls/archive/", "s3://calls/archive/"])
def test_a_path_sees_at_once_what_another_process_has_written(own: Any, url: str) -> None:
    path = object_storage_path(url)

    assert not (path / "1.json").exists()
    assert path.fs.find("calls/archive") == []
    own.put_object(Bucket="calls", Key="archive/1.json", Body=b"{}")
    assert (path / "1.json").exists()
    assert [one.name for one in path.iterdir()] == ["1.json"]
    assert path.fs.find("calls/archive") == ["calls/archive/1.json"]
    own.put_object(Bucket="calls", Key="archive/2.json", Body=b"{}")
    assert [one.name for one in path.iterdir()] == ["1.json", "2.json"]
    own.delete_object(Bucket="calls", Key="archive/1.json")
    assert path.fs.find("calls/archive") == ["calls/archive/2.json"]


def test_a_local_path_is_taken_too(tmp_path: Any) -> None:
    (tmp_path / "1.json").write_bytes(b"{}")

    assert [one.name for one in object_storage_path(f"file://{tmp_path}").iterdir()] == ["1.json"]
    assert [one.name for one in object_storage_path(str(tmp_path)).iterdir()] == ["1.json"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_reached_directly_whatever_proxy_the_environment_names(
    s3_client: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    s3_client.create_bucket(Bucket="calls", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
    endpoint = s3_endpoint.replace("127.0.0.1", host)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    aws = {"conn_type": "aws", "login": "test", "password": "test", "extra": {"endpoint_url": endpoint}}
    monkeypatch.setenv(f"AIRFLOW_CONN_BEHIND_{host[:3].upper()}", json.dumps(aws))
    conn_id = f"behind_{host[:3]}"
    client = storage_client(conn_id, storage_endpoint=endpoint)
    client.put_object(Bucket="calls", Key="a", Body=b"1")
    client.close()
    path = object_storage_path(f"s3://{conn_id}@calls/a")
    assert path.read_bytes() == b"1"


def test_a_folder_in_a_bucket_without_s3fs_names_the_extra(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the import system itself keeps for a module that isn't there.
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(SettingsError, match=r"needs the package s3fs.*pip install 'airflow-speechkit\[s3\]'"):
        object_storage_path("s3://own@calls/archive")
    assert object_storage_path("file:///archive").fs is not None


def test_recordings_in_a_bucket_need_no_s3fs(own: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)

    client = storage_client("own", storage_endpoint=s3_endpoint)
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["calls"]
    client.close()
