"""Credentials: API keys, the authorized key of a service account, IAM tokens."""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from speechkit_emulator.refusal import PERMISSION_DENIED, UNAUTHENTICATED, RefusedError
from speechkit_emulator.request import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from speechkit_emulator.store import Store

#: The audience of a JWT, whatever host it is sent to.
AUDIENCE = "https://iam.api.cloud.yandex.net/iam/v1/tokens"

_BAD_TOKEN = "Token is invalid or has expired."  # noqa: S105 - a message


@dataclass(frozen=True)
class Credentials:
    """All credentials that the emulator accepts.

    :param api_key: of the service account
    :param api_key_without_role: refused with 403
    :param access_key_id: of the bucket
    :param secret_access_key: of the bucket
    :param folder_id: of the service account
    :param service_account_id: the account's id
    :param authorized_key: as in the file that the cloud issues
    """

    api_key: str
    api_key_without_role: str
    access_key_id: str
    secret_access_key: str
    folder_id: str
    service_account_id: str
    authorized_key: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


class KeyFileError(ValueError):
    """A file has no valid authorized key."""


def _read_key(file: Path) -> dict[str, str]:
    try:
        key = json.loads(file.read_text())
        return {**key, **{name: str(key[name]) for name in ("id", "service_account_id", "public_key")}}
    except (KeyError, TypeError, ValueError) as error:
        raise KeyFileError(f"{file} has no authorized key: {type(error).__name__}: {error}") from error


def load_credentials(store: Store, key_file: Path | None) -> Credentials:
    """The credentials of the state; created at the first start.

    :param key_file: authorized key to accept; written if missing
    :raises KeyFileError: if the file has no valid authorized key
    """
    kept = store.fact("credentials")
    given = _read_key(key_file) if key_file is not None and key_file.exists() else None
    if kept is None:
        account = given["service_account_id"] if given is not None else "aje" + _id(17)
        kept = {
            "api_key": "AQVN" + secrets.token_urlsafe(27),
            "api_key_without_role": "AQVN" + secrets.token_urlsafe(27),
            "access_key_id": "YCAJE" + secrets.token_urlsafe(15),
            "secret_access_key": "YC" + secrets.token_urlsafe(28),
            "folder_id": "b1g" + _id(17),
            "service_account_id": account,
            "authorized_key": given or new_authorized_key(account),
        }
    elif given is not None:
        kept = {**kept, "authorized_key": given, "service_account_id": given["service_account_id"]}
    store.put_fact("credentials", kept)
    if key_file is not None and given is None:
        key_file.touch(mode=0o600)
        key_file.write_text(json.dumps(kept["authorized_key"], indent=2))
    return Credentials(**kept)


def _id(length: int) -> str:
    return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(length))


def new_authorized_key(service_account_id: str) -> dict[str, str]:
    """A new authorized key, in the form of the cloud's file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_id = "aje" + _id(17)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        "id": key_id,
        "service_account_id": service_account_id,
        "created_at": "2026-01-01T00:00:00.000000000Z",
        "key_algorithm": "RSA_2048",
        "public_key": public.decode(),
        "private_key": f"PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <{key_id}>\n{pem}",
    }


def check_jwt(body: Mapping[str, Any], key: Mapping[str, str], wall_s: float) -> None:
    """Check a JWT as IAM does: PS256, the key's id, issuer and audience, valid now and for an hour at most.

    :param wall_s: wall-clock time, the only one that the client knows
    :raises RefusedError: if the JWT is invalid
    """
    import jwt

    token = body.get("jwt")
    if token is None:
        raise invalid("jwt is required: OAuth tokens are for user accounts, which can't use asynchronous recognition")
    if len(token) > 8000:
        raise invalid("jwt is longer than 8000 characters")
    try:
        header = jwt.get_unverified_header(token)
        if header.get("kid") != key["id"]:
            raise RefusedError(UNAUTHENTICATED, f"JWT: unknown key id '{header.get('kid')}'")
        claims = jwt.decode(
            token,
            key["public_key"],
            algorithms=["PS256"],
            audience=AUDIENCE,
            issuer=key["service_account_id"],
            options={"require": ["exp", "iat", "iss", "aud"], "verify_exp": False, "verify_iat": False},
        )
        issued_s, expires_s = float(claims["iat"]), float(claims["exp"])
    except (jwt.InvalidTokenError, TypeError, ValueError) as error:
        raise RefusedError(UNAUTHENTICATED, f"JWT: {error}") from error
    if expires_s - issued_s > 3600:
        raise RefusedError(UNAUTHENTICATED, "JWT: exp is more than an hour after iat")
    if expires_s <= wall_s or issued_s > wall_s + 60:
        raise RefusedError(UNAUTHENTICATED, "JWT: it has expired, or is not valid yet")


def new_token() -> str:
    """A new IAM token, in the form of real ones."""
    middle = base64.urlsafe_b64encode(secrets.token_bytes(90)).decode().rstrip("=")
    return f"t1.{middle}.{secrets.token_urlsafe(65)[:86]}"


def check_authorization(header: str | None, credentials: Credentials, store: Store, now: float) -> None:
    """Check the ``Authorization`` header of a request.

    :param now: the service's time
    :raises RefusedError: 401 if it is invalid, 403 if its account does not have the role
    """
    scheme, _, value = (header or "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        expires_s = store.token_expiry(value) if value.isascii() else None
        if expires_s is None or expires_s <= now:
            raise RefusedError(UNAUTHENTICATED, _BAD_TOKEN)
    elif scheme.lower() == "api-key":
        if value == credentials.api_key_without_role:
            raise RefusedError(PERMISSION_DENIED, "Permission denied")
        if value != credentials.api_key:
            hidden = f"{value[:4]}****{value[-4:]}" if re.fullmatch(r"\S{16,}", value) else "****"
            raise RefusedError(UNAUTHENTICATED, f"Unknown api key '{hidden}'")
    else:
        raise RefusedError(UNAUTHENTICATED, "Authorization header is missing")
