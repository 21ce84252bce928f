"""How the emulator can be told to misbehave, while it runs."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from speechkit_emulator.bounds import BadValueError, fields, line, number, or_none, text, whole
from speechkit_emulator.refusal import CODE_OF_HTTP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from speechkit_emulator.bounds import Reader

#: Where a fault can strike.
POINTS = ("submit", "operation", "cancel", "recognition", "delete", "iam", "metadata")

#: Faults of the connection or the answer.
TRANSPORT = ("drop_before", "drop_after", "slow", "cut", "garbage")

#: Faults of what an operation ends with, decided when it is submitted.
OF_OPERATION = (
    *("operation_error", "error_before_done"),
    *("no_words", "nine_decimals", "missing_refinements", "stream_error"),
)

#: Faults of a v3 result while it is asked for.
OF_RECOGNITION = ("not_ready", "pretty")

#: Faults after which the request itself is not looked at.
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
    """A fault that the emulator can't commit."""


@dataclass(kw_only=True)
class Fault:
    """One kind of misbehaviour.

    :param kind: an HTTP status, or one of the names above
    :param on: one of POINTS, or "any"
    :param times: how often; None (over HTTP 0, too) until it is taken back
    :param after: so many requests pass unharmed before
    :param match: only requests in whose path or body this text stands
    :param seconds: of wall time that a slow answer takes
    :param keep: share of the answer that is sent before it is cut
    :param code: google.rpc.Code of an error; :param message: its text
    :param retry_after: value of a ``Retry-After`` header
    :param form: "bare" or "gateway" form of an error; None as the endpoint writes it
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
        """The HTTP status it answers with, if that is what it does."""
        return int(self.kind) if self.kind.isdigit() else None

    @property
    def ending(self) -> bool:
        """Whether the request itself is not looked at any more."""
        return self.status is not None or self.kind in _ENDING

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def read_fault(value: Mapping[str, Any]) -> Fault:
    """A fault as it was asked for over HTTP.

    :raises UnknownFaultError: if there is no such fault, or it can't be committed so
    """
    try:
        given = fields({"kind": "", **value}, _READERS)
    except BadValueError as error:
        raise UnknownFaultError(str(error)) from error
    kind = given["kind"]
    on = given.get("on") or ("submit" if kind in OF_OPERATION else "recognition" if kind in OF_RECOGNITION else "any")
    if kind in OF_OPERATION and on not in ("submit", "any"):
        raise UnknownFaultError(f"{kind} is decided when an operation is submitted: on must be submit")
    return Fault(**{**given, "on": on, "times": given.get("times", 1) or None})


class FaultPlan:
    """The faults that are still to strike."""

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
        """Take back one fault, or all; returns how many."""
        before = len(self._faults)
        self._faults = [fault for fault in self._faults if fault_id is not None and fault.id != fault_id]
        return before - len(self._faults)

    def strike(self, point: str, text: str) -> list[Fault]:
        """The faults that this request meets, in the order they were planned.

        :param point: one of POINTS
        :param text: the request's path and body
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
