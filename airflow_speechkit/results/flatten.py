"""Raw answers to tables."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.parsing import SURPRISES, MalformedError, parse_code, parse_time, writable
from airflow_speechkit.results.cutting import Cut, cut_many
from airflow_speechkit.results.order import in_order
from airflow_speechkit.results.reading import (
    V2_WORDING,
    V3_WORDING,
    Heard,
    read_operation,
    read_v2,
    read_v3,
)
from airflow_speechkit.results.schema import ANALYSES, RECOGNITIONS, Status, Tables
from airflow_speechkit.results.speech import Speech
from airflow_speechkit.results.texts import as_json
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.status import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from airflow_speechkit.models import Answer, Submission


#: Bytes of answers that are read in one go: small ones share what one costs at least, and more make nothing quicker.
BATCH_BYTES = 4 << 20

#: What reading something else than documented ends in.
UNREADABLE = (*SURPRISES, pa.ArrowException)

_WORDINGS = {ApiVersion.V2: V2_WORDING, ApiVersion.V3: V3_WORDING}


@dataclass(frozen=True)
class Reading:
    """An answer that was read, but not put in order yet: `tables` does that for many at once.

    :param recognition_id: the recognition
    :param facts: its row of `recognitions`
    :param speech: what was heard
    :param analyses: its rows of `analyses`
    """

    recognition_id: str
    facts: dict[str, Any]
    speech: Speech
    analyses: list[dict[str, Any]]


def flatten(answer: Answer, submission: Submission | None = None, *, exact: bool = False) -> Tables:
    """Turn an answer into tables.

    :param answer: what the service said; an operation that failed gives a row of `recognitions` that says so
    :param submission: what was submitted, where that is known
    :param exact: read word by word; the result is the same, only slower
    :raises AnswerUnreadableError: the answer is cut off, isn't JSON, isn't done, or isn't an answer
    """
    return tables([read(answer, submission, exact=exact)])


def flatten_many(answers: Sequence[tuple[Answer, Submission | None]]) -> Tables:
    """Turn some answers into tables, their operations one after the other as given.

    :raises AnswerUnreadableError: one of them can't be read; `many.write_many` goes on with the others
    """
    pieces: list[Tables] = []
    for batch in _batches(answers):
        readings: list[Reading] = []
        for reading in read_many(batch):
            if isinstance(reading, AnswerUnreadableError):
                raise reading
            readings.append(reading)
        pieces.append(tables(readings))
    return Tables.concat(pieces)


def read(answer: Answer, submission: Submission | None = None, *, exact: bool = False) -> Reading:
    """Read an answer; the arguments and errors are those of `flatten`."""
    reading = read_many([(answer, submission)], exact=exact)[0]
    if isinstance(reading, AnswerUnreadableError):
        raise reading
    return reading


def read_many(
    answers: Sequence[tuple[Answer, Submission | None]], *, exact: bool = False
) -> list[Reading | AnswerUnreadableError]:
    """Read some answers at once, which for small ones is quicker than one at a time.

    :return: for each its reading, or why it can't be read
    """
    cuts: dict[int, Cut] = {}
    for version, wording in () if exact else _WORDINGS.items():
        ours = [number for number, (answer, _) in enumerate(answers) if answer.api_version is version]
        bodies = [_body(answers[number][0]) for number in ours]
        # Whatever one of them does to the reader of columns, the plain one takes them all then.
        with suppress(*UNREADABLE):
            cuts.update(zip(ours, cut_many(bodies, wording), strict=True))
    readings: list[Reading | AnswerUnreadableError] = []
    for number, (answer, submission) in enumerate(answers):
        if number in cuts:
            try:
                readings.append(_read(answer, submission, cuts.pop(number)))
                continue
            except UNREADABLE:
                # Whatever the columns can't hold is for the plain reader to take or to refuse.
                pass
        try:
            readings.append(_read(answer, submission, Cut.nothing(_body(answer))))
        except UNREADABLE as error:
            readings.append(_unreadable(answer, submission, error))
    return readings


def tables(readings: Sequence[Reading]) -> Tables:
    """Put what was read in order, the operations one after the other as given."""
    ids = [(reading.recognition_id, reading.facts["operation_id"]) for reading in readings]
    utterances, words = in_order(ids, [reading.speech for reading in readings])
    analyses = [
        {"recognition_id": recognition_id, "operation_id": operation_id, "analysis_index": index, **row}
        for (recognition_id, operation_id), reading in zip(ids, readings, strict=True)
        for index, row in enumerate(reading.analyses)
    ]
    return Tables(
        recognitions=pa.Table.from_pylist([reading.facts for reading in readings], schema=RECOGNITIONS.arrow),
        utterances=utterances,
        words=words,
        analyses=pa.Table.from_pylist(analyses, schema=ANALYSES.arrow),
    )


def failed_row(submission: Submission, status: Status, code: int | None = None, message: str | None = None) -> Tables:
    """Return the tables of a recording that has no answer: it was refused, or is lost.

    :param submission: the recording; `operation_id` may be one of our own, ``refused-…``
    :param status: how it ended
    :param code: the error's gRPC code
    :param message: the error's text
    """
    facts = _facts(submission.operation_id, submission.settings.api_version, submission)
    said = None if message is None else writable(message)
    facts.update(status=status.value, error_code=parse_code(code), error_message=said)
    if status is Status.REFUSED:
        facts["operation_id"] = None
    return tables([Reading(submission.operation_id, facts, Speech(Cut.nothing(b"")), [])])


def _batches(
    answers: Sequence[tuple[Answer, Submission | None]],
) -> Iterator[list[tuple[Answer, Submission | None]]]:
    batch: list[tuple[Answer, Submission | None]] = []
    size = 0
    for one in answers:
        size += len(_body(one[0]))
        if batch and size > BATCH_BYTES:
            yield batch
            batch, size = [], len(_body(one[0]))
        batch.append(one)
    if batch:
        yield batch


def _unreadable(answer: Answer, submission: Submission | None, error: Exception) -> AnswerUnreadableError:
    # Any other error's own text can hold a piece of the answer.
    why = str(error) if isinstance(error, MalformedError) else "something in it has another type than documented"
    return AnswerUnreadableError(
        f"The answer can't be read: {why}",
        operation_id=answer.operation_id,
        recording=submission.audio_uri if submission else None,
        hint="Look at the raw answer; within three days the service gives it again",
        retry="reads the same answer again, if it is archived",
    )


def _body(answer: Answer) -> bytes:
    """Return the bytes that hold the words."""
    return answer.operation if answer.api_version is ApiVersion.V2 else answer.recognition or b""


def _read(answer: Answer, submission: Submission | None, cut: Cut) -> Reading:
    v3 = answer.api_version is ApiVersion.V3
    operation = read_operation(Cut.nothing(answer.operation) if v3 else cut)
    error = read_status(operation.get("error"))
    heard = Heard(Speech(Cut.nothing(b"")))
    # A failed operation can carry a response too, and needn't be done: `error` comes first.
    if error is None:
        if operation.get("done") is not True:
            raise MalformedError("the operation is not done")
        if v3:
            if answer.recognition is None:
                raise MalformedError("what `getRecognition` answered is missing")
            speakers = submission is not None and submission.settings.speaker_labeling
            heard = read_v3(cut, speakers=speakers)
            error = heard.error
        else:
            response = operation.get("response")
            if not isinstance(response, dict):
                raise MalformedError("the operation is done, but has no `response` (one of API v3 never has)")
            heard = read_v2(response, cut)
    facts = _facts(answer.operation_id, answer.api_version, submission, heard.speech)
    facts["created_at"] = _moment(operation.get("createdAt")) or facts["created_at"]
    facts["finished_at"] = _moment(operation.get("modifiedAt"))
    if error is not None:
        facts["status"] = Status.FAILED.value
        facts["error_code"] = error.code
        facts["error_message"] = error.message or ""
    heard.speech.cut = heard.speech.cut.without_rest()
    return Reading(answer.operation_id, facts, heard.speech, heard.analyses)


def _facts(
    operation_id: str, api_version: ApiVersion, submission: Submission | None, speech: Speech | None = None
) -> dict[str, Any]:
    settings = submission.settings if submission else None
    heard = speech.columns() if speech else None
    return {
        "recognition_id": operation_id,
        "operation_id": operation_id,
        "audio_uri": writable(submission.audio_uri) if submission else None,
        "labels": as_json(dict(sorted(submission.labels.items())) if submission else {}),
        "api_version": ApiVersion(api_version).value,
        "model": writable(settings.model) if settings else None,
        "language": writable(settings.language_asked) if settings and settings.language_asked else None,
        "channels": (submission.channels if submission else None) or (len(heard.channels) if heard else None) or None,
        "duration_ms": submission.duration_ms if submission else None,
        "utterances": len(heard.channel) if heard else 0,
        "words": heard.words if heard else 0,
        "billed_seconds": submission.billed_seconds if submission else None,
        "created_at": submission.submitted_at if submission else None,
        "finished_at": None,
        "status": Status.FINISHED.value,
        "error_code": None,
        "error_message": None,
        "settings": as_json(settings.to_json()) if settings else None,
        "dag_id": submission.dag_id if submission else None,
        "run_id": submission.run_id if submission else None,
    }


def _moment(text: Any) -> datetime | None:
    """Return an RFC 3339 time.

    :raises MalformedError: it is none
    """
    return None if text is None else parse_time(text)
