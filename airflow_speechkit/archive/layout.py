"""Which file of the archive lies where, and how its records are read and written.

::

    archive.json                                 what makes the folder an archive
    ledger/probe.json                            tests exclusive creation before anything is submitted
    ledger/<fingerprint>/0001.claim.json         a process is about to submit (exclusive create)
                         0001.operation.json     the service accepted it: the submission, with its operation id
                         0001.finished.json      … and so on: the states of `archive.ledger`
    operations/<operation id>/submission.json    from the operation id back to the recording
                              operation.json.gz  the service's answers, as they came
                              recognition.json.gz
                              outcome.json       how it ended: the answer is complete once this is there
                              labels-0001.json   labels that were given later (exclusive create), and so on
    forgotten/<operation id>.json                the operation was deleted

`archive.identity` and `archive.runs` have the rest. Records are small JSON files, each with the version
of the archive's layout.
"""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.errors import ArchiveError, SettingsError
from airflow_speechkit.models import is_operation_id
from airflow_speechkit.parsing import SURPRISES, MalformedError, parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_speechkit.models import FilterReason
    from airflow_speechkit.storage import Folder

ARCHIVE_VERSION = 1

ROOT_FILE = "archive.json"
PROBE_FILE = "ledger/probe.json"
SUBMISSION_FILE = "submission.json"
OPERATION_FILE = "operation.json.gz"
RECOGNITION_FILE = "recognition.json.gz"
OUTCOME_FILE = "outcome.json"

#: The synthetic id of a recording that was refused, or left out, is one of these and its fingerprint.
_UNSENT_PREFIXES = ("refused-", "filtered-")

_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LEDGER_FILE = re.compile(rf"ledger/[0-9a-f]{{64}}/([0-9]{{4,}})\.({'|'.join(AttemptState)})\.json", re.ASCII)

#: Requests to a bucket at once.
_CONCURRENCY = 16

_T = TypeVar("_T")
_Item = TypeVar("_Item")


def is_fingerprint(text: str) -> bool:
    """Tell whether this is a fingerprint."""
    return _FINGERPRINT.fullmatch(text) is not None


def ledger_folder(fingerprint: str) -> str:
    """Return the name of the folder of a fingerprint's attempts.

    :raises SettingsError: it is not a fingerprint, which is safe in a path
    """
    if not is_fingerprint(fingerprint):
        raise SettingsError(f"{fingerprint[:80]!r} is not a fingerprint", hint="It has 64 hexadecimal digits")
    return f"ledger/{fingerprint}"


def ledger_file(fingerprint: str, number: int, state: AttemptState) -> str:
    """Return the name of the file that puts a state of an attempt on record."""
    return f"{ledger_folder(fingerprint)}/{number:04d}.{state.value}.json"


def place_in_ledger(name: str) -> tuple[int, AttemptState] | None:
    """Return the number and the state of an attempt that a file is about; None for a file that isn't the ledger's."""
    found = _LEDGER_FILE.fullmatch(name)
    return None if found is None else (int(found[1]), AttemptState(found[2]))


def operation_file(operation_id: str, file: str = "", *, folder: str = "operations") -> str:
    """Return the name of one of an operation's files, or of their folder.

    :raises SettingsError: it is not an operation id, which is safe in a path
    """
    if not is_operation_id(operation_id):
        raise SettingsError(f"{operation_id[:64]!r} is not an operation id")
    return f"{folder}/{operation_id}/{file}".rstrip("/")


def unsent_id(fingerprint: str, filter_reason: FilterReason | None) -> str:
    """Return the synthetic operation id of a recording that was not submitted.

    :param filter_reason: why it was left out; None if it could not be submitted
    """
    return f"{_UNSENT_PREFIXES[filter_reason is not None]}{fingerprint}"


def is_unsent(operation_id: str) -> bool:
    """Tell whether this is such a synthetic operation id."""
    return operation_id.startswith(_UNSENT_PREFIXES)


def labels_file(operation_id: str, number: int) -> str:
    """Return the name of a file of labels that were given later; the first one has the number 1."""
    return operation_file(operation_id, f"labels-{number:04d}.json")


def forgotten_file(operation_id: str) -> str:
    """Return the name of the file that records the deletion of an operation."""
    return f"{operation_file(operation_id, folder='forgotten')}.json"


def hashed(name: str) -> str:
    """Return a hash of a name, such as an address, which is safe in any path."""
    # 128 bits tell any two names apart.
    return hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:32]


def each(do: Callable[[_Item], _T], items: Iterable[_Item]) -> Iterator[_T]:
    """Call a function that reads or writes files with each item, several side by side; return the results in order."""
    with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="speechkit-archive") as pool:
        yield from pool.map(do, items)


def read_each(read: Callable[[_Item], _T], items: Iterable[_Item]) -> dict[_Item, _T]:
    """Return what a function reads about each item, by item; several are read at the same time."""
    known = list(dict.fromkeys(items))
    return dict(zip(known, each(read, known), strict=True))


def plain(record: Any) -> Any:
    """Return a record, or a dataclass, as plain JSON types."""
    return msgspec.to_builtins(record)


def pack(record: Any) -> bytes:
    """Write a record."""
    text = json.dumps({"archive_version": ARCHIVE_VERSION, **plain(record)}, ensure_ascii=False, indent=1)
    # Half of a surrogate pair has no UTF-8. This escapes it as JSON does, so that it is read back as it was.
    return text.encode(errors="backslashreplace")


def read(folder: Folder, name: str) -> bytes | None:
    """Return a file's bytes, or None if there is no such file.

    :raises StorageError: the store cannot be read
    """
    try:
        return folder.read(name)
    except FileNotFoundError:
        return None


def load(folder: Folder, name: str, build: Callable[[dict[str, Any]], _T]) -> _T | None:
    """Return a record's contents, or None if there is no such file.

    :param build: makes it of the record's JSON, such as `Outcome.read`
    :raises ArchiveError: the record is damaged, or a later version wrote it
    """
    raw = read(folder, name)
    return None if raw is None else parsed(folder, name, lambda: build(_unpack(raw, folder.url_of(name))))


def load_undamaged(folder: Folder, name: str, build: Callable[[dict[str, Any]], _T]) -> _T | None:
    """Return the same, and None also for a record that is damaged."""
    try:
        return load(folder, name, build)
    except ArchiveError as error:
        if error.retry_can_help:
            raise
        return None


def parsed(folder: Folder, name: str, build: Callable[[], _T]) -> _T:
    """Return what `build` makes of a file's contents.

    :raises ArchiveError: they are damaged
    """
    try:
        return build()
    except SURPRISES as error:
        kind = type(error).__name__
    # Outside of `except`: that error may quote the file.
    raise damage(f"{folder.url_of(name)} is damaged: {kind}")


def damage(
    what: str,
    hint: str = "Inspect the file, and restore it from a backup if there is one",
    *,
    operation_id: str | None = None,
    recording: str | None = None,
) -> ArchiveError:
    """Return the error of what a person has to settle, such as a damaged file: a retry does not help.

    :param what: what is wrong
    :param hint: what to do
    """
    retry = "fails in the same way until then"
    return ArchiveError(
        what, hint=hint, operation_id=operation_id, recording=recording, retry=retry, retry_can_help=False
    )


def _unpack(raw: bytes, url: str) -> dict[str, Any]:
    data = parse_object(raw, int64=True)
    version = data.get("archive_version")
    if not isinstance(version, int):
        raise MalformedError("no version of the archive's layout")
    if version > ARCHIVE_VERSION:
        what = f"{url} was written by a later version (archive_version {version}, this one reads {ARCHIVE_VERSION})"
        raise damage(what, "Upgrade airflow-speechkit")
    return data
