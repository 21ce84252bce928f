"""Raw answers to tables."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from airflow_speechkit.errors import AnswerUnreadableError, read_status
from airflow_speechkit.models import Answer
from airflow_speechkit.parsing import SURPRISES, MalformedError, parse_code, parse_time, writable
from airflow_speechkit.results import columnar, plain
from airflow_speechkit.results.order import in_order
from airflow_speechkit.results.schema import ANALYSES, RECOGNITIONS, Status, Tables
from airflow_speechkit.results.speech import CHUNK, MESSAGE, Speech, v2_speech, v3_speech
from airflow_speechkit.results.values import as_json
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from airflow_speechkit.models import Submission
    from airflow_speechkit.results.columnar import Columns

    #: An answer with its submission, if that is known.
    Submitted = tuple[Answer, Submission | None]

#: Bytes of answers that are read together: small answers share fixed costs, and more bytes don't make it faster.
BATCH_BYTES = 4 << 20

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
    for some in _batches(answers):
        batch = read_many(some, exact=exact)
        for error in batch.unreadable.values():
            raise error
        pieces.append(batch.tables)
    return Tables.concat(pieces)


def read_many(answers: Sequence[Submitted], *, exact: bool = False) -> Batch:
    """Read answers together, which is faster than one by one. One that can't be read doesn't affect the others.

    :param answers: each with its submission, if that is known; together about `BATCH_BYTES`
    :param exact: use the plain reader
    """
    speeches: list[Speech] = []
    rows: dict[int, dict[str, Any]] = {}
    analyses: dict[int, list[dict[str, Any]]] = {}
    for numbers, moments, columns in () if exact else _columns(answers):
        speeches.append(replace(columns.speech, answer=np.array(numbers, np.int64)[columns.speech.answer]))
        for place, number in enumerate(numbers):
            if place not in columns.left_out:
                rows[number] = _row(*answers[number], *moments[place])
                analyses[number] = columns.analyses.get(place, [])
    others = [number for number in range(len(answers)) if number not in rows]
    unreadable: dict[int, AnswerUnreadableError] = {}
    for number in others:
        try:
            rows[number], speech, analyses[number] = _read_plainly(number, *answers[number])
        except UNREADABLE as error:
            unreadable[number] = _unreadable(*answers[number], error)
        else:
            speeches.append(speech)
    return Batch(_tables(rows, Speech.concat(speeches), analyses), unreadable, frozenset(others) - unreadable.keys())


def failed_row(submission: Submission, status: Status, code: int | None = None, message: str | None = None) -> Tables:
    """Return the tables of a recording without an answer: it was refused, or is lost.

    :param submission: the recording; its `operation_id` is ``refused-…`` where there is no operation
    :param status: how it ended
    :param code: the error's gRPC code
    :param message: the error's text
    """
    row = _row(Answer(submission.operation_id, submission.settings.api_version, b""), submission)
    text = None if message is None else writable(message)
    row |= {"status": status.value, "error_code": parse_code(code), "error_message": text}
    if status is Status.REFUSED:
        row["operation_id"] = None
    return _tables({0: row}, Speech.concat([]), {0: []})


def _batches(answers: Sequence[Submitted]) -> Iterator[list[Submitted]]:
    batch: list[Submitted] = []
    size = 0
    for one in answers:
        length = len(one[0].operation) + len(one[0].recognition or b"")
        if batch and size + length > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += length
    if batch:
        yield batch


def _columns(
    answers: Sequence[Submitted],
) -> Iterator[tuple[list[int], list[tuple[datetime | None, datetime | None]], Columns]]:
    """Read what has the documented shape: all answers of an API at once, or each by itself if one has not."""
    for version, read in ((ApiVersion.V2, _v2_columns), (ApiVersion.V3, _v3_columns)):
        ours = [number for number, (answer, _) in enumerate(answers) if answer.api_version is version]
        if not ours:
            continue
        for numbers in (ours, *([number] for number in ours if len(ours) > 1)):
            # The plain reader reads or refuses what fails here.
            with suppress(*UNREADABLE):
                columns, moments = read([answers[number] for number in numbers])
                yield numbers, [_moments(*both) for both in moments], columns
                if numbers is ours:
                    break


def _v2_columns(answers: Sequence[Submitted]) -> tuple[Columns, Sequence[tuple[Any, Any]]]:
    columns = columnar.read_v2([answer.operation for answer, _ in answers])
    return columns, columns.moments


def _v3_columns(answers: Sequence[Submitted]) -> tuple[Columns, Sequence[tuple[Any, Any]]]:
    operations = [plain.read_operation(answer.operation) for answer, _ in answers]
    if not all(one.get("done") is True and read_status(one.get("error")) is None for one in operations):
        raise MalformedError("an operation failed, or is not done")
    if any(answer.recognition is None for answer, _ in answers):
        raise MalformedError("a stream is missing")
    columns = columnar.read_v3(
        [answer.recognition or b"" for answer, _ in answers], [_speakers(one) for _, one in answers]
    )
    return columns, [(one.get("createdAt"), one.get("modifiedAt")) for one in operations]


def _read_plainly(
    number: int, answer: Answer, submission: Submission | None
) -> tuple[dict[str, Any], Speech, list[dict[str, Any]]]:
    operation = plain.read_operation(answer.operation)
    row = _row(answer, submission, *_moments(operation.get("createdAt"), operation.get("modifiedAt")))
    error = read_status(operation.get("error"))
    speech, analyses = Speech.concat([]), []
    # A failed operation can have a response too, and need not be done.
    if error is None:
        if operation.get("done") is not True:
            raise MalformedError("the operation is not done")
        if answer.api_version is ApiVersion.V2:
            chunks = pa.array(plain.read_v2(operation), CHUNK)
            speech = v2_speech(chunks, np.full(len(chunks), number))
        elif answer.recognition is None:
            raise MalformedError("what `getRecognition` answered is missing")
        else:
            stream = plain.read_v3(answer.recognition)
            messages = pa.array(stream.messages, MESSAGE)
            speakers = np.full(number + 1, _speakers(submission))
            speech = v3_speech(messages, np.full(len(messages), number), speakers)
            analyses, error = stream.analyses, stream.error
    if error is not None:
        row |= {"status": Status.FAILED.value, "error_code": error.code, "error_message": error.message or ""}
    return row, speech, analyses


def _speakers(submission: Submission | None) -> bool:
    return submission is not None and submission.settings.speaker_labeling


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
    encoded = speech.channel.dictionary_encode()
    names = len(encoded.dictionary) + 1
    distinct = np.unique(speech.answer * names + encoded.indices.to_numpy())
    channels = np.bincount(distinct // names, minlength=size).tolist()
    for number, row in rows.items():
        row |= {"utterances": utterance_counts[number], "words": word_counts[number]}
        row["channels"] = row["channels"] or channels[number] or None
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


def _row(
    answer: Answer,
    submission: Submission | None,
    created_at: datetime | None = None,
    finished_at: datetime | None = None,
) -> dict[str, Any]:
    """Return a row of `recognitions`, without what is counted."""
    row = {
        "recognition_id": answer.operation_id,
        "operation_id": answer.operation_id,
        "labels": "{}",
        "api_version": answer.api_version.value,
        "channels": None,
        "created_at": created_at,
        "finished_at": finished_at,
        "status": Status.FINISHED.value,
    }
    if submission is None:
        return row
    settings = submission.settings
    return {
        **row,
        "audio_uri": writable(submission.audio_uri),
        "labels": as_json(dict(sorted(submission.labels.items()))),
        "model": writable(settings.model),
        "language": writable(settings.language_asked) if settings.language_asked else None,
        "channels": submission.channels,
        "duration_ms": submission.duration_ms,
        "billed_seconds": submission.billed_seconds,
        "created_at": created_at or submission.submitted_at,
        "settings": as_json(settings.to_json()),
        "dag_id": submission.dag_id,
        "run_id": submission.run_id,
    }


def _moments(created_at: Any, finished_at: Any) -> tuple[datetime | None, datetime | None]:
    """Return RFC 3339 times.

    :raises MalformedError: one of them is none
    """
    return (
        None if created_at is None else parse_time(created_at),
        None if finished_at is None else parse_time(finished_at),
    )


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
