from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_speechkit.api.credentials import ApiKey, AuthorizedKey, Credential, IamToken, Metadata, Token
from airflow_speechkit.errors import AuthenticationError
from tests.unit.api.loopback import KEY, RUNNING, Carrier, ScriptedServer, answer, get, reset, service_at, submission

NOW = 1_800_000_000.0
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
AUTHORIZED = AuthorizedKey("ajek", "ajes", PEM)
IAM = "/iam/v1/tokens"
METADATA = "/computeMetadata/v1/instance/service-accounts/default/token"


def iam_token(value: str, life_s: float = 43200) -> Any:
    ends = dt.datetime.fromtimestamp(NOW + life_s, dt.UTC).isoformat()
    return answer(200, {"iamToken": value, "expiresAt": ends})


def test_an_authorized_key_is_exchanged_once_and_the_token_kept(server: ScriptedServer, carry: Carrier) -> None:
    server.scripts[IAM] = [iam_token("t1.one")]
    service = service_at(server.url, AUTHORIZED, now=lambda: NOW)
    for _ in range(3):
        carry(service.operation("e03abc"))
    assert [request.path for request in server.received] == [IAM, *["/operations/e03abc"] * 3]
    assert list(server.received[0].json) == ["jwt"]
    assert {request.headers.get("authorization") for request in server.received[1:]} == {"Bearer t1.one"}


def test_a_token_is_renewed_after_an_hour(server: ScriptedServer, carry: Carrier) -> None:
    server.scripts[IAM] = [iam_token("t1.one"), iam_token("t1.two")]
    tokens: dict[tuple[Credential, str], Token] = {}
    for now in (NOW, NOW + 3599, NOW + 3600):
        carry(get(server.url, AUTHORIZED, tokens=tokens, now=lambda now=now: now))
    sent = [request.headers["authorization"] for request in server.received if request.path != IAM]
    assert sent == ["Bearer t1.one", "Bearer t1.one", "Bearer t1.two"]


@pytest.mark.parametrize("make", [get, submission])
def test_a_token_that_is_refused_is_renewed_once(server: ScriptedServer, carry: Carrier, make: Any) -> None:
    server.scripts[IAM] = [iam_token("t1.one"), iam_token("t1.two")]
    server.script = [answer(401), answer(200, RUNNING)]
    carry(make(server.url, AUTHORIZED, now=lambda: NOW))
    sent = [request.headers["authorization"] for request in server.received if request.path != IAM]
    assert sent == ["Bearer t1.one", "Bearer t1.two"]


def test_a_second_refusal_is_the_answer(server: ScriptedServer, carry: Carrier) -> None:
    server.scripts[IAM] = [iam_token("t1.one")]
    server.script = [answer(401)]
    with pytest.raises(AuthenticationError):
        carry(get(server.url, AUTHORIZED, now=lambda: NOW))
    assert len(server.received) == 4


@pytest.mark.parametrize("credential", [ApiKey(KEY), IamToken("t1.x")])
def test_a_credential_that_cannot_be_renewed_fails_at_once(
    server: ScriptedServer, carry: Carrier, credential: Any
) -> None:
    server.script = [answer(401)]
    with pytest.raises(AuthenticationError):
        carry(get(server.url, credential))
    assert len(server.received) == 1


def test_a_token_of_the_metadata_service_is_used(server: ScriptedServer, carry: Carrier) -> None:
    server.scripts[METADATA] = [answer(200, {"access_token": "t1.vm", "expires_in": 3000, "token_type": "Bearer"})]
    carry(get(server.url, Metadata(), now=lambda: NOW))
    assert server.received[0].headers["metadata-flavor"] == "Google"
    assert "authorization" not in server.received[0].headers
    assert server.received[1].headers["authorization"] == "Bearer t1.vm"


@pytest.mark.parametrize(("credential", "path"), [(AUTHORIZED, IAM), (Metadata(), METADATA)])
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_key_that_gets_no_token_is_an_authentication_error(
    server: ScriptedServer, carry: Carrier, credential: Any, path: str, status: int
) -> None:
    server.scripts[path] = [answer(status, {"code": 16, "message": "no"})]
    with pytest.raises(AuthenticationError, match="a token") as caught:
        carry(submission(server.url, credential, now=lambda: NOW))
    assert len(server.received) == 1
    assert not caught.value.may_have_been_accepted


def test_a_token_request_is_retried(server: ScriptedServer, carry: Carrier) -> None:
    server.scripts[IAM] = [answer(503), reset, iam_token("t1.one")]
    carry(get(server.url, AUTHORIZED, now=lambda: NOW))
    assert carry.pauses == [1.0, 2.0]


def test_a_failed_renewal_does_not_end_a_wait_whose_token_is_valid(server: ScriptedServer, carry: Carrier) -> None:
    server.scripts[IAM] = [iam_token("t1.one"), answer(503)]
    tokens: dict[tuple[Credential, str], Token] = {}
    for now in (NOW, NOW + 4000):
        carry(get(server.url, AUTHORIZED, tokens=tokens, now=lambda now=now: now))
    sent = [request.headers["authorization"] for request in server.received if request.path != IAM]
    assert sent == ["Bearer t1.one", "Bearer t1.one"]


def test_while_a_token_is_renewed_the_others_use_the_old_one(server: ScriptedServer) -> None:
    server.scripts[IAM] = [iam_token("t1.one"), iam_token("t1.two")]
    tokens: dict[tuple[Credential, str], Token] = {}
    Carrier("requests")(get(server.url, AUTHORIZED, tokens=tokens, now=lambda: NOW))
    renewing = get(server.url, AUTHORIZED, tokens=tokens, now=lambda: NOW + 4000)
    assert next(renewing).url.endswith(IAM)
    other = next(get(server.url, AUTHORIZED, tokens=tokens, now=lambda: NOW + 4001))
    assert other.headers["authorization"] == "Bearer t1.one"


def test_workers_and_triggerers_share_a_token(server: ScriptedServer) -> None:
    server.scripts[IAM] = [iam_token("t1.one")]
    service = service_at(server.url, AUTHORIZED, now=lambda: NOW)
    Carrier("requests")(service.operation("e03abc"))
    Carrier("aiohttp")(service.operation("e03abc"))
    assert [request.path for request in server.received].count(IAM) == 1


def test_the_ids_for_the_support_are_logged_and_no_secret_is(
    server: ScriptedServer, carry: Carrier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server.scripts[IAM] = [iam_token("t1.hunter2hunter2")]
    server.script = [answer(200, RUNNING)]
    carry(submission(server.url, AUTHORIZED, now=lambda: NOW))
    assert "x-request-id rq-1" in caplog.text
    assert "x-server-trace-id tr-1" in caplog.text
    assert "hunter2" not in caplog.text
    assert json.loads(server.received[0].body)["jwt"] not in caplog.text
