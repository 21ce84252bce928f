from __future__ import annotations

import pytest

from airflow_speechkit.api.endpoints import Endpoints
from airflow_speechkit.errors import ConnectionSettingsError


def test_the_real_hosts_are_the_defaults_and_take_https() -> None:
    real = Endpoints()
    assert real.recognition == "https://transcribe.api.cloud.yandex.net"
    assert real.operations == "https://operation.api.cloud.yandex.net"
    assert real.metadata == "http://169.254.169.254"


@pytest.mark.parametrize(
    "url", ["http://localhost:8080", "http://127.0.0.1:1", "http://127.8.8.8", "http://[::1]:80/", "https://a.b/x/"]
)
def test_loopback_may_do_without_tls(url: str) -> None:
    assert Endpoints.at(url).recognition == url.rstrip("/")
    assert Endpoints.at(url).storage == "https://storage.yandexcloud.net"


@pytest.mark.parametrize(
    "url",
    [
        "http://transcribe.api.cloud.yandex.net",
        "http://127.0.0.1.example.com",
        "http://10.0.0.7:8080",
        "http://0.0.0.0:80",
        "http://localhost.example.com",
        "http://169.254.169.254",
    ],
)
def test_plain_http_that_leaves_the_machine_is_refused(url: str) -> None:
    with pytest.raises(ConnectionSettingsError, match=r"plain HTTP|travel in the clear"):
        Endpoints(recognition=url)


@pytest.mark.parametrize(
    "url", ["", "transcribe", "ftp://a", "https://", "https://u:hunter2@a", "https://a?hunter2", "https://a:hunter2"]
)
def test_what_is_no_address_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConnectionSettingsError) as caught:
        Endpoints(iam=url)
    assert "hunter2" not in str(caught.value)
    assert "`iam`" in str(caught.value)


def test_the_metadata_service_is_reached_in_the_clear_on_the_machines_own_link_only() -> None:
    assert Endpoints(metadata="http://169.254.169.254/").metadata == "http://169.254.169.254"
    with pytest.raises(ConnectionSettingsError):
        Endpoints(metadata="http://metadata.example.com")
