"""Look through a whole archive: what is in it, and whether every submission has an answer or a reason."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.archive.ledger import RESULTS_KEPT, Action, Request, Stage, decide
from airflow_speechkit.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from typing import TypeVar

    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.submission import Submission

    _T = TypeVar("_T")

_SIDE_BY_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One operation of the archive.

    :param operation_id: its id
    :param submission: what was submitted, if it went through the archive
    :param outcome: how it ended, if that is on record
    """

    operation_id: str
    submission: Submission | None
    outcome: Outcome | None

    @property
    def state(self) -> str:
        """``running`` or how it ended."""
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


def operations(archive: Archive) -> Iterator[Listed]:
    """Give every operation of the archive, in the order of their ids."""

    def load(operation_id: str) -> Listed:
        return Listed(
            operation_id=operation_id,
            submission=archive.submission(operation_id),
            outcome=archive.outcome(operation_id),
        )

    return _side_by_side(load, archive.operations())


def verify(archive: Archive, now: datetime) -> Verdict:
    """See whether every submission has an answer or a reason, and every answer is what was written.

    What a killed process left half done is made whole on the way.
    """
    states: dict[str, int] = {}
    findings: list[Finding] = []
    for state, found in _side_by_side(lambda one: _verify_operation(archive, one, now), archive.operations()):
        states[state] = states.get(state, 0) + 1
        findings += found
    for found in _side_by_side(lambda one: _verify_attempts(archive, one, now), archive.fingerprints()):
        findings += found
    return Verdict(operations=dict(sorted(states.items())), findings=findings)


def _verify_operation(archive: Archive, operation_id: str, now: datetime) -> tuple[str, list[Finding]]:
    try:
        submission, outcome = archive.submission(operation_id), archive.outcome(operation_id)
        if outcome is None:
            state = "running"
            if submission is not None and now - submission.submitted_at < RESULTS_KEPT:
                return state, []
            age = "its submission is not on record" if submission is None else f"submitted {submission.submitted_at}"
            text = f"No answer and no reason is on record, and the service keeps results for three days ({age})"
            return state, [Finding(about=operation_id, problem=Problem.OVERDUE, text=text)]
        answer = archive.answer(operation_id)
        if outcome.stage is Stage.FINISHED:
            json.loads(answer.operation if answer is not None else b"")
    except ArchiveError as error:
        return "damaged", [Finding(about=operation_id, problem=Problem.DAMAGED, text=error.what)]
    except ValueError:
        text = "The answer is not JSON: the service gave it like that"
        return "damaged", [Finding(about=operation_id, problem=Problem.DAMAGED, text=text)]
    return outcome.stage.value, []


def _verify_attempts(archive: Archive, fingerprint: str, now: datetime) -> list[Finding]:
    try:
        decision = decide(archive.attempts(fingerprint), Request(scope=""), now)
        if decision.action is not Action.LOST:
            return []
        claim = archive.planned(fingerprint, decision.attempt)
    except ArchiveError as error:
        return [Finding(about=fingerprint, problem=Problem.DAMAGED, text=error.what)]
    recording = claim.planned.audio_uri if claim is not None else "a recording"
    text = f"A submission of {recording} may have been taken, and its operation is not known: adopt it, or release it"
    return [Finding(about=fingerprint, problem=Problem.LOST, text=text)]


def _side_by_side(do: Callable[[str], _T], names: Iterable[str]) -> Iterator[_T]:
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="speechkit-archive") as pool:
        yield from pool.map(do, names)
