"""Who asks: keys, tokens, and where tokens are kept until they have to be renewed."""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass, field
from typing import Any

from airflow_speechkit.errors import AnswerUnreadableError, ConnectionSettingsError
from airflow_speechkit.parsing import SURPRISES, MalformedError, parse_json, parse_object, parse_time

#: The audience of every JWT, whatever host it is sent to.
JWT_AUDIENCE = "https://iam.api.cloud.yandex.net/iam/v1/tokens"
_JWT_LIFETIME_S = 3600
#: The documentation recommends a new token every hour, though one lives up to twelve.
_RENEW_AFTER_S = 3600.0
_SHARE_OF_LIFE = 0.8
_NOT_AT_THE_LAST_MOMENT_S = 60.0
#: How long one asker keeps the others waiting for the token that it is fetching.
_CLAIM_S = 30.0


@dataclass(frozen=True)
class ApiKey:
    """A service account's API key."""

    key: str = field(repr=False)


@dataclass(frozen=True)
class IamToken:
    """An IAM token that somebody else fetched: it can't be renewed here, and lives twelve hours at most."""

    token: str = field(repr=False)


@dataclass(frozen=True)
class AuthorizedKey:
    """A service account's authorized key.

    :param id: of the key
    :param service_account_id: of its owner
    :param private_key: PEM, with or without the line that the console writes before it
    """

    id: str
    service_account_id: str
    private_key: str = field(repr=False)

    @classmethod
    def from_json(cls, text: str | dict[str, Any]) -> AuthorizedKey:
        """Read the JSON that ``yc iam key create`` and the console give.

        :raises ConnectionSettingsError: it isn't that; what it is isn't repeated
        """
        data: object = text
        if isinstance(text, str):
            try:
                data = parse_json(text, lenient=True)
            except MalformedError:
                raise ConnectionSettingsError(
                    "The authorized key isn't JSON", hint="Paste the whole file that `yc iam key create` wrote"
                ) from None
        if not isinstance(data, dict):
            raise ConnectionSettingsError("The authorized key isn't a JSON object")
        for name in ("id", "service_account_id", "private_key"):
            if not isinstance(data.get(name), str) or not data[name]:
                raise ConnectionSettingsError(
                    f"The authorized key lacks `{name}`",
                    hint="Paste the whole file that `yc iam key create` wrote, not the private key alone",
                )
        if not (data["id"] + data["service_account_id"] + data["private_key"]).isascii():
            raise ConnectionSettingsError(
                "The authorized key has characters that no key has", hint="Paste its file again, in one piece"
            )
        # Some forms and environments turn the line ends of the PEM into a backslash and an n.
        pem = data["private_key"].replace("\\n", "\n")
        if "-----BEGIN" not in pem:
            raise ConnectionSettingsError("The authorized key's `private_key` holds no PEM")
        return cls(data["id"], data["service_account_id"], pem)

    def jwt(self, now: float) -> str:
        """Sign the request for a token.

        :param now: seconds since the epoch
        :raises ConnectionSettingsError: the private key isn't an RSA key
        """
        import jwt
        from cryptography.exceptions import UnsupportedAlgorithm

        # "PLEASE DO NOT REMOVE THIS LINE!" stands before the PEM, and not every reader skips it.
        pem = self.private_key[self.private_key.index("-----BEGIN") :]
        claims = {
            "iss": self.service_account_id,
            "aud": JWT_AUDIENCE,
            "iat": int(now),
            "exp": int(now) + _JWT_LIFETIME_S,
        }
        try:
            return jwt.encode(claims, pem, algorithm="PS256", headers={"typ": "JWT", "kid": self.id})
        except (*SURPRISES, jwt.PyJWTError, UnsupportedAlgorithm):
            pass
        # Not from within `except`: nobody knows what those errors hold.
        raise ConnectionSettingsError(
            "The authorized key's `private_key` isn't a private RSA key",
            hint="Create a new authorized key, and paste its file unchanged",
        )


@dataclass(frozen=True)
class Metadata:
    """The service account that the virtual machine is linked to."""


Credential = ApiKey | IamToken | AuthorizedKey | Metadata


@dataclass(frozen=True)
class Token:
    """An IAM token and its times, seconds since the epoch.

    :param renew_at: from here on a new one is fetched, while this one still works
    :param unusable_at: from here on it isn't used any more
    """

    value: str = field(repr=False)
    renew_at: float
    unusable_at: float

    @classmethod
    def living(cls, value: str, *, now: float, expires_at: float) -> Token:
        """Plan a token's renewal: after an hour, or after four fifths of a life that is shorter."""
        life = max(0.0, expires_at - now)
        return cls(
            value,
            renew_at=now + min(_RENEW_AFTER_S, life * _SHARE_OF_LIFE),
            unusable_at=expires_at - min(_NOT_AT_THE_LAST_MOMENT_S, life * (1 - _SHARE_OF_LIFE) / 2),
        )


def read_iam_token(body: bytes, now: float) -> Token:
    """Read the answer of IAM: ``{"iamToken", "expiresAt"}``.

    :raises AnswerUnreadableError: it isn't that
    """
    try:
        data = parse_object(body)
        expires_at = parse_time(data.get("expiresAt")).timestamp()
        return Token.living(_text(data.get("iamToken")), now=now, expires_at=expires_at)
    except SURPRISES:
        pass
    raise AnswerUnreadableError("The answer of IAM holds no token")


def read_metadata_token(body: bytes, now: float) -> Token:
    """Read the answer of the metadata service: ``{"access_token", "expires_in"}``.

    :raises AnswerUnreadableError: it isn't that
    """
    try:
        data = parse_object(body)
        expires_at = now + float(data["expires_in"])
        if math.isfinite(expires_at):
            return Token.living(_text(data.get("access_token")), now=now, expires_at=expires_at)
    except SURPRISES:
        pass
    raise AnswerUnreadableError("The answer of the metadata service holds no token")


def _text(value: object) -> str:
    # What isn't printable has no place in a header either.
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError
    return value


def token_key(credential: AuthorizedKey | Metadata, issuer: str) -> str:
    """Return what a credential's token is kept under: a hash, so that no secret lies about twice.

    :param issuer: the address that issues the token: an emulator's token is no use elsewhere
    """
    parts = (
        ("key", credential.id, credential.service_account_id, credential.private_key)
        if isinstance(credential, AuthorizedKey)
        else ("metadata",)
    )
    return hashlib.sha256("\0".join((*parts, issuer)).encode()).hexdigest()


class TokenCache:
    """The tokens of a process, shared by its threads and event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._claims: dict[str, float] = {}

    def usable(self, key: str, now: float) -> Token | None:
        """Return a token that still works."""
        with self._lock:
            token = self._tokens.get(key)
            return token if token is not None and now < token.unusable_at else None

    def claim(self, key: str, now: float) -> bool:
        """Tell whether the caller is the one to fetch a token; the others wait, or use the one there is."""
        with self._lock:
            if self._claims.get(key, 0.0) > now:
                return False
            self._claims[key] = now + _CLAIM_S
            return True

    def release(self, key: str) -> None:
        """Give a claim back, with or without a token."""
        with self._lock:
            self._claims.pop(key, None)

    def put(self, key: str, token: Token) -> None:
        """Keep a token."""
        with self._lock:
            self._tokens[key] = token

    def drop(self, key: str, value: str) -> None:
        """Forget a token that was refused, unless it has been replaced since."""
        with self._lock:
            token = self._tokens.get(key)
            if token is not None and token.value == value:
                del self._tokens[key]


#: The process's own.
TOKENS = TokenCache()
