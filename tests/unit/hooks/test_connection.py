from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_speechkit.api.credentials import ApiKey, AuthorizedKey, IamToken, Metadata
from airflow_speechkit.errors import ConnectionSettingsError
from airflow_speechkit.hooks.connection import (
    SpeechKitConnection,
    read_connection,
    secrets_in,
    unknown_fields,
)
from airflow_speechkit.provider import get_provider_info
from airflow_speechkit.settings import ApiVersion

PEM = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
KEY_FILE = {"id": "ajek", "service_account_id": "ajes", "private_key": f"PLEASE DO NOT REMOVE THIS LINE!\n{PEM}"}


def read(conn_type: str | None = "speechkit", **given: Any) -> SpeechKitConnection:
    fields = {"host": None, "port": None, "schema": None, "password": None, **given}
    extra = fields.pop("extra", {})
    return read_connection(SimpleNamespace(conn_id="mine", conn_type=conn_type, extra_dejson=extra, **fields))


@pytest.mark.parametrize(
    ("given", "credential"),
    [
        ({"password": " AQVNkey\n"}, ApiKey("AQVNkey")),
        ({"extra": {"api_key": "AQVNkey"}}, ApiKey("AQVNkey")),
        ({"extra": {"api_key": "Api-Key AQVNkey"}}, ApiKey("AQVNkey")),
        ({"password": "AQVNkey", "extra": {"api_key": "AQVNkey"}}, ApiKey("AQVNkey")),
        ({"extra": {"iam_token": "Bearer t1.a"}}, IamToken("t1.a")),
        ({"extra": {"authorized_key": json.dumps(KEY_FILE)}}, AuthorizedKey.from_json(KEY_FILE)),
        ({"extra": {"authorized_key": KEY_FILE}}, AuthorizedKey.from_json(KEY_FILE)),
        ({"password": json.dumps(KEY_FILE)}, AuthorizedKey.from_json(KEY_FILE)),
        ({"extra": {"service_account_json": KEY_FILE}}, AuthorizedKey.from_json(KEY_FILE)),
        ({"extra": {"use_metadata": True}}, Metadata()),
        ({"extra": {"use_metadata": "true", "api_key": ""}}, Metadata()),
        ({"extra": {"use_metadata": False, "api_key": "AQVNkey", "iam_token": None}}, ApiKey("AQVNkey")),
        ({"extra": {"extra__speechkit__api_key": "AQVNkey"}}, ApiKey("AQVNkey")),
    ],
)
def test_each_way_to_say_who_asks(given: dict[str, Any], credential: object) -> None:
    assert read(**given).credential == credential


@pytest.mark.parametrize("name", ["authorized_key_path", "service_account_json_path"])
def test_a_key_in_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "key.json").write_text(json.dumps(KEY_FILE))
    assert read(extra={name: str(tmp_path / "key.json")}).credential == AuthorizedKey.from_json(KEY_FILE)
    with pytest.raises(ConnectionSettingsError, match="can't be read"):
        read(extra={name: str(tmp_path / "none.json")})


def test_a_yandexcloud_connection_is_understood() -> None:
    extra = {
        "extra__yandexcloud__service_account_json": json.dumps(KEY_FILE),
        "folder_id": "b1g",
        "endpoint": "api.cloud.yandex.net",
    }
    found = read("yandexcloud", extra=extra, password="of something else", host="somewhere")
    assert found.credential == AuthorizedKey.from_json(KEY_FILE)
    assert found.folder_id == "b1g"
    assert found.endpoints.iam == "https://iam.api.cloud.yandex.net"
    assert read("yandexcloud").credential == Metadata()


def test_another_installation_has_to_name_its_hosts() -> None:
    extra = {"endpoint": "api.yandexcloud.kz"}
    with pytest.raises(ConnectionSettingsError, match=r"endpoint.*recognition_host"):
        read("yandexcloud", extra=extra)
    named = read("yandexcloud", extra={**extra, "recognition_host": "stt.api.ml.yandexcloud.kz"})
    assert named.endpoints.recognition == "https://stt.api.ml.yandexcloud.kz"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"host": "127.0.0.1", "port": 8080}, "http://127.0.0.1:8080"),
        ({"host": "localhost/base", "port": 8080}, "http://localhost:8080/base"),
        ({"host": "[::1]", "port": 8080}, "http://[::1]:8080"),
        ({"host": "[::1]"}, "http://[::1]"),
        ({"host": "http://127.0.0.1:1", "port": 2}, "http://127.0.0.1:1"),
        ({"host": "stt.example", "port": 8443}, "https://stt.example:8443"),
        ({"host": "stt.example:8443/x"}, "https://stt.example:8443/x"),
    ],
)
def test_a_host_is_written_as_people_write_hosts(given: dict[str, Any], url: str) -> None:
    assert read(password="AQVNkey", **given).endpoints.operations == url


def test_an_oauth_token_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConnectionSettingsError, match=r"service accounts only.*service_account_json") as caught:
        read("yandexcloud", extra={"oauth": "y0_hunter2", "folder_id": "b1g"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "the connection has no key and no token"),
        ({"conn_type": "aws", "password": "hunter2"}, "of type `aws`"),
        (
            {"password": "hunter2", "extra": {"iam_token": "t1.hunter2"}},
            "more than one credential: `iam_token`, `password`",
        ),
        ({"password": "t1.hunter2"}, "has an IAM token"),
        ({"password": "hunter2 hunter2"}, "characters that no key"),
        ({"password": "hunter2ё"}, "characters that no key"),
        ({"password": '{"private_key": "hunter2"}'}, "isn't a JSON object with `id`"),
        ({"extra": {"authorized_key": "hunter2"}}, "isn't a JSON object"),
        ({"password": "hunter2", "extra": {"api_version": "v1"}}, "`api_version` must be v2 or v3"),
        ({"password": "hunter2", "extra": {"checks_per_hour": "many"}}, "`checks_per_hour` must be a number"),
        (
            {"password": "hunter2", "extra": {"submits_per_hour": 0}},
            "`submits_per_hour` must be a whole number above zero",
        ),
        ({"password": "hunter2", "extra": {"use_metadata": "perhaps"}}, "`use_metadata` must be true or false"),
        ({"password": "hunter2", "extra": {"archive": ["a"]}}, "`archive` must be a text"),
        ({"password": "hunter2", "extra": {"iam_host": "http://iam.example.com"}}, "plain HTTP"),
        ({"password": "hunter2", "host": "http://speech.example.com"}, "plain HTTP"),
    ],
)
def test_what_is_wrong_is_named_with_its_connection_and_without_its_secret(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConnectionSettingsError, match=says) as caught:
        read(**given)
    assert str(caught.value).startswith("Connection `mine`: ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"host": "http://127.0.0.1:8888"}, "http://127.0.0.1:8888"),
        ({"host": "127.0.0.1", "port": 8888}, "http://127.0.0.1:8888"),
        ({"host": "http://127.0.0.1", "port": 8888}, "http://127.0.0.1:8888"),
        ({"host": "speech.example.com"}, "https://speech.example.com"),
        ({"host": "speech.example.com", "port": 8443}, "https://speech.example.com:8443"),
        ({"host": "localhost", "port": 1, "schema": "https"}, "https://localhost:1"),
    ],
)
def test_one_host_sets_all_but_the_storage(given: dict[str, Any], url: str) -> None:
    found = read(password="k", **given).endpoints
    assert {found.recognition, found.recognition_v3, found.operations, found.iam, found.metadata} == {url}
    assert found.storage == "https://storage.yandexcloud.net"


def test_hosts_are_set_one_by_one() -> None:
    extra = {
        "recognition_host": "https://a.kz",
        "recognition_v3_host": "stt.api.ml.yandexcloud.kz",
        "operations_host": "https://c.kz",
        "iam_host": "https://d.kz",
        "metadata_host": "http://169.254.169.254",
        "storage_host": "https://storage.yandexcloud.kz",
    }
    found = read(password="k", extra=extra).endpoints
    assert found.recognition == "https://a.kz"
    assert found.recognition_v3 == "https://stt.api.ml.yandexcloud.kz"
    assert found.storage == "https://storage.yandexcloud.kz"


def test_a_connection_from_a_uri_has_strings_for_everything() -> None:
    extra = {
        "api_version": "v3",
        "data_logging_enabled": "false",
        "submits_per_hour": "100",
        "checks_per_hour": "1000",
        "checks_per_second": "2.5",
        "archive": " s3://bucket/archive ",
        "aws_conn_id": "aws_mine",
    }
    found = read(password="k", extra=extra)
    assert found.api_version is ApiVersion.V3
    assert found.data_logging_enabled is False
    assert (found.submits_per_hour, found.checks_per_hour, found.checks_per_second) == (100, 1000.0, 2.5)
    assert found.archive == "s3://bucket/archive"
    assert found.aws_conn_id == "aws_mine"


def test_what_is_masked_includes_the_private_key_inside() -> None:
    secrets = secrets_in("pass", {"authorized_key": json.dumps(KEY_FILE), "iam_token": "t1.a", "archive": "s3://b"})
    assert {"pass", json.dumps(KEY_FILE), KEY_FILE["private_key"], "t1.a"} == set(secrets)
    assert KEY_FILE["private_key"] in secrets_in(json.dumps(KEY_FILE), {})


def test_no_repr_shows_a_secret() -> None:
    assert "hunter2" not in repr(read(password="hunter2"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("achive", "archive"),
        ("Archive", "archive"),
        ("apikey", "api_key"),
        ("storagehost", "storage_host"),
        ("submit_per_hour", "submits_per_hour"),
        ("extra__speechkit__aws_con_id", "aws_conn_id"),
    ],
)
def test_a_typing_error_in_the_name_of_a_field_is_refused(name: str, meant: str) -> None:
    short = name.removeprefix("extra__speechkit__")
    with pytest.raises(ConnectionSettingsError, match=rf"`mine`: .*`{short}` \(did you mean `{meant}`\?\)"):
        read(password="AQVNkey", extra={name: "hunter2"})


def test_fields_of_other_tools_are_no_error() -> None:
    extra = {"api_key": "AQVNkey", "team": "speech", "archive_url": "s3://x/y", "achive": ""}
    assert read(extra=extra).credential == ApiKey("AQVNkey")
    assert list(unknown_fields(extra)) == ["team", "archive_url"]


def test_every_field_of_the_form_is_known() -> None:
    assert unknown_fields(dict.fromkeys(get_provider_info()["connection-types"][0]["conn-fields"], "x")) == {}
    # The yandex provider's.
    yandex = ("folder_id", "oauth", "public_ssh_key", "service_account_json", "service_account_json_path", "endpoint")
    assert unknown_fields({f"extra__yandexcloud__{name}": "x" for name in yandex}) == {}
