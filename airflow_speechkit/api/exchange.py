"""One request to the service and what becomes of it, without I/O.

A generator yields `Send` and `Pause`, and is given what came of it: a `Response` or a `Fault`. What carries the
requests and how the pauses are slept is up to the transports, of which there are two.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_speechkit.api.authorization import Authorization
from airflow_speechkit.api.credentials import TOKENS, Credential, TokenCache
from airflow_speechkit.api.refusal import refused
from airflow_speechkit.api.steps import (
    REQUEST_RETRY,
    Fault,
    FaultKind,
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
from airflow_speechkit.errors import AnswerUnreadableError, AuthenticationError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from airflow_speechkit.api.endpoints import Endpoints

log = logging.getLogger(__name__)

#: Answers after which a request that changes nothing is worth sending again.
_WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})


class Effect(Enum):
    """What a request does: that decides when it may be sent again."""

    HARMLESS = "harmless"
    SUBMISSION = "submission"


@dataclass(frozen=True)
class Call:
    """A request before anybody's name is on it.

    :param what: what is asked for, such as "the state of the operation"
    :param effect: ``HARMLESS`` may be repeated, ``SUBMISSION`` costs money each time
    :param recording: and `operation_id`: what errors are about
    """

    method: str
    url: str
    what: str
    effect: Effect = Effect.HARMLESS
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    recording: str | None = None
    operation_id: str | None = None

    @property
    def host(self) -> str:
        """Whom it goes to."""
        return urlsplit(self.url).netloc

    @property
    def about(self) -> dict[str, str | None]:
        """What errors are about."""
        return {"recording": self.recording, "operation_id": self.operation_id}


class Exchange:
    """Who asks, and how patiently.

    :param attempts: how often a request is sent at most, where sending it again is safe
    :param now: seconds since the epoch
    :param chance: a number between 0 and 1
    """

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        credential: Credential,
        user_agent: str,
        attempts: int = 4,
        tokens: TokenCache = TOKENS,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.user_agent = user_agent
        self.attempts = attempts
        self.now = now
        self.chance = chance
        self.authorization = Authorization(
            endpoints=endpoints,
            credential=credential,
            user_agent=user_agent,
            attempts=attempts,
            tokens=tokens,
            now=now,
            chance=chance,
        )

    def perform(self, call: Call, *, attempts: int | None = None) -> Generator[Step, Outcome, Response]:
        """Send a request until it is answered, or until sending it again isn't safe or isn't worth it.

        A submission is sent again only where the service provably never had it (the connection couldn't be
        made), and once with a new token after a 401. After anything else it is up to the caller.

        :param attempts: how often at most, where it isn't the exchange's own number
        :return: an answer of the 200s
        :raises RefusedError: the service said no
        :raises UnreachableError: no answer came
        :raises AnswerUnreadableError: the answer broke off
        """
        submission = call.effect is Effect.SUBMISSION
        most = attempts or self.attempts
        renewed = False
        attempt = 1
        while True:
            authorization = yield from self.authorization.header()
            request = self._request(call, authorization)
            outcome = yield Send(request, rationed=True)
            if isinstance(outcome, Fault):
                if attempt >= most or (submission and outcome.kind is not FaultKind.NOT_SENT):
                    raise _no_answer(call, outcome)
                log.warning("No answer to %s from %s: %s. It is sent again", call.what, call.host, outcome.what)
                yield Pause(backoff_s(attempt, self.chance()))
                attempt += 1
                continue
            response = answered(outcome)
            _record(call, request, response)
            if 200 <= response.status < 300:
                return response
            error = self._refused(call, response)
            if isinstance(error, AuthenticationError) and not renewed and self.authorization.renewable(authorization):
                renewed = True
                continue
            if submission or response.status not in _WORTH_ANOTHER_TRY or attempt >= most:
                raise error
            asked_for_s = retry_after_s(response, self.now()) or 0.0
            if asked_for_s > REQUEST_RETRY.longest_s:
                raise error
            log.warning("The service answered %s with HTTP %d. It is asked again", call.what, response.status)
            yield Pause(max(asked_for_s, backoff_s(attempt, self.chance())))
            attempt += 1

    def _request(self, call: Call, authorization: str) -> Request:
        headers = {
            "accept": "application/json",
            "user-agent": self.user_agent,
            "x-client-request-id": str(uuid.uuid4()),
            **call.headers,
            "authorization": authorization,
        }
        if call.body is not None:
            headers["content-type"] = "application/json"
        return Request(call.method, call.url, headers, call.body)

    def _refused(self, call: Call, response: Response) -> RefusedError:
        return refused(
            what=call.what,
            status=response.status,
            body=response.body,
            headers=response.headers,
            retry_after_s=retry_after_s(response, self.now()),
            submission=call.effect is Effect.SUBMISSION,
            about=call.about,
        )


def _no_answer(call: Call, fault: Fault) -> UnreachableError | AnswerUnreadableError:
    submission = call.effect is Effect.SUBMISSION
    unsure = submission and fault.kind is not FaultKind.NOT_SENT
    hint = "It may have been accepted all the same: look before it is sent again" if unsure else None
    retry = None if unsure else "asks again"
    if fault.kind is FaultKind.CUT_ANSWER:
        return AnswerUnreadableError(
            f"The answer to {call.what} broke off: {fault.what} ({call.host})",
            may_have_been_accepted=unsure,
            hint=hint,
            retry=retry,
            **call.about,
        )
    return UnreachableError(
        f"There is no answer to {call.what} from {call.host}: {fault.what}",
        may_have_arrived=unsure,
        hint=hint,
        retry=retry,
        **call.about,
    )


def _record(call: Call, request: Request, response: Response) -> None:
    log.debug(
        "%s: HTTP %d, x-client-request-id %s, x-request-id %s, x-server-trace-id %s",
        call.what,
        response.status,
        request.headers["x-client-request-id"],
        response.headers.get("x-request-id"),
        response.headers.get("x-server-trace-id"),
    )
