"""The kinds of records in the archive.

Each kind is declared once, and msgspec reads and writes it. A field that a later version adds is ignored; a field that
an earlier version did not have has a default.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec

from airflow_speechkit.archive.layout import is_unsent
from airflow_speechkit.archive.ledger import ENDED, Attempt, AttemptState, Failure
from airflow_speechkit.models import OPERATION_ID, Submission, is_operation_id
from airflow_speechkit.parsing import MalformedError, convert, parse_time
from airflow_speechkit.settings import ApiVersion, RecognitionSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: One without an offset can't be compared with others.
Time = Annotated[datetime, msgspec.Meta(tz=True)]

OperationId = Annotated[str, msgspec.Meta(pattern=rf"\A{OPERATION_ID}\Z")]

#: SHA-256, in hexadecimal.
Hash = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]

#: What an `Attempt` takes over from the record of its state.
_FACTS = ("scope", "owner", "lease_expires_at", "operation_id", "submitted_at", "failure")


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kind of record. Fields at their defaults are not written."""

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """Make the record of its JSON.

        :raises ValueError: the JSON is not such a record; or another of `SURPRISES`
        """
        for name in {"planned", "submission"} & data.keys():
            # Settings that an earlier version accepted are not checked again: they are paid for.
            settings = RecognitionSettings.from_json(data[name]["settings"])
            submitted_at = parse_time(data[name]["submitted_at"])
            data = {**data, name: {**data[name], "settings": settings, "submitted_at": submitted_at}}
        record: Self = convert(data, cls)
        return record


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
    claimed_at: Time
    lease_expires_at: Time
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
        if not is_operation_id(self.submission.operation_id):
            raise ValueError("not an operation id")


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
    :param state: finished, failed, expired, or (of the synthetic id of a recording that was never submitted) refused,
        also where it was left out by a filter: that has no failure
    :param at: when it was put on record, UTC
    :param failure: why, unless it is finished or left out
    :param api_version: of the answer's files
    :param files: the files of the answer, by name
    """

    operation_id: OperationId
    state: AttemptState = msgspec.field(name="stage")
    at: Time
    failure: Failure | None = None
    api_version: ApiVersion | None = None
    files: dict[str, AnswerFile] = {}

    def __post_init__(self) -> None:
        # If another end were believed, a recording that has its answer would be sent again.
        if self.state not in ({AttemptState.REFUSED} if is_unsent(self.operation_id) else ENDED):
            raise ValueError("an operation can't end like this")


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
    at: Time | None = None
    operation_id: OperationId | None = None
    submitted_at: Time | None = None
    failure: Failure | None = None
    supersedes: tuple[int, ...] | None = msgspec.field(default=(), name="over")
    forgotten_at: Time | None = None

    @classmethod
    def after(cls, *records: Record, **facts: Any) -> Self:
        """Return the end of the attempt that some records are about.

        :param facts: what they don't have
        """
        known = {name: getattr(one, name) for one in records for name in cls.__struct_fields__ if hasattr(one, name)}
        return cls(**{**known, **facts})


class Deletion(Record, frozen=True, kw_only=True):
    """A deleted operation. Of the recording nothing is left but a hash.

    :param began_at: when the deletion began, UTC
    :param fingerprint: its place in the ledger; None if the ledger does not have it
    :param attempt: the number of its attempt
    :param scope: the task instance that submitted it
    :param supersedes: as in its `Claim`
    :param submitted_at: UTC
    :param finished_at: None while files may be left
    """

    operation_id: str | None = None
    began_at: Time
    fingerprint: Hash | None
    attempt: int | None
    scope: str | None = None
    supersedes: tuple[int, ...] | None = msgspec.field(default=(), name="over")
    submitted_at: Time | None = None
    finished_at: Time | None = None


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
    at: Time


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


def labelled(submission: Submission, records: Iterable[LabelRecord]) -> Submission:
    """Return a submission with its newest labels.

    :param records: in the order of their numbers
    """
    labels = merged_labels(submission, records).items()
    return replace(submission, labels={name: text for name, text in labels if text is not None})


def read_attempt(number: int, state: AttemptState, data: dict[str, Any]) -> tuple[Attempt, Record]:
    """Make an attempt of the file of its state, and return it with the record in that file.

    :raises ValueError: the file is something else; or another of `SURPRISES`
    """
    if is_tombstone(data):
        state = AttemptState.FORGOTTEN
    kinds: dict[AttemptState, type[Claim | Entry]] = {AttemptState.CLAIMED: Claim, AttemptState.IN_FLIGHT: Entry}
    record = kinds.get(state, AttemptEnd).read(data)
    facts = {name: getattr(record, name, None) for name in _FACTS}
    if isinstance(record, Entry):
        facts["operation_id"] = record.submission.operation_id
        facts["submitted_at"] = record.submission.submitted_at
    elif state in ENDED and (
        facts["operation_id"] is None or (facts["failure"] is None) != (state is AttemptState.FINISHED)
    ):
        # Only its reason shows whether sending the recording again could help.
        raise MalformedError("the end of an attempt lacks its operation or its reason")
    supersedes = record.supersedes or ()
    if any(one >= number for one in supersedes):
        raise MalformedError("an attempt supersedes a later one")
    return Attempt(number=number, state=state, supersedes=supersedes, **facts), record


def is_tombstone(data: Mapping[str, Any]) -> bool:
    """Tell whether this was left in place of a deleted claim."""
    return data.get("forgotten_at") is not None
