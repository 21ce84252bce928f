"""Look through a whole archive: list it, verify it, export it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from airflow_speechkit.archive.identity import submissions
from airflow_speechkit.archive.layout import OUTCOME_FILE, ROOT_FILE, SUBMISSION_FILE, each, operation_file
from airflow_speechkit.archive.ledger import ENDED, RESULTS_KEPT, AttemptState, lost_attempts
from airflow_speechkit.errors import AnswerUnreadableError, ArchiveError
from airflow_speechkit.parsing import MalformedError, parse_json
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from airflow_speechkit.archive.ledger import Failure
    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Answer, Submission
    from airflow_speechkit.storage import Folder


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One operation of the archive.

    :param operation_id: its id
    :param submission: what was submitted, with its newest labels, if it went through the archive
    :param outcome: how it ended, if that is on record
    :param superseded: the recording was refused or left out here, and submitted later
    :param others: other recordings that share the operation: they have the same bytes
    """

    operation_id: str
    submission: Submission | None
    outcome: Outcome | None
    superseded: bool = False
    others: Sequence[Submission] = ()

    @property
    def state(self) -> str:
        """``running``, how it ended, ``filtered`` if it was left out, or ``superseded``."""
        if self.superseded:
            return "superseded"
        if self.submission is not None and self.submission.filter_reason is not None:
            return "filtered"
        return "running" if self.outcome is None else self.outcome.state.value


class Problem(StrEnum):
    """What can be wrong with a submission."""

    LOST = "lost"  #: the service may have accepted it, and its operation is not known
    OVERDUE = "overdue"  #: the service no longer has it, and neither an answer nor a reason is on record
    DAMAGED = "damaged"  #: a file is missing, or is not what was written


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong.

    :param about: an operation id, or a fingerprint if there is no operation
    :param problem: the kind of problem
    :param text: in words
    """

    about: str
    problem: Problem
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of `verify`.

    :param operations: how many operations there are, by state
    :param findings: what is wrong
    """

    operations: dict[str, int]
    findings: list[Finding]


def look_up(archive: Archive, operation_id: str) -> Listed | None:
    """Return what is on record of an operation, or None if there is no file of it.

    :raises ArchiveError: it cannot be read
    """
    known, outcome = submissions(archive, operation_id), archive.outcome(operation_id)
    submission = known[0] if known else None
    # Files without either are such as the half of an answer. On a disk a folder can also be empty.
    if submission is None and outcome is None and not any(archive.folder.names(operation_file(operation_id))):
        return None
    superseded = False
    if submission is not None and outcome is not None and outcome.state is AttemptState.REFUSED:
        superseded = any(
            # Not a deleted one: of such a recording the refusal is all there is.
            one.state is not AttemptState.FORGOTTEN and one.submitted_at is not None and one.submitted_at >= outcome.at
            for one in archive.attempts(submission.fingerprint)
        )
    return Listed(
        operation_id=operation_id, submission=submission, outcome=outcome, superseded=superseded, others=known[1:]
    )


def operations(archive: Archive) -> Iterator[Listed]:
    """Return every operation of the archive, ordered by id, without the deleted ones."""
    return filter(None, each(partial(look_up, archive), archive.operations()))


def verify(archive: Archive, now: datetime) -> Verdict:
    """Check that every submission has an answer or a reason, and that every answer is what was written.

    What a killed process left half done is completed on the way.
    """
    states: Counter[str] = Counter()
    findings: list[Finding] = []
    # The ledger first: it restores submissions that a killed process did not write.
    for found in each(lambda one: list(_verify_attempts(archive, one, now)), archive.fingerprints()):
        findings += found
    for state, finding in each(lambda one: _verify_operation(archive, one, now), archive.operations()):
        states.update([state] if state else [])
        findings += [finding] if finding else []
    return Verdict(operations=dict(sorted(states.items())), findings=findings)


def _verify_operation(archive: Archive, operation_id: str, now: datetime) -> tuple[str | None, Finding | None]:
    state = "damaged"
    try:
        listed = look_up(archive, operation_id)
        if listed is None:
            return None, None
        submission, outcome, state = listed.submission, listed.outcome, listed.state
        if outcome is None:
            if submission is not None and now - submission.submitted_at < RESULTS_KEPT:
                return state, None
            age = "its submission is not on record" if submission is None else f"submitted {submission.submitted_at}"
            text = f"Neither an answer nor a reason is on record, and the service keeps results for three days ({age})"
            return state, Finding(about=operation_id, problem=Problem.OVERDUE, text=text)
        answer = archive.answer(operation_id)
        if outcome.state is AttemptState.FINISHED:
            parse_json(answer.operation if answer is not None else b"")
    except ArchiveError as error:
        text = error.what
    except MalformedError:
        text = "The answer is not JSON: the service sent it like that"
    except AnswerUnreadableError:
        # It is what was written, and only too large to be inflated here.
        return state, None
    else:
        return state, None
    return "damaged", Finding(about=operation_id, problem=Problem.DAMAGED, text=text)


def _verify_attempts(archive: Archive, fingerprint: str, now: datetime) -> Iterator[Finding]:
    try:
        attempts = archive.attempts(fingerprint)
        for attempt in attempts:
            if attempt.state in ENDED and attempt.operation_id is not None:
                yield from _verify_end(archive, fingerprint, attempt.state, attempt.operation_id)
        for attempt in lost_attempts(attempts, now):
            claim = archive.planned(fingerprint, attempt.number)
            recording = claim.planned.audio_uri if claim is not None else "a recording"
            text = (
                f"The service may have accepted {recording} (attempt {attempt.number}), and the operation is not "
                "known: adopt the submission, or release it"
            )
            yield Finding(about=fingerprint, problem=Problem.LOST, text=text)
    except ArchiveError as error:
        yield Finding(about=fingerprint, problem=Problem.DAMAGED, text=error.what)


def _verify_end(archive: Archive, fingerprint: str, state: AttemptState, operation_id: str) -> Iterator[Finding]:
    """Check that an operation that has ended according to the ledger has its files, and is of this recording."""
    place = archive.folder.url_of(operation_file(operation_id))
    try:
        entry, outcome = archive.entry(operation_id), archive.outcome(operation_id)
    except ArchiveError:
        # `_verify_operation` finds this.
        return
    for file, there in ((SUBMISSION_FILE, entry), (OUTCOME_FILE, outcome)):
        if there is None:
            text = f"According to the ledger this operation is {state.value}, and {place}/{file} is missing"
            yield Finding(about=operation_id, problem=Problem.DAMAGED, text=text)
    if entry is not None and entry.submission.fingerprint != fingerprint:
        text = f"The ledger has it under {fingerprint}, and {place}/{SUBMISSION_FILE} under another fingerprint"
        yield Finding(about=operation_id, problem=Problem.DAMAGED, text=text)


def copy_archive(archive: Archive, target: Folder) -> int:
    """Copy an archive to another place, where it is an archive again. Existing files are left as they are.

    :param target: a folder, which may have another archive in it
    :return: how many files were copied
    """
    names = set(archive.folder.names())
    # What marks something as complete follows all of it.
    last = {name for name in names if name.endswith(OUTCOME_FILE) or name == ROOT_FILE}

    def copy(name: str) -> bool:
        return target.create(name, archive.folder.read(name))

    return sum(sum(each(copy, sorted(part))) for part in (names - last, last))


def copy_answers(archive: Archive, target: Folder) -> int:
    """Write each answer as a plain file that ``airflow-speechkit transform`` reads, named by its operation.

    :return: how many there are
    """

    def write(operation_id: str) -> bool:
        answer = archive.answer(operation_id, most_bytes=sys.maxsize)
        if answer is None:
            return False
        outcome = archive.outcome(operation_id)
        target.replace(f"{operation_id}.json", _plain(answer, outcome.failure if outcome else None))
        return True

    return sum(each(write, archive.operations()))


def _plain(answer: Answer, failure: Failure | None) -> bytes:
    """Return an answer as one file that can be read without an archive."""
    stream = answer.recognition
    if stream is None and failure is not None and answer.api_version == ApiVersion.V3:
        # Of a result that broke off only the error is archived.
        stream = json.dumps({"error": {"code": failure.code, "message": failure.message}}).encode()
    elif stream is not None and not stream.strip():
        # Without anything behind the operation, its result would count as not saved.
        stream = b"{}"
    return answer.operation if stream is None else answer.operation + b"\n" + stream
