"""Credentials: API keys, and IAM tokens from a signed JWT or the metadata service."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from speechkit_emulator.process import EmulatorProcess
from tests.caller import Caller

AUDIENCE = "https://iam.api.cloud.yandex.net/iam/v1/tokens"
METADATA = "/computeMetadata/v1/instance/service-accounts/default/token"


def token_request(key: dict[str, str], *, kid: str | None = None, signer: Any = None, **claims: Any) -> dict[str, str]:
    now = int(time.time())
    pem = signer or key["private_key"][key["private_key"].index("-----BEGIN") :]
    payload = {"iss": key["service_account_id"], "aud": AUDIENCE, "iat": now, "exp": now + 3600, **claims}
    algorithm = payload.pop("algorithm", "PS256")
    return {"jwt": jwt.encode(payload, pem, algorithm=algorithm, headers={"kid": kid or key["id"]})}


@pytest.fixture
def key(speechkit: EmulatorProcess) -> dict[str, str]:
    key: dict[str, str] = speechkit.credentials()["authorized_key"]
    return key


def check(caller: Caller, authorization: str | None) -> tuple[int, dict[str, Any]]:
    caller.authorization = authorization or ""
    answer = caller.ask("GET", "/operations/e03nothing")
    return answer.status_code, answer.json()


def test_a_valid_api_key_is_accepted_with_its_scheme_in_any_case(caller: Caller) -> None:
    key = caller.emulator.api_key
    assert check(caller, f"Api-Key {key}")[0] == 404
    assert check(caller, f"Api-key {key}")[0] == 404


def test_an_unknown_key_is_401_and_is_masked_in_the_error(caller: Caller) -> None:
    status, body = check(caller, "Api-Key AQVNsomethingverysecret98iI")
    assert (status, body["code"]) == (401, 16)
    assert body["message"] == "Unknown api key 'AQVN****98iI'"
    assert body["details"][0]["@type"] == "type.googleapis.com/google.rpc.RequestInfo"


def test_a_missing_key_is_401_and_a_missing_role_is_403(caller: Caller) -> None:
    assert check(caller, None)[0] == 401
    without = caller.emulator.credentials()["api_key_without_role"]
    status, body = check(caller, f"Api-Key {without}")
    assert (status, body["code"]) == (403, 7)


def test_a_signed_jwt_is_exchanged_for_a_valid_token(caller: Caller, key: dict[str, str]) -> None:
    answer = caller.ask("POST", "/iam/v1/tokens", token_request(key))
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["iamToken", "expiresAt"]
    token = answer.json()["iamToken"]
    assert token.startswith("t1.")
    assert len(token.rpartition(".")[2]) == 86
    assert check(caller, f"Bearer {token}")[0] == 404


def test_the_authorized_key_has_the_form_of_the_clouds_file(key: dict[str, str]) -> None:
    assert set(key) == {"id", "service_account_id", "created_at", "key_algorithm", "public_key", "private_key"}
    assert key["private_key"].startswith("PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <")


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "http://127.0.0.1/iam/v1/tokens"},
        {"iss": "ajesomebodyelse"},
        {"exp": int(time.time()) + 7200},
        {"iat": 1, "exp": 3601},
        {"kid": "ajeanotherkey"},
        {"algorithm": "RS256"},
        {"exp": None},
    ],
)
def test_an_invalid_jwt_is_401(caller: Caller, key: dict[str, str], wrong: dict[str, Any]) -> None:
    answer = caller.ask("POST", "/iam/v1/tokens", token_request(key, **wrong))
    assert answer.status_code == 401
    assert answer.json()["code"] == 16


def test_a_jwt_with_another_signature_is_401(caller: Caller, key: dict[str, str]) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert caller.ask("POST", "/iam/v1/tokens", token_request(key, signer=stranger)).status_code == 401
    assert caller.ask("POST", "/iam/v1/tokens", {"jwt": "nonsense"}).status_code == 401


def test_oauth_tokens_of_users_are_refused(caller: Caller) -> None:
    answer = caller.ask("POST", "/iam/v1/tokens", {"yandexPassportOauthToken": "y0_x"})
    assert answer.status_code == 400


def test_the_metadata_service_requires_its_header(caller: Caller) -> None:
    assert caller.ask("GET", METADATA).status_code == 403
    answer = caller.ask("GET", METADATA, **{"Metadata-Flavor": "Google"})
    assert list(answer.json()) == ["access_token", "expires_in", "token_type"]
    assert answer.json()["token_type"] == "Bearer"
    assert check(caller, f"Bearer {answer.json()['access_token']}")[0] == 404


def test_a_token_expires_in_service_time_and_can_be_revoked(caller: Caller) -> None:
    emulator = caller.emulator

    def token() -> str:
        answer = caller.ask("GET", METADATA, **{"Metadata-Flavor": "Google"})
        return f"Bearer {answer.json()['access_token']}"

    first = token()
    assert check(caller, first)[0] == 404
    emulator.advance(12 * 3600)
    status, body = check(caller, first)
    assert (status, body["message"]) == (401, "Token is invalid or has expired.")
    second = token()
    emulator.revoke_tokens()
    assert check(caller, second)[0] == 401


def test_the_key_file_is_written_and_used_again(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    with EmulatorProcess(f"--authorized-key={file}") as emulator:
        key = json.loads(file.read_text())
        assert emulator.credentials()["authorized_key"] == key
        storage_url = emulator.storage_url
        with EmulatorProcess(f"--authorized-key={file}", storage_url=storage_url) as other:
            caller = Caller(other)
            assert caller.ask("POST", "/iam/v1/tokens", token_request(key)).status_code == 200
            caller.session.close()
    assert file.stat().st_mode & 0o077 == 0
