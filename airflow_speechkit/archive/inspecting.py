"""Look through a whole archive: what is in it, and whether every submission has an answer or a reason."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import OUTCOME_FILE, SUBMISSION_FILE, operation_file
from airflow_speechkit.archive.ledger import RESULTS_KEPT, Stage, lost_attempts
from airflow_speechkit.errors import AnswerUnreadableError, ArchiveError
from airflow_speechkit.parsing import MalformedError, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from typing import TypeVar

    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Submission

    _T = TypeVar("_T")

_SIDE_BY_SIDE = 16

#: The state of a refused recording that was submitted later: its operation stands for it now.
SUPERSEDED = "superseded"

_ENDED = (Stage.FINISHED, Stage.FAILED, Stage.EXPIRED)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One operation of the archive.

    :param operation_id: its id
    :param submission: what was submitted, with its newest labels, if it went through the archive
    :param outcome: how it ended, if that is on record
    :param superseded: it stands for a recording that could not be submitted, and was submitted later
    """

    operation_id: str
    submission: Submission | None
    outcome: Outcome | None
    superseded: bool = False

    @property
    def state(self) -> str:
        """``running``, how it ended, or ``superseded``."""
        if self.superseded:
            return SUPERSEDED
        return "running" if self.outcome is None else self.outcome.stage.value


class Problem(StrEnum):
    """What can be wrong with a submission."""

    LOST = "lost"  #: it may have been taken, and nobody knows its operation
    OVERDUE = "overdue"  #: the service has forgotten it, and neither an answer nor a reason is on record
    DAMAGED = "damaged"  #: a file is not what was written, or has gone


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong.

    :param about: an operation id, or a fingerprint where there is no operation
    :param problem: what kind of thing
    :param text: in words
    """

    about: str
    problem: Problem
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `verify` came to.

    :param operations: how many operations there are, by state
    :param findings: what is wrong
    """

    operations: dict[str, int]
    findings: list[Finding]


def look_up(archive: Archive, operation_id: str) -> Listed | None:
    """Return what is on record of an operation, or None if nothing is.

    :raises ArchiveError: it can't be read
    """
    submission, outcome = archive.submission(operation_id), archive.outcome(operation_id)
    if submission is None and outcome is None:
        return None
    superseded = (
        outcome is not None
        and outcome.stage is Stage.REFUSED
        and submission is not None
        and any(
            # Not one that was forgotten: of such a recording the refusal is all there is.
            one.stage is not Stage.FORGOTTEN and one.submitted_at is not None and one.submitted_at >= outcome.at
            for one in archive.attempts(submission.fingerprint)
        )
    )
    return Listed(operation_id=operation_id, submission=submission, outcome=outcome, superseded=superseded)


def operations(archive: Archive) -> Iterator[Listed]:
    """Give every operation of the archive, in the order of their ids, but for those that were forgotten."""
    return (one for one in _side_by_side(lambda one: _listed(archive, one), archive.operations()) if one is not None)


def _listed(archive: Archive, operation_id: str) -> Listed | None:
    found = look_up(archive, operation_id)
    if found is None and any(archive.folder.names(operation_file(operation_id))):
        # Such as the half of an answer. On a disk a folder can also be empty: that is nothing.
        return Listed(operation_id=operation_id, submission=None, outcome=None)
    return found


def verify(archive: Archive, now: datetime) -> Verdict:
    """See whether every submission has an answer or a reason, and every answer is what was written.

    What a killed process left half done is made whole on the way.
    """
    states: dict[str, int] = {}
    findings: list[Finding] = []
    # The ledger first: from it the submissions are made whole that a killed process didn't get to write.
    for found in _side_by_side(lambda one: _verify_attempts(archive, one, now), archive.fingerprints()):
        findings += found
    for state, found in _side_by_side(lambda one: _verify_operation(archive, one, now), archive.operations()):
        if state is not None:
            states[state] = states.get(state, 0) + 1
        findings += found
    return Verdict(operations=dict(sorted(states.items())), findings=findings)


def _verify_operation(archive: Archive, operation_id: str, now: datetime) -> tuple[str | None, list[Finding]]:
    try:
        listed = _listed(archive, operation_id)
        if listed is None:
            return None, []
        submission, outcome = listed.submission, listed.outcome
        if outcome is None:
            if submission is not None and now - submission.submitted_at < RESULTS_KEPT:
                return listed.state, []
            age = "its submission is not on record" if submission is None else f"submitted {submission.submitted_at}"
            text = f"No answer and no reason is on record, and the service keeps results for three days ({age})"
            return listed.state, [Finding(about=operation_id, problem=Problem.OVERDUE, text=text)]
        try:
            answer = archive.answer(operation_id)
        except AnswerUnreadableError:
            # It is what was written, and only too large to be read here.
            return listed.state, []
        if outcome.stage is Stage.FINISHED:
            parse_json(answer.operation if answer is not None else b"")
    except ArchiveError as error:
        return "damaged", [Finding(about=operation_id, problem=Problem.DAMAGED, text=error.what)]
    except MalformedError:
        text = "The answer is not JSON: the service gave it like that"
        return "damaged", [Finding(about=operation_id, problem=Problem.DAMAGED, text=text)]
    return listed.state, []


def _verify_attempts(archive: Archive, fingerprint: str, now: datetime) -> list[Finding]:
    findings: list[Finding] = []
    try:
        attempts = archive.attempts(fingerprint)
        for attempt in attempts:
            if attempt.stage in _ENDED and attempt.operation_id is not None:
                findings += _verify_end(archive, fingerprint, attempt.stage, attempt.operation_id)
        for attempt in lost_attempts(attempts, now):
            claim = archive.planned(fingerprint, attempt.number)
            recording = claim.planned.audio_uri if claim is not None else "a recording"
            text = (
                f"A submission of {recording} (attempt {attempt.number}) may have been taken, and its operation is not "
                "known: adopt it, or release it"
            )
            findings.append(Finding(about=fingerprint, problem=Problem.LOST, text=text))
    except ArchiveError as error:
        findings.append(Finding(about=fingerprint, problem=Problem.DAMAGED, text=error.what))
    return findings


def _verify_end(archive: Archive, fingerprint: str, stage: Stage, operation_id: str) -> Iterator[Finding]:
    """See whether what the ledger says has ended has its files, and is the recording's own."""
    place = archive.folder.url_of(operation_file(operation_id))
    try:
        entry, outcome = archive.entry(operation_id), archive.outcome(operation_id)
    except ArchiveError:
        # That is found with the operation itself.
        return
    for file, there in ((SUBMISSION_FILE, entry), (OUTCOME_FILE, outcome)):
        if there is None:
            text = f"The ledger says that this operation is {stage.value}, and {place}/{file} has gone"
            yield Finding(about=operation_id, problem=Problem.DAMAGED, text=text)
    if entry is not None and entry.submission.fingerprint != fingerprint:
        text = f"The ledger has it under {fingerprint}, and {place}/{SUBMISSION_FILE} under another fingerprint"
        yield Finding(about=operation_id, problem=Problem.DAMAGED, text=text)


def _side_by_side(do: Callable[[str], _T], names: Iterable[str]) -> Iterator[_T]:
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="speechkit-archive") as pool:
        yield from pool.map(do, names)
