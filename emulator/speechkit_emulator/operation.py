"""One operation of the service, and what it was billed."""

from __future__ import annotations

import math
import secrets
import string
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from speechkit_emulator.clock import timestamp
from speechkit_emulator.refusal import INTERNAL
from speechkit_emulator.request import Request
from speechkit_emulator.transcript import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

_LETTERS = string.ascii_lowercase + string.digits
_PREFIX = {"v2": "e03", "v3": "f8d"}


class State(StrEnum):
    """How far an operation is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


def new_id(api: str) -> str:
    """An operation id as the service makes them: 20 characters, v2's begin with e03 and v3's with f8d."""
    return _PREFIX[api] + "".join(secrets.choice(_LETTERS) for _ in range(17))


def billed_seconds(duration_ms: int, channels: int) -> int:
    """Seconds of two-channel audio that are charged: rounded up, 15 at least, for each pair of channels."""
    return max(15, math.ceil(duration_ms / 1000)) * math.ceil(channels / 2)


@dataclass(kw_only=True)
class Operation:
    """A recognition that was accepted. Times are the service's, in seconds since 1970.

    :param due_s: not done before this
    :param settled_s: when the recogniser had a result, or the operation its failure; None = not yet
    :param result_id: where the store keeps the result
    :param cancelled: it was cancelled, whatever its failure's code: a recognition can fail with the same one
    :param result_deleted: v3's deleteRecognition was called
    :param stand_in: registered for a benchmark, not submitted by anyone
    """

    id: str
    request: Request
    created_by: str
    created_s: float
    due_s: float
    duration_ms: int | None
    channels: int
    billed_seconds: int
    settled_s: float | None = None
    result_id: str | None = None
    failure: Failure | None = None
    cancelled: bool = False
    result_deleted: bool = False
    stand_in: bool = False
    client_request_id: str | None = None
    result_flaws: tuple[str, ...] = ()

    def finished_s(self) -> float | None:
        """When it is, or was, over; None while the recogniser is at it."""
        if self.settled_s is None:
            return None
        if self.cancelled:
            return self.settled_s
        return max(self.settled_s, self.due_s)

    def state(self, now: float) -> State:
        """How far it is at the service's time `now`."""
        finished_s = self.finished_s()
        if finished_s is None or now < finished_s:
            return State.RUNNING
        if self.cancelled:
            return State.CANCELLED
        return State.DONE if self.failure is None else State.FAILED

    def shown_failure(self, now: float) -> Failure | None:
        """The error that stands in it at `now`: some are there before it is done."""
        early = "error_before_done" in self.result_flaws and self.state(now) is State.RUNNING
        return self.failure if early or self.state(now) in (State.FAILED, State.CANCELLED) else None

    def gone(self, now: float, retention_s: float) -> bool:
        """Whether the service has forgotten it."""
        finished_s = self.finished_s()
        return finished_s is not None and now >= finished_s + retention_s

    def stamps(self, now: float) -> dict[str, str]:
        """Id and times as they stand in every answer about it."""
        modified_s = self.created_s
        finished_s = self.finished_s()
        if finished_s is not None and now >= finished_s:
            modified_s = finished_s
        return {
            "id": self.id,
            "createdAt": timestamp(self.created_s),
            "createdBy": self.created_by,
            "modifiedAt": timestamp(modified_s),
        }

    def bill(self, now: float, retention_s: float) -> dict[str, Any]:
        """Its line of the billing record. What ends in the service's own internal error is not charged."""
        state = self.state(now)
        charged = not (state is State.FAILED and self.failure is not None and self.failure.code == INTERNAL)
        return {
            "operation_id": self.id,
            "recording": (self.request.link or "").partition("?")[0] or None,
            "api_version": self.request.api,
            "model": self.request.model,
            "channels": self.channels,
            "duration_ms": self.duration_ms,
            "billed_seconds": self.billed_seconds if charged else 0,
            "accepted_at": timestamp(self.created_s),
            "state": state.value,
            "forgotten": self.gone(now, retention_s),
            "client_request_id": self.client_request_id,
        }

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Operation:
        """What :meth:`to_json` gave."""
        failure = value["failure"]
        return cls(
            **{
                **value,
                "request": Request.from_json(value["request"]),
                "failure": None if failure is None else Failure(**failure),
                "result_flaws": tuple(value["result_flaws"]),
            }
        )
