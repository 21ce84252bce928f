"""An ended operation's answer, put into the archive as the service gave it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.errors import RecognitionFailedError


def is_fetched_apart(operation: Operation) -> bool:
    """Whether an ended operation has a result that isn't in the answer that says so."""
    from airflow_speechkit.api.operation import OperationState

    return operation.api_version is ApiVersion.V3 and operation.state is OperationState.DONE


def archive_answer(
    archive: Archive,
    operation: Operation,
    recognition: bytes | None,
    broken: RecognitionFailedError | None = None,
) -> Outcome:
    """Archive an ended operation.

    :param operation: one that is done or has failed
    :param recognition: v3: the result's stream
    :param broken: v3: what the service says in place of the result of an operation that is done
    :return: what is on record
    :raises ArchiveError: it can't be written
    """
    from airflow_speechkit.api.operation import OperationState
    from airflow_speechkit.archive.ledger import Failure
    from airflow_speechkit.models import Answer

    failure = None if broken is None else Failure(broken.code, broken.message or broken.what)
    if operation.state is OperationState.FAILED:
        failure = Failure(operation.error_code, operation.error_message or "")
    answer = Answer(
        operation_id=operation.id,
        api_version=operation.api_version,
        operation=operation.raw,
        recognition=recognition,
    )
    return archive.keep(answer, failure, now=datetime.now(UTC))
