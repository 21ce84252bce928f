"""An operation of the service, and its bill."""

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
    """The state of an operation."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


def new_id(api: str) -> str:
    """A new operation id: 20 characters that begin with e03 (v2) or f8d (v3)."""
    return _PREFIX[api] + "".join(secrets.choice(_LETTERS) for _ in range(17))


def billed_seconds(duration_ms: int, channels: int) -> int:
    """The billed seconds of two-channel audio: rounded up, at least 15, for each pair of channels."""
    return max(15, math.ceil(duration_ms / 1000)) * math.ceil(channels / 2)


@dataclass(kw_only=True)
class Operation:
    """An accepted recognition. Times are in service time, seconds since 1970.

    :param due_s: the earliest end
    :param settled_s: when its result or failure was known; None = not yet
    :param result_id: id of the result in the store
    :param cancelled: it was cancelled; a recognition can fail with the same code without
    :param result_deleted: v3's deleteRecognition was called
    :param stand_in: registered for a benchmark, without a recording
    :param result_flaws: kinds of faults in its result
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
        """When it ends or ended; None while it is being recognised."""
        if self.settled_s is None:
            return None
        if self.cancelled:
            return self.settled_s
        return max(self.settled_s, self.due_s)

    def state(self, now: float) -> State:
        """Its state at the service time `now`."""
        finished_s = self.finished_s()
        if finished_s is None or now < finished_s:
            return State.RUNNING
        if self.cancelled:
            return State.CANCELLED
        return State.DONE if self.failure is None else State.FAILED

    def shown_failure(self, now: float) -> Failure | None:
        """Its error at `now`; with ``error_before_done`` it has one while it is running."""
        early = "error_before_done" in self.result_flaws and self.state(now) is State.RUNNING
        return self.failure if early or self.state(now) in (State.FAILED, State.CANCELLED) else None

    def expired(self, now: float, retention_s: float) -> bool:
        """Whether its retention has ended."""
        finished_s = self.finished_s()
        return finished_s is not None and now >= finished_s + retention_s

    def stamps(self, now: float) -> dict[str, str]:
        """The id and times that every answer about it contains."""
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
        """Its line in the billing record. An internal error of the service is not billed."""
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
            "forgotten": self.expired(now, retention_s),
            "client_request_id": self.client_request_id,
        }

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Operation:
        """An operation from the output of :meth:`to_json`."""
        failure = value["failure"]
        return cls(
            **{
                **value,
                "request": Request.from_json(value["request"]),
                "failure": None if failure is None else Failure(**failure),
                "result_flaws": tuple(value["result_flaws"]),
            }
        )
