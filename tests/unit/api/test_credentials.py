from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_speechkit.api.credentials import (
    JWT_AUDIENCE,
    AuthorizedKey,
    Token,
    read_token,
)
from airflow_speechkit.errors import AnswerUnreadableError, ConnectionSettingsError

NOW = 1_800_000_000.0
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
PREAMBLE = "PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <ajek>\n"


def key_file(**changed: object) -> str:
    return json.dumps({"id": "ajek", "service_account_id": "ajes", "private_key": PREAMBLE + PEM, **changed})


def test_the_jwt_is_signed_for_the_real_iam_whatever_stands_before_the_key() -> None:
    for text in (key_file(), key_file(private_key=PEM), key_file(private_key=(PREAMBLE + PEM).replace("\n", "\\n"))):
        signed = AuthorizedKey.from_json(text).jwt(NOW)
        assert jwt.get_unverified_header(signed) == {"typ": "JWT", "alg": "PS256", "kid": "ajek"}
        claims = jwt.decode(
            signed,
            PRIVATE.public_key(),
            algorithms=["PS256"],
            audience=JWT_AUDIENCE,
            options={"verify_exp": False, "verify_iat": False},
        )
        assert claims["iss"] == "ajes"
        assert claims["aud"] == "https://iam.api.cloud.yandex.net/iam/v1/tokens"
        assert claims["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        '["hunter2"]',
        '{"private_key": "hunter2"}',
        key_file(private_key="hunter2"),
        key_file(private_key=None),
        key_file(id="hunter2ё"),
    ],
)
def test_what_is_no_authorized_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConnectionSettingsError, match="isn't a JSON object with `id`") as caught:
        AuthorizedKey.from_json(text)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)


def test_a_private_key_that_is_none_is_refused_when_it_is_used() -> None:
    broken = AuthorizedKey.from_json(
        key_file(private_key="-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----")
    )
    with pytest.raises(ConnectionSettingsError, match="isn't a private RSA key") as caught:
        broken.jwt(NOW)
    assert "hunter2" not in str(caught.value)


def test_no_repr_shows_a_secret() -> None:
    assert "PRIVATE KEY" not in repr(AuthorizedKey.from_json(key_file()))
    assert "t1.x" not in repr(Token("t1.x", 0, 0))


def test_a_token_is_renewed_every_hour_and_well_before_its_end() -> None:
    day = read_token(b'{"access_token":"t","expires_in":43200}', NOW)
    assert day.renew_at == NOW + 3600
    assert day.unusable_at == NOW + 12 * 3600 - 60
    short = read_token(b'{"access_token":"t","expires_in":100}', NOW)
    assert NOW < short.renew_at < short.unusable_at < NOW + 100


def test_the_answers_of_iam_and_of_the_metadata_service_are_read() -> None:
    token = read_token(b'{"iamToken":"t1.a","expiresAt":"2027-01-15T20:00:00.123456789Z"}', NOW)
    assert token.value == "t1.a"
    assert token.unusable_at > NOW
    assert read_token(b'{"access_token":"t1.b","expires_in":3600,"token_type":"Bearer"}', NOW).value == "t1.b"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"iamToken":"a\\nb","expiresAt":"2027-01-15T20:00:00Z"}', b"<html>"]
)
def test_an_answer_without_a_token_is_refused(body: bytes) -> None:
    with pytest.raises(AnswerUnreadableError):
        read_token(body, NOW)
