"""Faults: planned misbehaviour of the running emulator."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from speechkit_emulator.bounds import BadValueError, fields, line, number, or_none, text, whole
from speechkit_emulator.refusal import CODE_OF_HTTP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from speechkit_emulator.bounds import Reader

#: Where a fault can fire.
POINTS = ("submit", "operation", "cancel", "recognition", "delete", "iam", "metadata")

#: Faults of the connection or of the answer.
TRANSPORT = ("drop_before", "drop_after", "slow", "cut", "garbage")

#: Faults of an operation's result, decided at its submit.
OF_OPERATION = (
    *("operation_error", "error_before_done"),
    *("no_words", "nine_decimals", "missing_refinements", "stream_error"),
)

#: Faults of a request for a v3 result.
OF_RECOGNITION = ("not_ready", "pretty")

#: Faults with which the request itself is not processed.
_ENDING = frozenset({"drop_before", "garbage"})

_KINDS = (*map(str, CODE_OF_HTTP), *TRANSPORT, *OF_OPERATION, *OF_RECOGNITION)


def _kind(value: Any, name: str) -> str:
    kind = str(value)
    if kind not in _KINDS:
        raise BadValueError(f"{name} must be one of {', '.join(_KINDS)}, not {kind!r:.60}")
    return kind


def _one_of(*allowed: str) -> Reader[str]:
    def read(value: Any, name: str) -> str:
        if value not in allowed:
            raise BadValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r:.60}")
        return str(value)

    return read


_READERS: dict[str, Reader[Any]] = {
    "kind": _kind,
    "on": or_none(_one_of(*POINTS, "any")),
    "times": or_none(whole(0, 10**9)),
    "after": whole(0, 10**9),
    "match": text,
    "seconds": number(0, 24 * 3600),
    "keep": number(0, 1),
    "code": or_none(whole(1, 16)),
    "message": or_none(text),
    "retry_after": or_none(line),
    "form": or_none(_one_of("bare", "gateway")),
}


class UnknownFaultError(BadValueError):
    """A fault that does not exist."""


@dataclass(kw_only=True)
class Fault:
    """A planned fault.

    :param kind: an HTTP status, or one of the names above
    :param on: one of POINTS, or "any"
    :param times: how often it fires; None = until it is removed
    :param after: number of matching requests to let pass first
    :param match: fire only for requests whose path, query or body contains this text
    :param seconds: wall-clock delay of a slow answer
    :param keep: share of the answer that is sent before it breaks off, 0 to 1
    :param code: google.rpc.Code of an error
    :param message: text of an error
    :param retry_after: value of a ``Retry-After`` header
    :param form: "bare" or "gateway" form of an error; None = the endpoint's form
    :param id: number of the fault, given when it is planned
    :param seen: number of matching requests
    :param fired: how often it fired
    """

    kind: str
    on: str
    times: int | None = 1
    after: int = 0
    match: str = ""
    seconds: float = 3.0
    keep: float = 0.5
    code: int | None = None
    message: str | None = None
    retry_after: str | None = None
    form: str | None = None
    id: int = 0
    seen: int = field(default=0)
    fired: int = field(default=0)

    @property
    def status(self) -> int | None:
        """The HTTP status that it returns, None if it does something else."""
        return int(self.kind) if self.kind.isdigit() else None

    @property
    def ending(self) -> bool:
        """Whether the request itself is not processed."""
        return self.status is not None or self.kind in _ENDING

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def read_fault(value: Mapping[str, Any]) -> Fault:
    """Read a fault from a control request.

    :raises UnknownFaultError: if there is no such fault, or a field of it is invalid
    """
    try:
        given = fields({"kind": "", **value}, _READERS)
    except BadValueError as error:
        raise UnknownFaultError(str(error)) from error
    kind = given["kind"]
    on = given.get("on") or ("submit" if kind in OF_OPERATION else "recognition" if kind in OF_RECOGNITION else "any")
    if kind in OF_OPERATION and on not in ("submit", "any"):
        raise UnknownFaultError(f"{kind} is decided at the submit: on must be submit")
    return Fault(**{**given, "on": on, "times": given.get("times", 1) or None})


class FaultPlan:
    """The planned faults."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)

    def __iter__(self) -> Any:
        return iter(self._faults)

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, fault: Fault) -> Fault:
        """Plan a fault."""
        fault.id = next(self._ids)
        self._faults.append(fault)
        return fault

    def clear(self, fault_id: int | None = None) -> int:
        """Remove one fault, or all; return their number."""
        before = len(self._faults)
        self._faults = [fault for fault in self._faults if fault_id is not None and fault.id != fault_id]
        return before - len(self._faults)

    def strike(self, point: str, text: str) -> list[Fault]:
        """The faults that fire for a request, in the order of planning.

        :param point: one of POINTS
        :param text: the request's path, query and body
        """
        struck = []
        for fault in self._faults:
            if fault.on not in (point, "any") or fault.match not in text:
                continue
            if fault.kind in OF_OPERATION and point != "submit":
                continue
            if fault.kind in OF_RECOGNITION and point != "recognition":
                continue
            fault.seen += 1
            if fault.seen <= fault.after or (fault.times is not None and fault.fired >= fault.times):
                continue
            fault.fired += 1
            struck.append(fault)
            if fault.ending:
                break
        return struck
