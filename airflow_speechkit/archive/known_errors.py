"""The errors of recordings that were submitted before, made from what is on record."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import OUTCOME_FILE, operation_file
from airflow_speechkit.archive.ledger import Failure
from airflow_speechkit.archive.records import damage
from airflow_speechkit.errors import ArchiveError, RecognitionFailedError, RefusedError

if TYPE_CHECKING:
    from airflow_speechkit.archive.store import Archive


def refused_before(failure: Failure | None) -> RefusedError:
    """Return the error of a recording that the service refused in an earlier visit of this run."""
    failure = failure or Failure(None, "The service refused the submission")
    return RefusedError(
        failure.message,
        grpc_code=failure.code,
        hint="Check the recording, its settings, and that the service account may read it",
        retry="sends it again",
    )


def forget_command(archive: Archive, operation_id: str) -> str:
    """Return the command after which the next submit sends an operation's recording, and pays for it, again."""
    return f"`airflow-speechkit archive forget {operation_id} --archive {shlex.quote(archive.url)}`"


def would_fail_again(archive: Archive, operation_id: str) -> str:
    """Say what to do about an operation that failed because of what was submitted."""
    return (
        "It would fail again, so it isn't submitted again: correct the recording or the settings. If you want it "
        f"submitted, and paid for, again as it is, run {forget_command(archive, operation_id)}, then clear the task "
        "that submits it"
    )


def failed_before(archive: Archive, failure: Failure | None, operation_id: str) -> RecognitionFailedError:
    """Return the error of a recording whose operation failed, and would only fail again."""
    failure = failure or Failure(None, "no reason is on record")
    return RecognitionFailedError(
        f"This recording was submitted before, and failed: {failure.message} (code {failure.code})",
        code=failure.code,
        message=failure.message,
        operation_id=operation_id,
        hint=would_fail_again(archive, operation_id),
        retry="ends here at once, and costs nothing",
    )


def answer_gone(archive: Archive, operation_id: str, recording: str) -> ArchiveError:
    """Return the error of a recording whose answer has gone, though the ledger says that it is archived."""
    place = archive.folder.url_of(operation_file(operation_id, OUTCOME_FILE))
    return damage(
        f"The ledger says that the answer to this recording is archived, and {place} has gone",
        "Put that folder back from a backup; or, to have the recording sent and paid for once more: "
        f"{forget_command(archive, operation_id)}",
        operation_id=operation_id,
        recording=recording,
    )
