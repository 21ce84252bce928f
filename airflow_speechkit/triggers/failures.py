"""Operations that ended without a result: their errors, and what becomes of the task."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_speechkit.archive.ledger import AttemptState, Failure
from airflow_speechkit.archive.submit_rules import OnFailure, other_recordings, would_fail_again
from airflow_speechkit.errors import (
    ArchiveError,
    OperationNotFoundError,
    RecognitionFailedError,
    ResultExpiredError,
    SpeechKitError,
    and_more,
    quoted,
)
from airflow_speechkit.hooks.archive import read_each, read_submissions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.models import Submission

log = logging.getLogger(__name__)

#: google.rpc.Code
_INTERNAL = 13

#: How many failed operations are named one by one.
MOST_NAMED = 20


def archived_failures(
    archive: Archive, operation_ids: Sequence[str], gone: Collection[str]
) -> dict[str, SpeechKitError]:
    """Return the errors of those operations that ended without a result.

    :param operation_ids: operations that have ended
    :param gone: those of them that the service doesn't know
    :raises ArchiveError: the archive can't be read, or lacks one that has ended
    """
    outcomes = dict(read_each(archive.outcome, operation_ids))
    for operation_id in [one for one, outcome in outcomes.items() if outcome is None]:
        if operation_id not in gone:
            raise ArchiveError(
                "The archive has no answer of an operation that has ended",
                operation_id=operation_id,
                retry="asks the service for it again",
            )
        archive.expire(operation_id, datetime.now(UTC))
        outcomes[operation_id] = archive.outcome(operation_id)
    # A recording that was refused at submission is on record on purpose: `on_failure='record'` there.
    failed = [
        one
        for one, outcome in outcomes.items()
        if outcome is None or (outcome.failure is not None and outcome.state is not AttemptState.REFUSED)
    ]
    submissions = read_submissions(archive, failed)
    return {one: _failure(one, outcomes[one], submissions[one], archive) for one in failed}


def service_failures(hook: SpeechKitHook, failed: Collection[str], gone: Collection[str]) -> dict[str, SpeechKitError]:
    """Return the same where there is no archive: the service is asked once more.

    :param failed: operations that ended in an error
    :param gone: those that the service doesn't know
    """
    found = {one: _failure(one, None, None, None) for one in gone}
    for operation_id in failed:
        operation = hook.get_operation(operation_id)
        failure = Failure(operation.error_code, operation.error_message or "")
        found[operation_id] = _recognition_failed(operation_id, failure, None, None)
    return found


def _failure(
    operation_id: str, outcome: Outcome | None, submission: Submission | None, archive: Archive | None
) -> SpeechKitError:
    recording = None if submission is None else submission.audio_uri
    if outcome is None:
        return OperationNotFoundError(
            "The service doesn't know this operation, or has no result of it: it never existed in this connection's "
            "folder, its result was deleted, or it is older than the three days that results are kept",
            http_status=404,
            operation_id=operation_id,
            hint="Check the id, and that the connection is the one it was submitted through",
            retry="asks again",
        )
    if outcome.state is AttemptState.EXPIRED:
        return ResultExpiredError(
            "The service no longer has the result: it keeps results for three days, and none was archived",
            recording=recording,
            operation_id=operation_id,
            hint="Submit the recording again (that is paid for again), and let the wait follow within three days",
            retry="ends here at once, and costs nothing",
        )
    failure = outcome.failure or Failure(None, "no reason is on record")
    return _recognition_failed(operation_id, failure, recording, archive)


def _recognition_failed(
    operation_id: str, failure: Failure, recording: str | None, archive: Archive | None
) -> RecognitionFailedError:
    if not failure.is_permanent:
        hint = (
            "Clearing the task that submits it sends it again, and pays again; waiting again for this operation "
            "changes and costs nothing"
        )
        if failure.code == _INTERNAL:
            hint = f"'Internal' often means a recording that isn't in the format that was declared. {hint}"
    elif archive is not None:
        hint = would_fail_again(archive.url, operation_id)
    else:
        hint = "It would fail again: correct the recording or the settings"
    return RecognitionFailedError(
        f"The recognition failed: {failure.message} (code {failure.code})",
        code=failure.code,
        message=failure.message,
        recording=recording,
        operation_id=operation_id,
        hint=hint,
    )


def ended_so_far(ended: int, *, failed: int, archived_before: int) -> str:
    """Return the numbers of operations that have ended, for a task's log.

    :param failed: how many of these have no result
    :param archived_before: how many of these the archive held before the task began
    """
    return f"ended {ended:,}, failed {failed:,}, archived before {archived_before:,}"


def is_sent_again(error: SpeechKitError) -> bool:
    """Whether the recording would be submitted, and paid for, again."""
    if isinstance(error, RecognitionFailedError):
        return not Failure(error.code, "").is_permanent
    return isinstance(error, ResultExpiredError)


def handed_on(ids: Sequence[str], failures: Mapping[str, SpeechKitError], on_failure: OnFailure) -> list[str]:
    """Return the ids that are handed on, and log what is left out or on record as failed.

    :param ids: operations that have ended
    :param failures: operation id -> error
    :raises SpeechKitError: what failed, where `on_failure` is ``fail`` or nothing is left to record
    :raises AirflowSkipException: nothing is left to hand on
    """
    errors = list(failures.values())
    if errors and on_failure is OnFailure.FAIL:
        raise_failed(errors, of=len(ids))
    # Nothing is on record of an id that the service doesn't know: no row can be made of it.
    unknown = {one for one, error in failures.items() if isinstance(error, OperationNotFoundError)}
    for operation_id, error in list(failures.items())[:MOST_NAMED]:
        if on_failure is OnFailure.SKIP:
            log.warning("Skipped: %s", error)
        elif operation_id in unknown:
            log.error("Left out, since nothing can be recorded of it: %s", error)
        else:
            log.warning("On record as failed: %s", error)
    if len(errors) > MOST_NAMED:
        log.warning("… %s", and_more(errors[MOST_NAMED:]))
    left_out = failures.keys() if on_failure is OnFailure.SKIP else unknown
    left = [one for one in ids if one not in left_out]
    if not left and on_failure is OnFailure.SKIP:
        raise AirflowSkipException("Every operation failed, and `on_failure` is 'skip'")
    if not left:
        raise_failed(errors, of=len(ids))
    return left


def raise_failed(errors: Sequence[SpeechKitError], *, of: int) -> NoReturn:
    """Raise the error of all failures of a list: the error itself where there is one.

    :param errors: what has no result, and why: at least one
    :param of: how many recordings there were
    """
    others = of - len(errors)
    error = errors[0]
    if len(errors) > 1:
        error = RecognitionFailedError(
            f"{len(errors)} of {of} operations have no result; the others are archived:\n{quoted(errors)}"
        )
    if others:
        error.add_hint(other_recordings(others))
    raise error
