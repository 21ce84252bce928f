"""The errors of submits: of one recording, and of a task whose recordings were not all submitted."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from airflow_speechkit.archive.ledger import Failure
from airflow_speechkit.archive.submit_rules import OnFailure
from airflow_speechkit.errors import (
    ArchiveError,
    RecognitionFailedError,
    RefusedError,
    SubmissionLostError,
    SubmissionsFailedError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.archive.submit_rules import SubmitOutcome
    from airflow_speechkit.errors import SpeechKitError
    from airflow_speechkit.models import Submission


def forget_command(archive_url: str, operation_id: str) -> str:
    """Return the command after which the next submit sends an operation's recording, and pays for it, again."""
    return f"`airflow-speechkit archive forget {operation_id} --archive {shlex.quote(archive_url)}`"


def would_fail_again(archive_url: str, operation_id: str) -> str:
    """Return the hint for an operation that failed because of what was submitted."""
    return (
        "It would fail again, so it isn't submitted again: correct the recording or the settings. If you want it "
        f"submitted, and paid for, again as it is, run {forget_command(archive_url, operation_id)}, then clear the "
        "task that submits it"
    )


def other_recordings(count: int) -> str:
    """Return the hint for a task that fails for some of its recordings, about the others.

    :param count: how many others there are
    """
    return (
        f"The others ({count:,}) are in the archive, and are not paid for again. on_failure='record' returns them, and "
        "makes rows with status='refused' or 'failed' of what has no result; on_failure='skip' leaves that out"
    )


def refused_before(failure: Failure | None) -> RefusedError:
    """Return the error of a recording that the service refused in an earlier visit of this run."""
    failure = failure or Failure(None, "The service refused the submission")
    return RefusedError(
        failure.message,
        grpc_code=failure.code,
        hint="Check the recording, its settings, and that the service account may read it",
        retry="sends it again",
    )


def failed_before(archive_url: str, failure: Failure | None, operation_id: str) -> RecognitionFailedError:
    """Return the error of a recording whose operation failed, and would fail again."""
    failure = failure or Failure(None, "no reason is on record")
    return RecognitionFailedError(
        f"This recording was submitted before, and failed: {failure.message} (code {failure.code})",
        code=failure.code,
        message=failure.message,
        operation_id=operation_id,
        hint=would_fail_again(archive_url, operation_id),
        retry="fails here at once and costs nothing",
    )


def answer_missing(archive_url: str, outcome_url: str, operation_id: str, recording: str) -> ArchiveError:
    """Return the error of a recording whose answer is archived according to the ledger, and isn't there.

    :param outcome_url: where it should be
    """
    return ArchiveError(
        f"The ledger says that the answer to this recording is archived, but {outcome_url} is missing",
        operation_id=operation_id,
        recording=recording,
        hint="Restore that folder from a backup; or, to submit the recording again and pay for it again: "
        f"{forget_command(archive_url, operation_id)}",
        retry="fails in the same way until then",
        retry_can_help=False,
    )


def not_on_record(
    submission: Submission, attempt: int, error: ArchiveError, *, archive_url: str | None
) -> ArchiveError:
    """Return the error of an accepted submission that can't be put on record.

    :param attempt: its number
    :param error: why it can't
    :param archive_url: None for a temporary archive
    """
    hint, retry = "Give that operation id to a SpeechKitRecognitionSensor", "pays again: there is no archive"
    if archive_url is not None:
        hint = (
            f"Once the archive can be written: airflow-speechkit archive adopt {submission.fingerprint} "
            f"{submission.operation_id} --archive {archive_url} --attempt {attempt}"
        )
        retry = "treats it as a lost submission until then"
    return ArchiveError(
        f"The service has accepted the recording, and that can't be put on record: {error.what}",
        recording=submission.audio_uri,
        operation_id=submission.operation_id,
        hint=hint,
        retry=retry,
        retry_can_help=False,
    )


def lost_submission(
    fingerprint: str,
    attempt: int,
    owner: str | None,
    error: SpeechKitError | None,
    *,
    archive_url: str | None,
    is_resent: bool,
) -> SubmissionLostError:
    """Return the error of a recording that the service may have accepted, with an unknown operation id.

    :param fingerprint: its place in the ledger
    :param attempt: its number
    :param owner: the process that sent it
    :param error: what it got in place of an answer, where that is known
    :param archive_url: None for a temporary archive
    :param is_resent: whether the task instance has sent it again already
    """
    hint = "The service has no list of operations: look for the id in that process's log, or in the folder's billing"
    retry = "sends it again, and pays again if it was accepted"
    if archive_url is not None:
        options = f"--attempt {attempt} --archive {archive_url}"
        hint += (
            f". With the id: `airflow-speechkit archive adopt {fingerprint} OPERATION_ID {options}`; if it surely "
            f"wasn't accepted: `airflow-speechkit archive release {fingerprint} {options}`. "
        )
        hint += (
            "It was sent again once already"
            if is_resent
            else "To send it again and perhaps pay twice: on_lost_submission='resubmit'"
        )
        retry = "fails in the same way until one of these is done"
    reason = "" if error is None else f": {error.what}"
    return SubmissionLostError(
        "The service may have accepted this recording, but the operation's id never came back "
        f"(attempt {attempt}, by {owner or 'an unknown process'}{reason})",
        hint=hint,
        retry=retry,
        retry_can_help=False,
        request_id=getattr(error, "request_id", None),
        server_trace_id=getattr(error, "server_trace_id", None),
    )


def error_of(
    outcomes: Sequence[SubmitOutcome], on_failure: OnFailure, *, without_archive: bool = False
) -> SpeechKitError | None:
    """Return the error that a task fails with; None where it doesn't.

    :param outcomes: what became of all its recordings
    :param on_failure: what those do that can't be submitted
    :param without_archive: whether there is no archive
    :return: the error of the recording where there is one, `SubmissionsFailedError` where there are several
    """
    must_fail = [one.error for one in outcomes if one.error is not None and one.must_fail]
    every = [one.error for one in outcomes if one.error is not None]
    errors = every if on_failure is OnFailure.FAIL else must_fail
    if not errors:
        return None
    error = errors[0] if len(errors) == 1 else SubmissionsFailedError.of(errors, len(outcomes))
    others = len({one.fingerprint for one in outcomes if one.error is None})
    if without_archive:
        error.retry = "submits everything again and pays again for what was accepted: there is no archive"
    elif others and not must_fail:
        error.add_hint(f"{other_recordings(others)}.")
    return error
