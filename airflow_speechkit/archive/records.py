"""The archive's small files: JSON, with the version of the archive's layout in each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.layout import REFUSED_PREFIX
from airflow_speechkit.archive.ledger import Attempt, Failure, Stage
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.models import Submission, is_operation_id
from airflow_speechkit.parsing import (
    MalformedError,
    expect,
    expect_or_none,
    parse_object,
    parse_time,
)
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

ARCHIVE_VERSION = 1

#: How an operation can have ended; the last one only of the synthetic ids of recordings that were never submitted.
_OUTCOMES = (Stage.FINISHED, Stage.FAILED, Stage.EXPIRED, Stage.REFUSED)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A process says that it is about to submit a recording.

    :param id: unique: whoever finds it in the claim's file holds the claim
    :param owner: host and process, for people
    :param scope: the task instance
    :param claimed_at: UTC
    :param lease_expires_at: until when others wait for its operation id
    :param planned: the submission as it will be, without its operation id
    :param over: the numbers of the lost attempts that it is sent over, on purpose
    """

    id: str
    owner: str
    scope: str
    claimed_at: datetime
    lease_expires_at: datetime
    planned: Submission
    over: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A submission on record, and where in the ledger it belongs.

    :param submission: the submission
    :param attempt: its number under the fingerprint; None for a recording that never got as far as a claim
    :param scope: the task instance that made it
    :param over: as in its `Claim`
    """

    submission: Submission
    attempt: int | None
    scope: str | None
    over: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an operation ended.

    :param operation_id: the operation
    :param stage: `Stage.FINISHED`, `Stage.FAILED`, `Stage.EXPIRED` or `Stage.REFUSED`
    :param at: when it was put on record, UTC
    :param failure: why, where it isn't `Stage.FINISHED`
    :param api_version: of the answer's files
    :param files: name -> ``{"sha256": …, "bytes": …}`` of each file of the answer, as it lies there
    """

    operation_id: str
    stage: Stage
    at: datetime
    failure: Failure | None = None
    api_version: str | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def pack(data: Mapping[str, Any]) -> bytes:
    """Write a record."""
    text = json.dumps({"archive_version": ARCHIVE_VERSION, **data}, ensure_ascii=False, indent=1)
    # Half of a surrogate pair has no UTF-8. This escapes it as JSON does, so that it is read back as it was.
    return text.encode(errors="backslashreplace")


def unpack(raw: bytes, url: str) -> dict[str, Any]:
    """Read a record.

    :param url: where it lies, for the message
    :raises MalformedError: it is damaged
    :raises ArchiveError: a later version wrote it
    """
    data = parse_object(raw)
    version = expect(data.get("archive_version"), int)
    if version > ARCHIVE_VERSION:
        raise ArchiveError(
            f"{url} was written by a later version (archive_version {version}, this one knows {ARCHIVE_VERSION})",
            hint="Upgrade airflow-speechkit",
            retry="ends in the same way until then",
            retry_can_help=False,
        )
    return data


def claim_to_json(claim: Claim) -> dict[str, Any]:
    """Return plain JSON types."""
    return {
        "claim_id": claim.id,
        "owner": claim.owner,
        "scope": claim.scope,
        "claimed_at": claim.claimed_at.isoformat(),
        "lease_expires_at": claim.lease_expires_at.isoformat(),
        "over": list(claim.over),
        "planned": claim.planned.to_json(),
    }


def claim_from_json(data: Mapping[str, Any]) -> Claim:
    """Rebuild what `claim_to_json` gave."""
    return Claim(
        id=expect(data["claim_id"], str),
        owner=expect(data["owner"], str),
        scope=expect(data["scope"], str),
        claimed_at=parse_time(data["claimed_at"]),
        lease_expires_at=parse_time(data["lease_expires_at"]),
        planned=Submission.from_json(expect(data["planned"], dict)),
        over=_over(data),
    )


def is_tombstone(data: Mapping[str, Any]) -> bool:
    """Tell whether this is what was left in place of a claim that was forgotten."""
    return "forgotten_at" in data


def tombstone(mark: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is left in place of a claim: nothing of the recording, but its number can't be claimed again.

    :param mark: what the ledger says about the attempt from now on
    """
    return {**mark, "forgotten_at": mark["at"]}


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """Return plain JSON types."""
    return {
        "attempt": entry.attempt,
        "scope": entry.scope,
        "over": list(entry.over),
        "submission": entry.submission.to_json(),
    }


def entry_from_json(data: Mapping[str, Any]) -> Entry:
    """Rebuild what `entry_to_json` gave."""
    submission = Submission.from_json(expect(data["submission"], dict))
    _operation_id(submission.operation_id)
    return Entry(
        submission=submission,
        attempt=expect_or_none(data.get("attempt"), int),
        scope=expect_or_none(data.get("scope"), str),
        over=_over(data),
    )


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Return plain JSON types."""
    return {
        "operation_id": outcome.operation_id,
        "stage": outcome.stage.value,
        "at": outcome.at.isoformat(),
        "failure": failure_to_json(outcome.failure),
        "api_version": outcome.api_version,
        "files": {name: dict(about) for name, about in outcome.files.items()},
    }


def outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    """Rebuild what `outcome_to_json` gave."""
    version = expect_or_none(data.get("api_version"), str)
    operation_id, stage = _operation_id(data["operation_id"]), Stage(data["stage"])
    if (stage is Stage.REFUSED) != operation_id.startswith(REFUSED_PREFIX) or stage not in _OUTCOMES:
        # Taken for what it says, a recording that has its answer would be sent again.
        raise MalformedError("an operation can't have ended so")
    return Outcome(
        operation_id=operation_id,
        stage=stage,
        at=parse_time(data["at"]),
        failure=_failure_from_json(data.get("failure")),
        api_version=None if version is None else ApiVersion(version).value,
        files={
            name: {**about, "sha256": expect(about["sha256"], str)}
            for name, about in expect(data.get("files") or {}, dict).items()
        },
    )


def attempt_to_json(entry: Entry, outcome: Outcome) -> dict[str, Any]:
    """Return what the ledger says about an attempt that has come to an end."""
    return {
        "attempt": entry.attempt,
        "scope": entry.scope,
        "over": list(entry.over),
        "operation_id": outcome.operation_id,
        "submitted_at": entry.submission.submitted_at.isoformat(),
        "at": outcome.at.isoformat(),
        "failure": failure_to_json(outcome.failure),
    }


def given_up_to_json(claim: Claim, failure: Failure, at: datetime) -> dict[str, Any]:
    """Return what the ledger says about an attempt without an operation."""
    return {
        "scope": claim.scope,
        "owner": claim.owner,
        "over": list(claim.over),
        "at": at.isoformat(),
        "failure": failure_to_json(failure),
    }


def attempt_from_json(number: int, stage: Stage, data: Mapping[str, Any]) -> Attempt:
    """Read the file of an attempt's stage."""
    if is_tombstone(data):
        stage = Stage.FORGOTTEN
    if stage is Stage.CLAIMED:
        claim = claim_from_json(data)
        return Attempt(
            number=number,
            stage=stage,
            scope=claim.scope,
            owner=claim.owner,
            lease_expires_at=claim.lease_expires_at,
            over=_over(data, number),
        )
    if stage is Stage.IN_FLIGHT:
        entry = entry_from_json(data)
        return Attempt(
            number=number,
            stage=stage,
            scope=entry.scope,
            operation_id=entry.submission.operation_id,
            submitted_at=entry.submission.submitted_at,
            over=_over(data, number),
        )
    submitted_at, operation_id = data.get("submitted_at"), data.get("operation_id")
    failure = _failure_from_json(data.get("failure"))
    if stage is Stage.REFUSED:
        submitted_at = data["at"] if failure is not None and failure.final else None
    elif stage in _OUTCOMES and (operation_id is None or (failure is None) != (stage is Stage.FINISHED)):
        # Without its reason a failure doesn't say whether sending the recording again could help.
        raise MalformedError("the end of an attempt lacks its operation or its reason")
    return Attempt(
        number=number,
        stage=stage,
        scope=expect_or_none(data.get("scope"), str),
        owner=expect_or_none(data.get("owner"), str),
        operation_id=None if operation_id is None else _operation_id(operation_id),
        submitted_at=parse_time(submitted_at) if submitted_at else None,
        failure=failure,
        over=_over(data, number),
    )


def _over(data: Mapping[str, Any], number: int | None = None) -> tuple[int, ...]:
    # Archives that are older than the field have none.
    over = tuple(expect(one, int) for one in expect(data.get("over") or [], list))
    if number is not None and any(one >= number for one in over):
        raise MalformedError("an attempt was sent over one that came later")
    return over


def _operation_id(value: object) -> str:
    if not is_operation_id(value):
        raise MalformedError("something else than an operation id")
    return expect(value, str)


def failure_to_json(failure: Failure | None) -> dict[str, Any] | None:
    """Return plain JSON types."""
    if failure is None:
        return None
    return {"code": failure.code, "message": failure.message, **({"final": True} if failure.final else {})}


def _failure_from_json(data: Mapping[str, Any] | None) -> Failure | None:
    if data is None:
        return None
    code, message = expect_or_none(data.get("code"), int), expect(data["message"], str)
    return Failure(code, message, final=data.get("final") is True)
