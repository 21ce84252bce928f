from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_speechkit.api.credentials import IamToken
from airflow_speechkit.errors import (
    AnswerUnreadableError,
    ConnectionSettingsError,
    QuotaExceededError,
    RefusedError,
    ServiceFaultError,
    UnreachableError,
)
from tests.unit.api.loopback import (
    KEY,
    RUNNING,
    Carrier,
    ScriptedServer,
    answer,
    cut,
    get,
    reset,
    service_at,
    silent,
    submission,
)

NOW = 1_800_000_000.0
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_request_has_credentials_and_an_id_of_its_own(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(200, RUNNING)]
    for _ in range(2):
        carry(submission(server.url))
    first, second = server.received
    assert first.headers["authorization"] == f"Api-Key {KEY}"
    assert first.headers["user-agent"] == "tests"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["content-length"] == str(len(first.body))
    assert first.headers["x-client-request-id"] != second.headers["x-client-request-id"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_get_is_sent_again_with_growing_pauses(server: ScriptedServer, carry: Carrier, status: int) -> None:
    server.script = [answer(status), answer(status), answer(200, b"yes")]
    assert carry(get(server.url)).body == b"yes"
    assert carry.pauses == [1.0, 2.0]


@pytest.mark.parametrize("broken", [reset, cut(b'{"id":', 500)])
def test_a_get_that_breaks_off_is_sent_again(server: ScriptedServer, carry: Carrier, broken: Any) -> None:
    server.script = [broken, answer(200, b"yes")]
    assert carry(get(server.url)).body == b"yes"


def test_a_get_gives_up_after_its_attempts(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(503)]
    with pytest.raises(ServiceFaultError):
        carry(get(server.url, attempts=3))
    assert len(server.received) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 501])
def test_a_get_that_was_refused_for_good_is_not_sent_again(server: ScriptedServer, carry: Carrier, status: int) -> None:
    server.script = [answer(status)]
    with pytest.raises(RefusedError):
        carry(get(server.url))
    assert len(server.received) == 1


def test_a_short_retry_after_is_obeyed(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(429, retry_after="7"), answer(200)]
    carry(get(server.url))
    assert carry.pauses == [7.0]


def test_retry_after_that_is_too_long_is_left_to_the_caller(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(429, retry_after="600")]
    with pytest.raises(QuotaExceededError) as caught:
        carry(get(server.url))
    assert caught.value.retry_after_s == 600.0
    assert not carry.pauses


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("86400", 3600.0),
        ("604800", 3600.0),
        ("9" * 400, 3600.0),
        ("9" * 5000, 3600.0),
        ("Sat, 31 Dec 9999 23:59:59 GMT", None),
        ("²", None),
        ("-5", None),
        ("1.5", None),
        ("1e9", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("0, -", None),
        (";", None),
        ("", None),
    ],
)
def test_retry_after_is_bounded(server: ScriptedServer, text: str, seconds: float | None) -> None:
    server.script = [answer(429, retry_after=text)]
    with pytest.raises(QuotaExceededError) as caught:
        Carrier("requests")(get(server.url, now=lambda: NOW, attempts=1))
    assert caught.value.retry_after_s == seconds


# --- submissions


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 502, 503, 504])
def test_a_submission_that_was_answered_is_never_sent_again(
    server: ScriptedServer, carry: Carrier, status: int
) -> None:
    server.script = [answer(status)]
    with pytest.raises(RefusedError) as caught:
        carry(submission(server.url))
    assert len(server.received) == 1
    assert caught.value.may_have_been_accepted is (status >= 500)
    assert "hunter2" not in str(caught.value)


def test_a_submission_whose_answer_is_a_broken_connection_is_never_sent_again(
    server: ScriptedServer, carry: Carrier
) -> None:
    server.script = [reset]
    with pytest.raises(UnreachableError) as caught:
        carry(submission(server.url))
    assert len(server.received) == 1
    assert caught.value.may_have_been_accepted


def test_a_submission_whose_answer_is_cut_off_is_never_sent_again(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [cut(b'{"id":"e0', 60)]
    with pytest.raises(AnswerUnreadableError) as caught:
        carry(submission(server.url))
    assert len(server.received) == 1
    assert caught.value.may_have_been_accepted


def test_a_submission_that_is_not_answered_in_time_is_never_sent_again(server: ScriptedServer, carry: Carrier) -> None:
    def impatient(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        outcome = yield replace(next(steps), read_timeout_s=0.2)
        steps.send(outcome)

    server.script = [silent]
    with pytest.raises(UnreachableError, match="no bytes within") as caught:
        carry(impatient(submission(server.url)))
    assert len(server.received) == 1
    assert caught.value.may_have_been_accepted


def test_a_submission_that_was_not_sent_is_sent_again(server: ScriptedServer, carry: Carrier) -> None:
    nobody = f"http://127.0.0.1:{unused_port()}"
    with pytest.raises(UnreachableError, match="the connection was refused") as caught:
        carry(submission(nobody, attempts=3))
    assert carry.pauses == [1.0, 2.0]
    assert not caught.value.may_have_been_accepted
    assert nobody.removeprefix("http://") in str(caught.value)


def test_a_host_name_that_does_not_resolve_is_named_as_the_reason(carry: Carrier) -> None:
    url = "https://no-such-host.invalid"
    with pytest.raises(UnreachableError, match="can't be resolved") as caught:
        carry(submission(url, attempts=1))
    assert not caught.value.may_have_been_accepted


def test_a_submission_goes_out_on_a_fresh_connection_after_an_idle_time(
    server: ScriptedServer, monkeypatch: Any
) -> None:
    from airflow_speechkit.api import sync_transport

    monkeypatch.setattr(sync_transport, "_FRESH_S", -1.0)
    server.script = [answer(200, RUNNING)]
    transport = sync_transport.SyncTransport()
    for _ in range(3):
        transport.drive(submission(server.url))
    transport.close()
    assert len(server.received) == 3


def test_threads_share_one_pooled_session(server: ScriptedServer) -> None:
    from airflow_speechkit.api.sync_transport import SyncTransport

    transport = SyncTransport()
    service = service_at(server.url)
    threads = [
        threading.Thread(target=lambda: [transport.drive(service.operation("e03abc")) for _ in range(5)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    transport.close()
    assert len(server.received) == 40


def test_a_redirect_is_not_followed_with_the_key(server: ScriptedServer, carry: Carrier) -> None:
    server.script = [answer(307, location="http://127.0.0.1:1/elsewhere")]
    with pytest.raises(RefusedError, match="Redirects are not followed"):
        carry(get(server.url))
    assert len(server.received) == 1


def test_neither_a_netrc_nor_a_proxy_comes_between_key_and_loopback(
    server: ScriptedServer, carry: Carrier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    carry(get(server.url, IamToken("t1.mine")))
    assert server.received[0].headers["authorization"] == "Bearer t1.mine"


def test_the_environments_proxy_is_used_beyond_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_speechkit.api.network import proxy_for

    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("no_proxy", "transcribe.api.cloud.yandex.net")
    assert proxy_for("https://stt.api.cloud.yandex.net/stt") == "http://proxy.example.com:3128"
    assert proxy_for("https://transcribe.api.cloud.yandex.net/x") is None
    assert proxy_for("http://169.254.169.254/x") is None


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(PRIVATE.public_key())
        .serial_number(1)
        # The TLS library goes by the clock of the kernel, also where that of this process is another.
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(9999, 12, 31, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(PRIVATE.public_key()), critical=False)
        .sign(PRIVATE, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + PEM.encode())
    return path


@pytest.fixture
def tls_url(server: ScriptedServer, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    plain = server.socket
    server.socket = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
    return server.url.replace("http:", "https:")


def test_nothing_is_sent_to_a_server_with_an_untrusted_certificate(
    server: ScriptedServer, carry: Carrier, tls_url: str
) -> None:
    with pytest.raises(UnreachableError, match=r"TLS failed \(.*certificate") as caught:
        carry(submission(tls_url, attempts=2))
    assert not caught.value.may_have_been_accepted
    assert not server.received


def test_the_authorities_of_ca_bundle_are_trusted(carry: Carrier, tls_url: str, certificate: Path) -> None:
    carry.ca_bundle = str(certificate)
    assert carry(get(tls_url)).status == 200


def test_plain_http_where_tls_is_expected_sends_nothing(server: ScriptedServer, carry: Carrier) -> None:
    url = server.url.replace("http:", "https:")
    with pytest.raises(UnreachableError) as caught:
        carry(submission(url, attempts=1))
    assert not caught.value.may_have_been_accepted


def test_a_missing_ca_bundle_is_a_connection_error(carry: Carrier) -> None:
    carry.ca_bundle = "/nowhere/ca.pem"
    with pytest.raises(ConnectionSettingsError, match=r"/nowhere/ca\.pem"):
        carry(get("https://127.0.0.1:1"))
