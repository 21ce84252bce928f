"""What a worker finds when it asks for an operation, and archives: the blocking half of what the trigger does."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.errors import OperationNotFoundError, RecognitionFailedError, ResultExpiredError, SpeechKitError
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

log = logging.getLogger(__name__)


class Ending(StrEnum):
    """How an operation ended."""

    DONE = "done"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True)
class Checked:
    """What one check has found.

    :param ending: ``None``: the operation is running
    :param created_at: when the operation began, by the service
    """

    ending: Ending | None
    created_at: datetime | None = None


@dataclass(frozen=True)
class Checker:
    """Asks for operations, one status check each, and archives what has ended.

    :param hook: the service's connection
    :param archive: ``None``: answers are not archived
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    """

    hook: SpeechKitHook
    archive: Archive | None
    delete_after_archiving: bool = False

    def check(self, operation_id: str) -> Checked:
        """Ask for one operation.

        :raises SpeechKitError: no usable answer came, or what came can't be archived
        """
        from airflow_speechkit.api.operation import OperationState

        try:
            operation = self.hook.get_operation(operation_id, attempts=1)
            if operation.state is OperationState.RUNNING:
                return Checked(None, operation.created_at)
            if self.archive is None:
                failed = operation.state is OperationState.FAILED
            else:
                failed = self._keep(operation, self.archive)
        except (OperationNotFoundError, ResultExpiredError):
            if self.archive is not None:
                # At once, since a rescheduled task forgets it.
                self.archive.expire(operation_id, datetime.now(UTC))
            return Checked(Ending.GONE)
        return Checked(Ending.FAILED if failed else Ending.DONE)

    def _keep(self, operation: Operation, archive: Archive) -> bool:
        """Archive an answer; return whether the operation has failed."""
        from airflow_speechkit.api.operation import OperationState
        from airflow_speechkit.hooks.archive import RETRY_PAUSES_S, keep_operation

        failed = operation.state is OperationState.FAILED
        fetch = operation.api_version is ApiVersion.V3 and not failed
        recognition: bytes | None = None
        broken: RecognitionFailedError | None = None
        for pause_s in (*RETRY_PAUSES_S, None):
            try:
                if fetch and recognition is None:
                    recognition = self.hook.get_recognition(operation.id, seen_done=True)
                keep_operation(archive, operation, recognition)
                break
            except RecognitionFailedError as error:
                # A v3 result that breaks off with an error, which may have been the service's bad moment.
                broken = error
            except SpeechKitError as error:
                if pause_s is None or not error.retry_can_help:
                    raise
                log.warning("Operation %s can't be archived yet; again in %g s: %s", operation.id, pause_s, error)
            if pause_s is None:
                keep_operation(archive, operation, None, broken)
                return True
            time.sleep(pause_s)
        if fetch and self.delete_after_archiving:
            self._delete(operation.id)
        return failed

    def _delete(self, operation_id: str) -> None:
        try:
            self.hook.delete_recognition(operation_id)
        except SpeechKitError as error:
            # It is archived, and the service forgets it after three days anyway.
            log.warning("The service still has the result of operation %s: %s", operation_id, error)
