"""Credentials, and the ``Authorization`` header: from a key as it is, or from a token that is fetched and renewed."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.http import Outcome, Request, Step
from airflow_speechkit.errors import (
    AnswerUnreadableError,
    AuthenticationError,
    ConnectionSettingsError,
    RefusedError,
    SpeechKitError,
)
from airflow_speechkit.parsing import SURPRISES, parse_object, parse_time

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow_speechkit.api.endpoints import Endpoints
    from airflow_speechkit.api.exchange import Exchange

log = logging.getLogger(__name__)

#: The audience of every JWT, whatever host it is sent to.
JWT_AUDIENCE = "https://iam.api.cloud.yandex.net/iam/v1/tokens"
_JWT_LIFETIME_S = 3600
#: The documentation recommends a new token every hour, though one is valid for up to twelve.
_RENEW_AFTER_S = 3600.0
#: How long requests use the old token while a new one is fetched.
_RENEWAL_S = 30.0


@dataclass(frozen=True)
class ApiKey:
    """A service account's API key."""

    key: str = field(repr=False)


@dataclass(frozen=True)
class IamToken:
    """An IAM token that somebody else fetched: it can't be renewed here, and is valid for twelve hours at most."""

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

        :raises ConnectionSettingsError: it isn't that; the message doesn't repeat it
        """
        pem, data = "", {}
        try:
            data = parse_object(text, lenient=True) if isinstance(text, str) else text
            # Some forms and environments turn the line ends of the PEM into a backslash and an n.
            pem = data["private_key"].replace("\\n", "\n")
            texts = (data["id"], data["service_account_id"], pem)
            is_valid = all(text and text.isascii() for text in texts) and "-----BEGIN" in pem
        except SURPRISES:
            is_valid = False
        # Not from within `except`: a parser's error holds the key.
        if not is_valid:
            raise _wrong_key("isn't a JSON object with `id`, `service_account_id` and the PEM `private_key`")
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
        issued_at = int(now)
        claims = {"iss": self.service_account_id, "aud": JWT_AUDIENCE, "iat": issued_at}
        claims["exp"] = issued_at + _JWT_LIFETIME_S
        try:
            return jwt.encode(claims, pem, algorithm="PS256", headers={"typ": "JWT", "kid": self.id})
        except (*SURPRISES, jwt.PyJWTError, UnsupportedAlgorithm):
            pass
        # Not from within `except`: those errors may hold the key.
        raise _wrong_key("has a `private_key` that isn't a private RSA key")


def _wrong_key(what: str) -> ConnectionSettingsError:
    return ConnectionSettingsError(
        f"The authorized key {what}", hint="Paste the whole file that `yc iam key create` wrote, unchanged"
    )


@dataclass(frozen=True)
class Metadata:
    """The service account that the virtual machine is linked to."""


Credential = ApiKey | IamToken | AuthorizedKey | Metadata


@dataclass(frozen=True)
class Token:
    """An IAM token and its times, in seconds since the epoch.

    :param renew_at: from then on a new one is fetched, while this one still works
    :param unusable_at: from then on it isn't used
    """

    value: str = field(repr=False)
    renew_at: float
    unusable_at: float


def read_token(body: bytes, now: float) -> Token:
    """Read a token: IAM gives ``iamToken`` and ``expiresAt``, the metadata service ``access_token`` and ``expires_in``.

    :param now: seconds since the epoch
    :raises AnswerUnreadableError: it isn't that
    """
    try:
        data = parse_object(body)
        if "iamToken" in data:
            value, expires_at = data["iamToken"], parse_time(data.get("expiresAt")).timestamp()
        else:
            value, expires_at = data["access_token"], now + float(data["expires_in"])
        # What isn't printable can't stand in a header either.
        if math.isfinite(expires_at) and value and value.isascii() and value.isprintable() and " " not in value:
            # Of a short life, four fifths.
            life_s = max(0.0, expires_at - now)
            renew_at = now + min(_RENEW_AFTER_S, life_s * 0.8)
            return Token(value, renew_at, unusable_at=expires_at - min(60.0, life_s * 0.1))
    except SURPRISES:
        pass
    raise AnswerUnreadableError("The answer to the request for a token has no token in it", retry="requests one again")


#: The tokens of this process, by credential and issuer, shared by its threads and event loops.
TOKENS: dict[tuple[Credential, str], Token] = {}


class Authorization:
    """The ``Authorization`` header of a credential.

    :param tokens: where tokens are kept
    """

    def __init__(
        self,
        exchange: Exchange,
        endpoints: Endpoints,
        credential: Credential,
        tokens: dict[tuple[Credential, str], Token] = TOKENS,
    ) -> None:
        self._exchange = exchange
        self._credential = credential
        self._issuer = endpoints.iam if isinstance(credential, AuthorizedKey) else endpoints.metadata
        self._tokens = tokens

    def header(self) -> Generator[Step, Outcome, str]:
        """Return the header's value.

        :raises SpeechKitError: there is no token for this credential
        """
        if isinstance(self._credential, ApiKey):
            return f"Api-Key {self._credential.key}"
        if isinstance(self._credential, IamToken):
            return f"Bearer {self._credential.token}"
        key, now = (self._credential, self._issuer), self._exchange.now()
        token = self._tokens.get(key)
        if token is None or now >= token.unusable_at:
            token = self._tokens[key] = yield from self._fetch()
        elif now >= token.renew_at:
            # Other requests use the old token meanwhile. So does this one if there is no new token.
            self._tokens[key] = replace(token, renew_at=now + _RENEWAL_S)
            try:
                token = self._tokens[key] = yield from self._fetch()
            except SpeechKitError as error:
                log.warning("The token could not be renewed, the old one is still valid: %s", error)
        return f"Bearer {token.value}"

    def renew(self, header: str) -> bool:
        """Drop the token of a header that was refused; return whether there can be another one."""
        if isinstance(self._credential, (ApiKey, IamToken)):
            return False
        key = (self._credential, self._issuer)
        token = self._tokens.get(key)
        if token is not None and header == f"Bearer {token.value}":
            self._tokens.pop(key, None)
        return True

    def _fetch(self) -> Generator[Step, Outcome, Token]:
        if isinstance(self._credential, AuthorizedKey):
            hint = "Check the authorized key: it was deleted, or it belongs to another service account"
            request = Request(
                method="POST",
                url=f"{self._issuer}/iam/v1/tokens",
                purpose="the request for a token for the authorized key",
                body=json.dumps({"jwt": self._credential.jwt(self._exchange.now())}).encode(),
            )
        else:
            hint = "Link a service account to the virtual machine, or give the connection a key"
            request = Request(
                method="GET",
                url=f"{self._issuer}/computeMetadata/v1/instance/service-accounts/default/token",
                purpose="the request for a token of the metadata service",
                headers={"metadata-flavor": "Google"},
                # Machines without this service often drop the packets.
                connect_timeout_s=2.0,
                read_timeout_s=5.0,
            )
        try:
            response = yield from self._exchange.perform(request)
        except RefusedError as error:
            if error.retry_can_help:
                raise
            refusal = AuthenticationError(error.what)
            vars(refusal).update(vars(error), hint=hint, retry="fails in the same way until this is fixed")
            raise refusal from None
        return read_token(response.body, self._exchange.now())
