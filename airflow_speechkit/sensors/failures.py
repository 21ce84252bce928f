"""What a wait says about operations that ended without a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.errors import OperationNotFoundError, RecognitionFailedError, ResultExpiredError, SpeechKitError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.submission import Submission

#: How many failed operations are named one by one.
MOST_NAMED = 20


def failure_of(outcome: Outcome, submission: Submission | None) -> SpeechKitError:
    """Say why an operation on record has no result.

    :param outcome: with a failure
    :param submission: what was submitted, where that is on record
    """
    from airflow_speechkit.archive.ledger import Stage

    recording = None if submission is None else submission.audio_uri
    failure = outcome.failure
    if outcome.stage is Stage.EXPIRED:
        return ResultExpiredError(
            "The service has forgotten the result: it keeps results for three days, and none was archived",
            recording=recording,
            operation_id=outcome.operation_id,
            todo="Submit the recording again (that is paid for again), and let the wait follow within three days",
            retry="of this task ends here at once",
        )
    message = failure.message if failure is not None else "no reason is on record"
    code = failure.code if failure is not None else None
    return RecognitionFailedError(
        f"The recognition failed: {message} (code {code})",
        code=code,
        message=message,
        recording=recording,
        operation_id=outcome.operation_id,
        todo="'Internal' often means a recording that isn't in the format that was declared",
        retry="of this task ends here at once and costs nothing; clearing the submit sends the recording again only "
        "if that may end differently",
    )


def unknown_operation(operation_id: str) -> OperationNotFoundError:
    """Say that the service doesn't know an operation that isn't old enough to be forgotten, or isn't on record."""
    return OperationNotFoundError(
        "The service doesn't know this operation, or has no result of it: it never existed in this connection's "
        "folder, its result was deleted, or it is older than the three days that results are kept",
        http_status=404,
        operation_id=operation_id,
        todo="Check the id, and that the connection is the one it was submitted through",
        retry="asks again",
    )


def failures_together(failures: Mapping[str, SpeechKitError], *, of: int) -> SpeechKitError:
    """Make one error of all failures of a list: the error itself where there is one.

    :param failures: operation id -> error, at least one
    :param of: how many operations there were
    """
    each = list(failures.values())
    if len(each) == 1:
        return each[0]
    named = "; ".join(
        f"{one} ({error.recording or 'recording unknown'}): {error.what}"
        for one, error in list(failures.items())[:MOST_NAMED]
    )
    more = f"; and {len(each) - MOST_NAMED} more" if len(each) > MOST_NAMED else ""
    return RecognitionFailedError(
        f"{len(each)} of {of} operations have no result: {named}{more}",
        todo="The others are archived; `on_failure='record'` or 'skip' goes on with them",
        retry="of this task ends here at once, and costs nothing",
    )
