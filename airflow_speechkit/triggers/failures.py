"""Operations that ended without a result: their errors, and what becomes of the task."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_speechkit.archive.layout import read_each
from airflow_speechkit.archive.ledger import AttemptState, Failure
from airflow_speechkit.archive.submit_rules import OnFailure, other_recordings, would_fail_again
from airflow_speechkit.errors import (
    ArchiveError,
    OperationNotFoundError,
    RecognitionFailedError,
    ResultExpiredError,
    SpeechKitError,
    quoted,
)
from airflow_speechkit.hooks.archive import read_submissions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

log = logging.getLogger(__name__)

#: google.rpc.Code
_INTERNAL = 13


def archived_failures(
    archive: Archive, operation_ids: Sequence[str], not_found: Collection[str]
) -> dict[str, SpeechKitError]:
    """Return the errors of those operations that ended without a result.

    :param operation_ids: operations that have ended
    :param not_found: those of them that the service doesn't know
    :raises ArchiveError: the archive can't be read, or lacks one that has ended
    """
    outcomes = read_each(archive.outcome, operation_ids)
    for operation_id in [one for one, outcome in outcomes.items() if outcome is None]:
        if operation_id not in not_found:
            raise ArchiveError(
                "The archive has no answer of an operation that has ended",
                operation_id=operation_id,
                retry="asks the service for it again",
            )
        archive.expire(operation_id, datetime.now(UTC))
        outcomes[operation_id] = archive.outcome(operation_id)
    failures: dict[str, SpeechKitError] = {}
    for operation_id, outcome in outcomes.items():
        if outcome is None:
            failures[operation_id] = _not_found(operation_id)
        elif outcome.state is AttemptState.EXPIRED:
            failures[operation_id] = ResultExpiredError(
                "The service no longer has the result: it keeps results for three days, and none was archived",
                operation_id=operation_id,
                hint="Submit the recording again (that is paid for again), and let the wait follow within three days",
                retry="ends here at once, and costs nothing",
            )
        # A recording that was refused at submission is on record on purpose: `on_failure='record'` there.
        elif outcome.failure is not None and outcome.state is not AttemptState.REFUSED:
            failures[operation_id] = _recognition_failed(operation_id, outcome.failure, archive)
    for operation_id, submission in read_submissions(archive, failures).items():
        if submission is not None:
            failures[operation_id].about_recording(submission.audio_uri)
    return failures


def service_failures(
    hook: SpeechKitHook, failed: Collection[str], not_found: Collection[str]
) -> dict[str, SpeechKitError]:
    """Return the same where there is no archive: the service is asked once more.

    :param failed: operations that ended in an error
    :param not_found: those that the service doesn't know
    """
    failures: dict[str, SpeechKitError] = {one: _not_found(one) for one in not_found}
    for operation_id in failed:
        operation = hook.get_operation(operation_id)
        failure = Failure(operation.error_code, operation.error_message or "")
        failures[operation_id] = _recognition_failed(operation_id, failure, None)
    return failures


def _not_found(operation_id: str) -> OperationNotFoundError:
    return OperationNotFoundError(
        "The service doesn't know this operation, or has no result of it: it never existed in this connection's "
        "folder, its result was deleted, or it is older than the three days that results are kept",
        http_status=404,
        operation_id=operation_id,
        hint="Check the id, and that the connection is the one it was submitted through",
        retry="asks again",
    )


def _recognition_failed(operation_id: str, failure: Failure, archive: Archive | None) -> RecognitionFailedError:
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
        operation_id=operation_id,
        hint=hint,
    )


def is_sent_again(error: SpeechKitError) -> bool:
    """Whether the recording would be submitted, and paid for, again."""
    if isinstance(error, RecognitionFailedError):
        return not Failure(error.code, "").is_permanent
    return isinstance(error, ResultExpiredError)


def apply_on_failure(ids: Sequence[str], failures: Mapping[str, SpeechKitError], on_failure: OnFailure) -> list[str]:
    """Return the ids for the next task, and log what is left out or on record as failed.

    :param ids: operations that have ended
    :param failures: operation id -> error
    :raises SpeechKitError: what failed, where `on_failure` is ``fail`` or nothing is left to record
    :raises AirflowSkipException: nothing is left to return
    """
    errors, skips = list(failures.values()), on_failure is OnFailure.SKIP
    if errors and on_failure is OnFailure.FAIL:
        raise_failed(errors, of=len(ids))
    # Nothing is on record of an id that the service doesn't know: no row can be made of it.
    left_out = {one for one, error in failures.items() if skips or isinstance(error, OperationNotFoundError)}
    for operation_id, error in failures.items():
        log.warning("%s: %s", "Left out" if operation_id in left_out else "On record as failed", error)
    left = [one for one in ids if one not in left_out]
    if not left and skips:
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
