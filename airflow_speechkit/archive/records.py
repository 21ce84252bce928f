"""The archive's records: small JSON files, each with the version of the archive's layout.

Each kind of record is declared once, and msgspec reads and writes it. A field that a later version adds is ignored; a
field that an earlier version did not have has a default.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from airflow_speechkit.archive.layout import REFUSED_PREFIX, is_fingerprint
from airflow_speechkit.archive.ledger import Attempt, AttemptState, Failure
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.models import Submission, is_operation_id
from airflow_speechkit.parsing import SURPRISES, MalformedError, parse_object
from airflow_speechkit.settings import ApiVersion, RecognitionSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow_speechkit.storage import Folder

ARCHIVE_VERSION = 1

_T = TypeVar("_T")
_UTC_OFFSET = timedelta(0)

#: msgspec collects a type's fields when it first converts to it. Threads that do that at once crash or hang it.
_ONE_AT_A_TIME = Lock()

#: How an operation can end; `REFUSED` is for the synthetic ids of recordings that were never submitted.
_ENDS = (AttemptState.FINISHED, AttemptState.FAILED, AttemptState.EXPIRED, AttemptState.REFUSED)


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kind of record. Fields at their defaults are not written."""

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """Make the record of its JSON.

        :raises ValueError: the JSON is not such a record; or another of `SURPRISES`
        """
        for name in {"planned", "submission"} & data.keys():
            # Settings that an earlier version accepted are not checked again: they are paid for.
            data = {**data, name: {**data[name], "settings": RecognitionSettings.from_json(data[name]["settings"])}}
        try:
            with _ONE_AT_A_TIME:
                record = msgspec.convert(data, cls)
        except msgspec.ValidationError:
            record = None
        if record is None or not all(map(_is_utc, _times(record))):
            # Outside of `except`: the library's error quotes values.
            raise MalformedError("a field is missing, or has an impossible value")
        return record


def _times(record: Record) -> Iterator[datetime]:
    for name in record.__struct_fields__:
        value = getattr(record, name)
        value = value.submitted_at if isinstance(value, Submission) else value
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, datetime))


def _is_utc(moment: datetime) -> bool:
    return moment.utcoffset() == _UTC_OFFSET


class Claim(Record, frozen=True, kw_only=True):
    """A process is about to submit a recording.

    :param id: unique; the process that finds its id in the claim's file holds the claim
    :param owner: host and process, for people
    :param scope: the task instance
    :param claimed_at: UTC
    :param lease_expires_at: until when others wait for the operation id
    :param planned: the submission, still without its operation id
    :param supersedes: the numbers of the lost attempts that this one is sent in place of
    """

    id: str = msgspec.field(name="claim_id")
    owner: str
    scope: str
    claimed_at: datetime
    lease_expires_at: datetime
    planned: Submission
    supersedes: tuple[int, ...] = msgspec.field(default=(), name="over")


class Entry(Record, frozen=True, kw_only=True):
    """A submission on record, and its place in the ledger.

    :param submission: the submission
    :param attempt: its number under the fingerprint; None for a recording that was never claimed
    :param scope: the task instance that made it
    :param supersedes: as in its `Claim`
    """

    submission: Submission
    attempt: int | None = None
    scope: str | None = None
    supersedes: tuple[int, ...] = msgspec.field(default=(), name="over")

    def __post_init__(self) -> None:
        _check_operation_id(self.submission.operation_id)


class AnswerFile(Record, frozen=True, kw_only=True):
    """A file of an answer.

    :param sha256: of the file as it is stored, in hexadecimal
    :param bytes: its size as it is stored
    :param unread: the answer was too large to be read before it was archived
    """

    sha256: str
    bytes: int | None = None
    unread: bool = False


class Outcome(Record, frozen=True, kw_only=True):
    """How an operation ended.

    :param operation_id: the operation
    :param state: finished, failed, expired, or refused
    :param at: when it was put on record, UTC
    :param failure: why, unless it is finished
    :param api_version: of the answer's files
    :param files: the files of the answer, by name
    """

    operation_id: str
    state: AttemptState = msgspec.field(name="stage")
    at: datetime
    failure: Failure | None = None
    api_version: ApiVersion | None = None
    files: dict[str, AnswerFile] = {}

    def __post_init__(self) -> None:
        _check_operation_id(self.operation_id)

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """Make the record of its JSON; see `Record.read`."""
        outcome = super().read(data)
        is_refused = outcome.operation_id.startswith(REFUSED_PREFIX)
        if outcome.state not in _ENDS or (outcome.state is AttemptState.REFUSED) != is_refused:
            # If this were believed, a recording that has its answer would be sent again.
            raise MalformedError("an operation cannot end like this")
        return outcome


class AttemptEnd(Record, frozen=True, kw_only=True):
    """The end of an attempt, in the ledger; the file's name has the state.

    :param scope: the task instance that made the attempt
    :param owner: the process that made it
    :param attempt: its number
    :param at: when it was put on record, UTC
    :param operation_id: its operation, if it had one
    :param submitted_at: UTC
    :param failure: why there is no answer
    :param supersedes: as in its `Claim`
    :param forgotten_at: only in place of a deleted claim
    """

    scope: str | None = None
    owner: str | None = None
    attempt: int | None = None
    at: datetime | None = None
    operation_id: str | None = None
    submitted_at: datetime | None = None
    failure: Failure | None = None
    supersedes: tuple[int, ...] | None = msgspec.field(default=(), name="over")
    forgotten_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.operation_id is not None:
            _check_operation_id(self.operation_id)


class Deletion(Record, frozen=True, kw_only=True):
    """A deleted operation. Of the recording nothing is left but a hash.

    :param began_at: when the deletion began, UTC
    :param fingerprint: its place in the ledger; None if the ledger does not know it
    :param attempt: the number of its attempt
    :param scope: the task instance that submitted it
    :param supersedes: as in its `Claim`
    :param submitted_at: UTC
    :param finished_at: None while files may be left
    """

    operation_id: str | None = None
    began_at: datetime
    fingerprint: str | None
    attempt: int | None
    scope: str | None = None
    supersedes: tuple[int, ...] | None = msgspec.field(default=(), name="over")
    submitted_at: datetime | None = None
    finished_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.attempt is not None and (self.fingerprint is None or not is_fingerprint(self.fingerprint)):
            raise ValueError("an attempt has no fingerprint")


class LabelRecord(Record, frozen=True, kw_only=True):
    """Labels that were given after the submission.

    Each addition or correction is a record of its own, and the reader merges them in the order of their numbers. So
    two writers at the same moment lose nothing.

    :param audio_uri: the recording
    :param labels: name -> text; None removes the label
    :param update: True corrects labels, False only adds missing ones
    :param by: the task instance or the user, for people
    :param at: UTC
    """

    audio_uri: str
    labels: dict[str, str | None]
    update: bool
    by: str
    at: datetime


def label_changes(
    labels: Mapping[str, str | None], given: Mapping[str, str | None], *, update: bool
) -> dict[str, str | None]:
    """Return those of the given labels that change something.

    :param labels: as `merged_labels` returns them
    :param update: whether given labels replace existing ones
    """
    return {
        name: text
        for name, text in given.items()
        if (labels.get(name) != text if update else name not in labels and text is not None)
    }


def merged_labels(submission: Submission, records: Iterable[LabelRecord]) -> dict[str, str | None]:
    """Return the newest labels of a submission; None for a removed one, which no addition brings back.

    :param records: in the order of their numbers
    """
    labels: dict[str, str | None] = dict(submission.labels)
    for record in records:
        if record.audio_uri == submission.audio_uri:
            labels |= label_changes(labels, record.labels, update=record.update)
    return labels


def read_attempt(number: int, state: AttemptState, data: dict[str, Any]) -> Attempt:
    """Make an attempt of the file of its state.

    :raises ValueError: the file is something else; or another of `SURPRISES`
    """
    attempt = _attempt(number, state, data)
    if any(one >= number for one in attempt.supersedes):
        raise MalformedError("an attempt supersedes a later one")
    return attempt


def _attempt(number: int, state: AttemptState, data: dict[str, Any]) -> Attempt:
    if is_tombstone(data):
        state = AttemptState.FORGOTTEN
    if state is AttemptState.CLAIMED:
        claim = Claim.read(data)
        return Attempt(
            number=number,
            state=state,
            scope=claim.scope,
            owner=claim.owner,
            lease_expires_at=claim.lease_expires_at,
            supersedes=claim.supersedes,
        )
    if state is AttemptState.IN_FLIGHT:
        entry = Entry.read(data)
        return Attempt(
            number=number,
            state=state,
            scope=entry.scope,
            operation_id=entry.submission.operation_id,
            submitted_at=entry.submission.submitted_at,
            supersedes=entry.supersedes,
        )
    end = AttemptEnd.read(data)
    submitted_at = end.submitted_at
    if state is AttemptState.REFUSED:
        submitted_at = end.at if end.failure is not None and end.failure.final else None
    elif state in _ENDS and (end.operation_id is None or (end.failure is None) != (state is AttemptState.FINISHED)):
        # Without its reason a failure does not say whether sending the recording again could help.
        raise MalformedError("the end of an attempt lacks its operation or its reason")
    return Attempt(
        number=number,
        state=state,
        scope=end.scope,
        owner=end.owner,
        operation_id=end.operation_id,
        submitted_at=submitted_at,
        failure=end.failure,
        supersedes=end.supersedes or (),
    )


def is_tombstone(data: Mapping[str, Any]) -> bool:
    """Tell whether this was left in place of a deleted claim."""
    return data.get("forgotten_at") is not None


def _check_operation_id(value: str) -> None:
    if not is_operation_id(value):
        raise ValueError("not an operation id")


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
    """Return what a record says, or None if there is no such file.

    :param build: makes it of the record's JSON, such as `Outcome.read`
    :raises ArchiveError: the record is damaged, or a later version wrote it
    """
    raw = read(folder, name)
    return None if raw is None else parsed(folder, name, lambda: build(_unpack(raw, folder.url_of(name))))


def parsed(folder: Folder, name: str, build: Callable[[], _T]) -> _T:
    """Return what `build` makes of a file's contents.

    :raises ArchiveError: they are damaged
    """
    try:
        return build()
    except SURPRISES as error:
        kind = type(error).__name__
    # Outside of `except`: that error may quote the file.
    raise damage(
        f"{folder.url_of(name)} is damaged: {kind}", "Inspect the file, and restore it from a backup if there is one"
    )


def damage(what: str, hint: str, *, operation_id: str | None = None, recording: str | None = None) -> ArchiveError:
    """Make the error for a damaged file: unlike an unreachable archive, a retry does not mend it.

    :param what: what is wrong with the file
    :param hint: what to do
    """
    return ArchiveError(
        what,
        hint=hint,
        operation_id=operation_id,
        recording=recording,
        retry="fails in the same way until then",
        retry_can_help=False,
    )


def _unpack(raw: bytes, url: str) -> dict[str, Any]:
    data = parse_object(raw, int64=True)
    version = data.get("archive_version")
    if not isinstance(version, int):
        raise MalformedError("no version of the archive's layout")
    if version > ARCHIVE_VERSION:
        raise ArchiveError(
            f"{url} was written by a later version (archive_version {version}, this one reads {ARCHIVE_VERSION})",
            hint="Upgrade airflow-speechkit",
            retry="fails in the same way until then",
            retry_can_help=False,
        )
    return data
