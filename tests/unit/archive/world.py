"""The world around an archive: a service that counts what it is paid for, a clock, a disk on which processes die."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.archive.ledger import Failure
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit import Submitter
from airflow_speechkit.archive.submit_rules import Origin, SubmitPolicy
from airflow_speechkit.errors import ArchiveError, OperationNotFoundError, UnreachableError
from airflow_speechkit.models import Answer, Recording
from airflow_speechkit.recordings.filters import NO_FILTERS, Filters
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from airflow_speechkit.storage import Folder

T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Killed(BaseException):
    """``kill -9``: nothing of the process runs on."""


class Clock:
    """A clock that stands still but for `sleep`."""

    def __init__(self) -> None:
        self.time = T0
        self.slept_s: list[float] = []
        self._lock = Lock()

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept_s.append(seconds)
            self.time += timedelta(seconds=seconds)

    def advance(self, **by: float) -> None:
        self.time += timedelta(**by)


@dataclass
class Service:
    """Accepts recordings, counts them, and follows a script.

    :ivar script: link -> what happens to its next submits, one after the other: an exception, raised before the
        recording is accepted, or after it if it says that it may have been accepted
    """

    clock: Clock
    script: dict[str, list[BaseException]] = field(default_factory=dict)
    accepted: Counter[str] = field(default_factory=Counter)
    operations: dict[str, str] = field(default_factory=dict)
    created_at: dict[str, datetime] = field(default_factory=dict)
    asked: int = 0
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: Lock = field(default_factory=Lock)

    def send(self, link: str, settings: RecognitionSettings) -> Operation:
        with self._lock:
            self.asked += 1
            happens = self.script.get(link, [])
            event = happens.pop(0) if happens else None
            if event is not None and not getattr(event, "may_have_been_accepted", isinstance(event, Killed)):
                raise event
            operation_id = f"e03{next(self._ids):017d}"
            self.accepted[link] += 1
            self.operations[operation_id] = link
            self.created_at[operation_id] = self.clock.now()
            if event is not None:
                raise event
        return replace(running(operation_id, self.clock.now()), api_version=settings.api_version)


@dataclass(frozen=True)
class MortalFolder(Folder):
    """A folder that kills its process at the n-th thing that is done to it, before or after it is done."""

    life: Any = None

    def _live(self, do: Callable[[], Any]) -> Any:
        self.life.before()
        result = do()
        self.life.after()
        return result

    def read(self, name: str, *, most_bytes: int | None = None) -> bytes:
        found: bytes = self._live(lambda: Folder.read(self, name, most_bytes=most_bytes))
        return found

    def create(self, name: str, data: bytes) -> bool:
        return bool(self._live(lambda: Folder.create(self, name, data)))

    def replace(self, name: str, data: bytes) -> None:
        self._live(lambda: Folder.replace(self, name, data))

    def names(self, below: str = "") -> Iterator[str]:
        yield from self._live(lambda: list(Folder.names(self, below)))

    def unfinished(self, below: str = "", **about: Any) -> Iterator[str]:
        yield from self._live(lambda: list(Folder.unfinished(self, below, **about)))

    def delete(self, name: str) -> None:
        self._live(lambda: Folder.delete(self, name))

    def prune(self, name: str) -> None:
        self._live(lambda: Folder.prune(self, name))


class Life:
    """How many file operations a process still has; every one after that finds it dead."""

    def __init__(self, operations: int | None = None, *, dies_after: bool = False) -> None:
        self.left = operations
        self.dies_after = dies_after
        self.dead = False
        self.used = 0

    def before(self) -> None:
        if self.dead or (self.left == 0 and not self.dies_after):
            self.dead = True
            raise Killed

    def after(self) -> None:
        self.used += 1
        if self.left is not None:
            if self.left == 0:
                self.dead = True
                raise Killed
            self.left -= 1


def mortal(path: Path, life: Life) -> Archive:
    """An archive on a disk, as a process with that life sees it."""
    folder = Folder.at(path)
    return Archive(MortalFolder(folder.fs, folder.root, folder.url, ArchiveError, life=life))


def recording(name: str = "1", **about: Any) -> Recording:
    """A recording."""
    return replace(
        Recording(
            audio_uri=f"s3://calls/{name}.ogg",
            version=f"etag-{name}",
            settings=RecognitionSettings(),
            link=name,
            size_bytes=1000,
            duration_ms=60_000,
            channels=2,
            billed_seconds=60,
            labels={"call_id": name},
        ),
        **about,
    )


def origin(run: str = "run-1") -> Origin:
    """A task instance."""
    return Origin(speechkit_conn_id="speechkit_default", dag_id="calls", run_id=run, task_id="submit", map_index=-1)


@dataclass(frozen=True)
class Source:
    """Recordings that are what they were found as.

    :ivar read: what probing makes of one
    """

    read: Callable[[Recording], Recording] = lambda recording: recording
    filters: Filters = NO_FILTERS

    def probe(self, recording: Recording) -> Recording:
        return self.read(recording)

    def check_unchanged(self, recording: Recording) -> bytes | None:
        return None


@dataclass(frozen=True)
class Client:
    """The service, as one process reaches it.

    :ivar send: takes a recording
    :ivar has: whether it still has an operation
    """

    send: Callable[[str, RecognitionSettings], Operation]
    has: Callable[[str], bool] = lambda _: False

    def submit(self, audio_uri: str, settings: RecognitionSettings) -> Operation:
        return self.send(audio_uri, settings)

    def submit_inline(self, content: bytes, settings: RecognitionSettings) -> Operation:
        raise NotImplementedError

    def get_operation(self, operation_id: str) -> Operation:
        if not self.has(operation_id):
            raise OperationNotFoundError("There is no such operation", http_status=404)
        return running(operation_id)


def running(operation_id: str, now: datetime = T0) -> Operation:
    """An operation that has just begun."""
    return Operation(
        id=operation_id,
        state=OperationState.RUNNING,
        api_version=ApiVersion.V2,
        created_at=now,
        modified_at=now,
        error_code=None,
        error_message=None,
        raw=b"{}",
    )


def submitter(
    archive: Archive,
    service: Service,
    *,
    run: str = "run-1",
    send: Callable[[str, RecognitionSettings], Operation] | None = None,
    has: Callable[[str], bool] = lambda _: False,
    probe: Callable[[Recording], Recording] = lambda recording: recording,
    **policy: Any,
) -> Submitter:
    """A process of a run."""
    return Submitter(
        archive,
        Source(probe),
        Client(send or service.send, has),
        origin=origin(run),
        policy=SubmitPolicy(**{"concurrency": 1, **policy}),
        now=service.clock.now,
        sleep=service.clock.sleep,
    )


def answer(operation_id: str, version: ApiVersion = ApiVersion.V2) -> Answer:
    """What the service says about a finished operation."""
    return Answer(
        operation_id=operation_id,
        api_version=version,
        operation=f'{{"done": true, "id": "{operation_id}", "response": {{}}}}'.encode(),
        recognition=b'{"result": {}}' if version is ApiVersion.V3 else None,
    )


def failure_of(archive: Archive, operation_id: str) -> Failure | None:
    """Why an operation has no answer."""
    outcome = archive.outcome(operation_id)
    assert outcome is not None
    return outcome.failure


def failure(code: int) -> Failure:
    """An error of an operation."""
    return Failure(code, f"the service said {code}")


def lost(name: str = "timeout") -> UnreachableError:
    """A broken connection after which it is unknown whether the service has accepted the recording."""
    return UnreachableError(f"No answer within 60 seconds ({name})", may_have_been_accepted=True)


def archive_at(root: str, endpoint: str) -> Archive:
    """An archive on a disk, or below a bucket of the S3 server at the endpoint."""
    if not endpoint:
        return Archive.at(root)
    import s3fs

    fs: Any = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=endpoint, skip_instance_cache=True)
    return Archive(Folder(fs, root, f"s3://{root}", ArchiveError))
