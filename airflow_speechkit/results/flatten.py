"""Raw answers to tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from more_itertools import constrained_batches

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer
from airflow_speechkit.parsing import SURPRISES, MalformedError, parse_code, parse_time, writable
from airflow_speechkit.results.columnar import read_columns
from airflow_speechkit.results.order import in_order
from airflow_speechkit.results.plain import read_plainly
from airflow_speechkit.results.schema import ANALYSES, RECOGNITIONS, Status, Tables
from airflow_speechkit.results.speech import Speech
from airflow_speechkit.results.values import as_json
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.models import Submission
    from airflow_speechkit.results.speech import Reading, Submitted

#: Bytes of answers that are read together: small answers share fixed costs, and more bytes don't make it faster.
BATCH_BYTES = 4 << 20

#: Columns of `recognitions` that have what a field of the same name in the submission has.
_OF_SUBMISSION = (
    *("audio_uri", "submitted_uri", "paired_uri", "channels", "duration_ms", "billed_seconds", "filter_reason"),
    *("dag_id", "run_id"),
)

#: What reading an answer that doesn't have the documented shape raises.
UNREADABLE = (*SURPRISES, pa.ArrowException)


@dataclass(frozen=True)
class Batch:
    """Some answers, read.

    :param tables: their rows, the recognitions in the order of the answers
    :param unreadable: number of an answer -> why it can't be read
    :param read_plainly: numbers of the answers that the plain reader read: their form is unusual
    """

    tables: Tables
    unreadable: dict[int, AnswerUnreadableError]
    read_plainly: frozenset[int]


def flatten(answer: Answer, submission: Submission | None = None, *, exact: bool = False) -> Tables:
    """Turn an answer into tables.

    :param answer: an operation that failed gives a row of `recognitions` with its error
    :param submission: what was submitted, if that is known
    :param exact: use the plain reader; the result is the same, only slower
    :raises AnswerUnreadableError: the answer is cut off, isn't JSON, isn't done, or isn't an answer
    """
    return flatten_many([(answer, submission)], exact=exact)


def flatten_many(answers: Sequence[Submitted], *, exact: bool = False) -> Tables:
    """Turn answers into tables, the recognitions in the order of the answers.

    :param answers: each with its submission, if that is known
    :param exact: use the plain reader
    :raises AnswerUnreadableError: one of them can't be read; `write_many` leaves such ones out
    """
    pieces: list[Tables] = []
    for some in constrained_batches(answers, BATCH_BYTES, get_len=lambda one: size_bytes(one[0]), strict=False):
        batch = read_many(some, exact=exact)
        for error in batch.unreadable.values():
            raise error
        pieces.append(batch.tables)
    return Tables.concat(pieces)


def size_bytes(answer: Answer) -> int:
    """Return how large an answer is."""
    return len(answer.operation) + len(answer.recognition or b"")


def read_many(answers: Sequence[Submitted], *, exact: bool = False) -> Batch:
    """Read answers together, which is faster than one by one. One that can't be read doesn't affect the others.

    :param answers: each with its submission, if that is known; together about `BATCH_BYTES`
    :param exact: use the plain reader
    """
    speeches: list[Speech] = []
    rows: dict[int, dict[str, Any]] = {}
    analyses: dict[int, list[dict[str, Any]]] = {}

    def read(numbers: list[int], reading: Reading) -> None:
        made = {number: _row(*answers[number], *reading.moments[place]) for place, number in enumerate(numbers)}
        for place, number in enumerate(numbers):
            if place not in reading.left_out:
                rows[number] = made[number]
                analyses[number] = list(reading.analyses.get(place, ()))
                if error := reading.errors.get(place):
                    rows[number] |= _ended(Status.FAILED, error.code, error.message or "")
        speeches.append(replace(reading.speech, answer=np.array(numbers, np.int64)[reading.speech.answer]))

    by_version = [[n for n, one in enumerate(answers) if one[0].api_version is version] for version in ApiVersion]
    together = [] if exact else [numbers for numbers in by_version if numbers]
    while together:
        numbers = together.pop()
        try:
            read(numbers, read_columns([answers[number] for number in numbers]))
        except UNREADABLE:
            # Find the one that doesn't have the documented shape: the plain reader reads or refuses it.
            if len(numbers) > 1:
                middle = len(numbers) // 2
                together += [numbers[:middle], numbers[middle:]]
    others = [number for number in range(len(answers)) if number not in rows]
    unreadable: dict[int, AnswerUnreadableError] = {}
    for number in others:
        try:
            read([number], read_plainly(*answers[number]))
        except UNREADABLE as error:
            unreadable[number] = _unreadable(*answers[number], error)
    speech = Speech.concat(speeches or [Speech.empty()])
    return Batch(_tables(rows, speech, analyses), unreadable, frozenset(others) - unreadable.keys())


def failed_row(submission: Submission, status: Status, code: int | None = None, message: str | None = None) -> Tables:
    """Return the tables of a recording without an answer: it was refused or left out, or is lost.

    :param submission: the recording; its `operation_id` is synthetic where there is no operation
    :param status: how it ended
    :param code: the error's gRPC code
    :param message: the error's text
    """
    row = _row(Answer(submission.operation_id, submission.settings.api_version, b""), submission)
    text = None if message is None else writable(message)
    row |= _ended(status, parse_code(code), text)
    if status in (Status.REFUSED, Status.FILTERED):
        row["operation_id"] = None
    return _tables({0: row}, Speech.empty(), {0: []})


def id_of(answer: Answer, submission: Submission | None) -> str:
    """Return the id of a recognition: that of its operation, unless the operation is another recording's."""
    own = submission.recognition_id if submission is not None else None
    return own or answer.operation_id


def _tables(rows: dict[int, dict[str, Any]], speech: Speech, analyses: dict[int, list[dict[str, Any]]]) -> Tables:
    """Put what was read in order, the recognitions in the order of the answers."""
    numbers = sorted(rows)
    size = max(numbers, default=-1) + 1
    ids = [(rows[n]["recognition_id"], rows[n]["operation_id"]) if n in rows else ("", None) for n in range(size)]
    utterances, words = in_order(ids, speech)
    # What is counted is the first alternative of each utterance.
    per_utterance = speech.words[np.cumsum(speech.alternatives) - speech.alternatives]
    utterance_counts = np.bincount(speech.answer, minlength=size).tolist()
    word_counts = np.bincount(speech.answer, per_utterance, minlength=size).astype(np.int64).tolist()
    channel = speech.channel.dictionary_encode().indices.to_numpy().astype(np.int64)
    channels = np.bincount(np.unique((speech.answer << 32) + channel) >> 32, minlength=size).tolist()
    for number, row in rows.items():
        row |= {"utterances": utterance_counts[number], "words": word_counts[number]}
        row["channels"] = row.get("channels") or channels[number] or None
    found = [
        {"recognition_id": ids[number][0], "operation_id": ids[number][1], "analysis_index": index, **analysis}
        for number in numbers
        for index, analysis in enumerate(analyses[number])
    ]
    return Tables(
        recognitions=pa.Table.from_pylist([rows[number] for number in numbers], schema=RECOGNITIONS.arrow),
        utterances=utterances,
        words=words,
        analyses=pa.Table.from_pylist(found, schema=ANALYSES.arrow),
    )


def _row(answer: Answer, submission: Submission | None, created: Any = None, modified: Any = None) -> dict[str, Any]:
    """Return a row of `recognitions`, without what is counted.

    :param created: when the operation was created, as the service writes it
    :param modified: when it was done
    """
    row: dict[str, Any] = {
        "recognition_id": id_of(answer, submission),
        "operation_id": answer.operation_id,
        "labels": "{}",
        "api_version": answer.api_version.value,
        "created_at": None if created is None else parse_time(created),
        "finished_at": None if modified is None else parse_time(modified),
        "status": Status.FINISHED.value,
    }
    if submission is not None:
        settings = submission.settings
        row |= {name: getattr(submission, name) for name in _OF_SUBMISSION} | {
            "labels": as_json(dict(sorted(submission.labels.items()))),
            "model": settings.model,
            "language": settings.language_asked or None,
            "created_at": row["created_at"] or submission.submitted_at,
            "settings": as_json(settings.to_json()),
        }
    return {name: writable(value) if isinstance(value, str) else value for name, value in row.items()}


def _ended(status: Status, code: int | None, message: str | None) -> dict[str, Any]:
    return {"status": status.value, "error_code": code, "error_message": message}


def _unreadable(answer: Answer, submission: Submission | None, error: Exception) -> AnswerUnreadableError:
    # The text of other errors can quote the answer.
    why = str(error) if isinstance(error, MalformedError) else "something in it has another type than documented"
    return AnswerUnreadableError(
        f"The answer can't be read: {why}",
        operation_id=answer.operation_id,
        recording=submission.audio_uri if submission else None,
        hint="Inspect the raw answer; within three days the service gives it again",
        retry="reads the same answer again, if it is archived",
    )
