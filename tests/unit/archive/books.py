"""The service's own books, against which the ledger is held: who was paid what, and what stands against one more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from threading import Lock
from typing import Any

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.archive.ledger import AttemptState, fingerprint
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import SubmitStatus
from airflow_speechkit.errors import ArchiveError, RecordingError, RefusedError, SpeechKitError
from airflow_speechkit.settings import RecognitionSettings
from airflow_speechkit.storage import Folder
from tests.unit.archive.world import Clock, Service, lost, origin, recording

#: The service keeps an operation this long after it was created; a little longer than it promises.
KEPT = timedelta(days=3, hours=12)

_WEIGHT = [state.value for state in AttemptState]


@dataclass(frozen=True)
class RamFolder(Folder):
    """A folder in memory: what a disk does to the files is tested elsewhere, and here it would only take its time."""

    files: dict[str, bytes] = field(default_factory=dict)
    life: Any = None
    lock: Any = field(default_factory=Lock)

    def _do(self, do: Any) -> Any:
        if self.life is not None:
            self.life.before()
        result = do()
        if self.life is not None:
            self.life.after()
        return result

    def read(self, name: str) -> bytes:
        def found() -> bytes:
            if name not in self.files:
                raise FileNotFoundError(name)
            return self.files[name]

        read: bytes = self._do(found)
        return read

    def create(self, name: str, data: bytes) -> bool:
        def created() -> bool:
            with self.lock:
                new = name not in self.files
                self.files.setdefault(name, data)
                return new

        return bool(self._do(created))

    def replace(self, name: str, data: bytes) -> None:
        self._do(lambda: self.files.update({name: data}))

    def names(self, below: str = "") -> Iterator[str]:
        prefix = f"{below}/" if below else ""
        yield from self._do(lambda: sorted(name for name in self.files if name.startswith(prefix)))

    def folders(self, below: str = "") -> Iterator[str]:
        found = {name.removeprefix(f"{below}/").split("/")[0] for name in self.files if name.startswith(f"{below}/")}
        yield from self._do(lambda: sorted(found))

    def exists(self, name: str) -> bool:
        return bool(self._do(lambda: name in self.files))

    def delete(self, name: str) -> None:
        self._do(lambda: self.files.pop(name, None))

    def unfinished(self, below: str = "", **_: Any) -> Iterator[str]:
        yield from ()

    def prune(self, name: str) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a run asks."""

    run: str
    reuse: bool
    resubmit: bool

    @property
    def scope(self) -> str:
        scope = origin(self.run).scope
        assert scope is not None
        return scope


@dataclass(kw_only=True)
class Paid:
    """An operation that was paid for.

    :ivar number: of the attempt that it was
    :ivar anew: whether it was paid for whatever others have
    :ivar status: ``running``, ``finished``, ``failed 3`` …, ``forgotten``
    :ivar adopted_beside: the claims that there were when a person put it on record: their makers may have had their
        last look already
    """

    id: str
    name: str
    scope: str
    number: int
    anew: bool
    status: str = "running"
    adopted_beside: frozenset[int] = frozenset()

    def is_no_reason_for(self, number: int) -> bool:
        """Whether the maker of a claim could not know of this one, or was not to care."""
        return number in self.adopted_beside or (self.anew and number < self.number)


@cache
def mark_of(name: str) -> str:
    return fingerprint(recording(name))


@dataclass
class Books:
    """What was paid, who asked for it, and which files lie in the ledger. It knows nothing of `decide`."""

    clock: Clock
    files: dict[str, bytes] = field(default_factory=dict)
    paid: dict[str, Paid] = field(default_factory=dict)
    #: (recording, attempt) -> the attempts that were sent over it on purpose, and by whom
    sent_over: dict[tuple[str, int], set[tuple[int, str]]] = field(default_factory=dict)
    reached: set[SubmitStatus | AttemptState] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.service = Service(self.clock)
        self.archive = self.process()

    def process(self, life: Any = None) -> Archive:
        """The archive, as a process with that life sees it."""
        return Archive(RamFolder(None, "ram", "ram://archive", ArchiveError, files=self.files, life=life))  # type: ignore[arg-type]

    # What lies in the ledger

    def states(self, name: str) -> dict[int, str]:
        """The most important state of each attempt, by the names of the files alone."""
        found: dict[int, str] = {}
        for file in list(self.files):
            if file.startswith(f"ledger/{mark_of(name)}/"):
                number, state = file.rsplit("/", 1)[-1].split(".")[:2]
                if state == "claim" and b"forgotten_at" in self.files[file]:
                    state = "forgotten"
                found[int(number)] = min(found.get(int(number), state), state, key=_WEIGHT.index)
        return found

    def claim(self, name: str, number: int) -> dict[str, Any]:
        claim: dict[str, Any] = json.loads(self.files[f"ledger/{mark_of(name)}/{number:04d}.claim.json"])
        return claim

    def open(self, name: str) -> dict[int, str]:
        """The attempts of which it is unknown whether they were accepted, and the task instances that made them."""
        known = {one.number for one in self.paid.values() if one.name == name and one.status != "running"}
        return {
            number: self.claim(name, number)["scope"]
            for number, state in self.states(name).items()
            if state in ("claim", "lost") and number not in known
        }

    def is_live(self, name: str, number: int) -> bool:
        until = datetime.fromisoformat(self.claim(name, number)["lease_expires_at"])
        return self.states(name)[number] == "claim" and self.clock.now() < until

    def counts(self, one: Paid) -> bool:
        """Whether the ledger knows the operation, and that hasn't been taken back."""
        place = f"ledger/{mark_of(one.name)}/{one.number:04d}.operation.json"
        return one.id in self.files.get(place, b"").decode() and self.states(one.name)[one.number] != "forgotten"

    # What stands against paying once more

    def of(self, name: str, asked: Asked) -> list[Paid]:
        return [one for one in self.paid.values() if one.name == name and (asked.reuse or one.scope == asked.scope)]

    def still_there(self, operation_id: str) -> bool:
        return self.clock.now() - self.service.created_at[operation_id] < KEPT

    def of_value(self, name: str, asked: Asked) -> list[Paid]:
        """Operations that are on record, and whose answer is there or will be."""
        return [
            one
            for one in self.of(name, asked)
            if self.counts(one) and (one.status == "finished" or (one.status == "running" and self.still_there(one.id)))
        ]

    def is_settled(self, name: str, number: int, asked: Asked) -> bool:
        states = self.states(name)
        return any(
            (asked.reuse or scope == asked.scope) and states[later] != "refused"
            for later, scope in self.sent_over.get((name, number), ())
        )

    def unsettled(self, name: str, asked: Asked) -> list[int]:
        """Attempts that may have been taken and that are not settled."""
        return [
            number
            for number, scope in self.open(name).items()
            if (asked.reuse or scope == asked.scope) and not self.is_settled(name, number, asked)
        ]

    def has_lost_twice(self, name: str, asked: Asked) -> bool:
        """Whether the task instance has sent over a lost submission before, and lost that as well."""
        mine = {number for number, scope in self.open(name).items() if scope == asked.scope}
        return any(
            later in mine for (about, _), several in self.sent_over.items() if about == name for later, _ in several
        )

    def check(self, name: str, asked: Asked, number: int) -> None:
        """See, at the very moment at which a request goes out, that it can be defended."""
        of_value = [one for one in self.of_value(name, asked) if not one.is_no_reason_for(number)]
        assert not of_value, f"{name} goes out again, and {of_value} is on record"
        others = [one for one in self.unsettled(name, asked) if one != number]
        if not others:
            return
        assert asked.resubmit, f"{name} goes out over {others}, and that was not asked for"
        assert not any(self.is_live(name, one) for one in others), f"{name} goes out while another process submits it"
        assert not self.has_lost_twice(name, asked), f"{asked.run} pays for {name} again and again"
        for one in others:
            self.sent_over.setdefault((name, one), set()).add((number, asked.scope))

    def expected(self, name: str, asked: Asked, events: list[str]) -> SubmitStatus:
        """What has to become of a recording if no other process is at work."""
        events = list(events)
        of_value = self.of_value(name, asked)
        if of_value:
            return SubmitStatus.REUSED if any(one.status == "finished" for one in of_value) else SubmitStatus.JOINED
        lost = self.unsettled(name, asked)
        # A process that was killed between its claim and its request has sent nothing, but that is on record nowhere.
        mine = [one for one, scope in self.open(name).items() if scope == asked.scope]
        twice = self.has_lost_twice(name, asked) or any(self.claim(name, one).get("over") for one in mine)
        if lost and (not asked.resubmit or twice):
            return SubmitStatus.LOST
        known = {one.number: one.status for one in self.of(name, asked) if self.counts(one)}
        if known and known[max(known)] == "failed 3":
            return SubmitStatus.FAILED
        first, second = [*events, "ok", "ok"][:2]
        over = bool(lost)
        if first.startswith("lost") and asked.resubmit and not over:
            first, over = second, True
        return {"ok": SubmitStatus.SUBMITTED, "no": SubmitStatus.REFUSED, "changed": SubmitStatus.REFUSED}.get(
            first, SubmitStatus.LOST
        )

    # What happens

    def send(self, asked: Asked, events: dict[str, list[str]]) -> Any:
        """What a process sends with: it looks whether that can be defended, and then things happen."""

        def send(name: str, settings: RecognitionSettings) -> Operation:
            claims = [one for one, state in self.states(name).items() if state == "claim"]
            mine = [one for one in claims if self.claim(name, one)["scope"] == asked.scope]
            assert mine, f"{name} goes out, and no claim says so"
            number = max(mine)
            self.check(name, asked, number)
            event = events[name].pop(0) if events.get(name) else "ok"
            errors: dict[str, SpeechKitError] = {
                "no": RefusedError("no", http_status=400, grpc_code=3),
                "changed": RecordingError("The file was changed", retry_can_help=True),
                "lost before": lost("before"),
                "lost after": lost("after"),
            }
            if event in errors and event != "lost after":
                raise errors[event]
            operation = self.service.send(name, settings)
            self.paid[operation.id] = Paid(
                id=operation.id, name=name, scope=asked.scope, number=number, anew=not asked.reuse
            )
            if event in errors:
                raise errors[event]
            return operation

        return send
