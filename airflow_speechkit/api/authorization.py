"""The ``Authorization`` header: from a key as it is, or from a token that is fetched, kept and renewed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_speechkit.api.credentials import (
    TOKENS,
    ApiKey,
    AuthorizedKey,
    Credential,
    IamToken,
    Token,
    TokenCache,
    read_iam_token,
    read_metadata_token,
    token_key,
)
from airflow_speechkit.api.refusal import read_refusal
from airflow_speechkit.api.steps import (
    REQUEST_RETRY,
    Fault,
    Outcome,
    Pause,
    Request,
    Response,
    Send,
    Step,
    answered,
    backoff_s,
    retry_after_s,
)
from airflow_speechkit.errors import (
    AuthenticationError,
    QuotaExceededError,
    RefusedError,
    ServiceFaultError,
    SpeechKitError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from airflow_speechkit.api.endpoints import Endpoints

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Authorization:
    """Who asks.

    :param attempts: how often a token is asked for before the failure is passed on
    :param now: seconds since the epoch
    :param chance: a number between 0 and 1
    """

    endpoints: Endpoints
    credential: Credential
    user_agent: str
    attempts: int
    now: Callable[[], float]
    chance: Callable[[], float]
    tokens: TokenCache = TOKENS

    def header(self) -> Generator[Step, Outcome, str]:
        """Return the header's value.

        Of many askers at once one fetches the token. The others go on with the one there is, or wait.

        :raises AuthenticationError: no token is to be had for this key
        """
        if isinstance(self.credential, ApiKey):
            return f"Api-Key {self.credential.key}"
        if isinstance(self.credential, IamToken):
            return f"Bearer {self.credential.token}"
        key = self._key()
        while True:
            now = self.now()
            token = self.tokens.usable(key, now)
            if token is not None and now < token.renew_at:
                return f"Bearer {token.value}"
            if self.tokens.claim(key, now):
                try:
                    token = yield from self._renewed(token)
                    self.tokens.put(key, token)
                finally:
                    self.tokens.release(key)
            if token is not None:
                return f"Bearer {token.value}"
            yield Pause(_LOOK_AGAIN_S)

    def renewable(self, header: str) -> bool:
        """Forget the token of a header that was refused; tell whether there can be another one."""
        if isinstance(self.credential, (ApiKey, IamToken)):
            return False
        self.tokens.drop(self._key(), header.removeprefix("Bearer "))
        return True

    def _key(self) -> str:
        assert not isinstance(self.credential, (ApiKey, IamToken))  # noqa: S101
        return token_key(self.credential, self._issuer)

    @property
    def _issuer(self) -> str:
        return self.endpoints.iam if isinstance(self.credential, AuthorizedKey) else self.endpoints.metadata

    def _renewed(self, old: Token | None) -> Generator[Step, Outcome, Token]:
        try:
            return (yield from self._fetch())
        except SpeechKitError as error:
            if old is None:
                raise
            # The old one works for hours yet: nobody has to notice that IAM is away for a moment.
            log.warning("The token wasn't renewed, the one there is still works: %s", error)
            return replace(old, renew_at=self.now() + REQUEST_RETRY.longest_s)

    def _fetch(self) -> Generator[Step, Outcome, Token]:
        attempt = 1
        while True:
            # A JWT of its own for each attempt: they are of no use twice.
            outcome = yield Send(self._request())
            if isinstance(outcome, Fault):
                host = urlsplit(self._issuer).netloc
                error: SpeechKitError = UnreachableError(
                    f"There is no answer to the request for {self._what} from {host}: {outcome.what}",
                    hint=None if isinstance(self.credential, AuthorizedKey) else self._hint,
                    retry="asks again",
                )
            else:
                response = answered(outcome)
                if 200 <= response.status < 300:
                    read = read_iam_token if isinstance(self.credential, AuthorizedKey) else read_metadata_token
                    return read(response.body, self.now())
                error = self._refused(response)
            if attempt >= self.attempts or isinstance(error, AuthenticationError):
                raise error
            yield Pause(backoff_s(attempt, self.chance()))
            attempt += 1

    def _request(self) -> Request:
        headers = {"accept": "application/json", "user-agent": self.user_agent}
        if isinstance(self.credential, AuthorizedKey):
            body = f'{{"jwt":"{self.credential.jwt(self.now())}"}}'.encode()
            headers["content-type"] = "application/json"
            return Request("POST", f"{self._issuer}/iam/v1/tokens", headers, body, read_timeout_s=30.0)
        headers["metadata-flavor"] = "Google"
        url = f"{self._issuer}/computeMetadata/v1/instance/service-accounts/default/token"
        # A machine without that service often drops the packets: nobody has to wait long to find that out.
        return Request("GET", url, headers, connect_timeout_s=2.0, read_timeout_s=5.0)

    @property
    def _what(self) -> str:
        if isinstance(self.credential, AuthorizedKey):
            return "a token for the authorized key"
        return "a token of the metadata service"

    @property
    def _hint(self) -> str:
        if isinstance(self.credential, AuthorizedKey):
            return "Check the authorized key: it is deleted, or another account's"
        return "Link a service account to the virtual machine, or give the connection a key"

    def _refused(self, response: Response) -> RefusedError:
        said = read_refusal(response.body)
        text = f"The request for {self._what} was refused with HTTP {response.status}"
        if said.message:
            text += f': "{said.message}"'
        request_id, trace_id = response.headers.get("x-request-id"), response.headers.get("x-server-trace-id")
        if response.status == 429:
            return QuotaExceededError(
                text,
                http_status=response.status,
                grpc_code=said.code,
                retry_after_s=retry_after_s(response, self.now()),
                retry="asks again",
                request_id=request_id,
                server_trace_id=trace_id,
            )
        kind, hint, retry = (
            (ServiceFaultError, None, "asks again")
            if response.status >= 500 or response.status == 408
            else (AuthenticationError, self._hint, "ends in the same way until that is mended")
        )
        return kind(
            text,
            http_status=response.status,
            grpc_code=said.code,
            hint=hint,
            retry=retry,
            request_id=request_id,
            server_trace_id=trace_id,
        )
