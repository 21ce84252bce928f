"""What a worker finds when it asks for an operation, and archives: the blocking half of what the trigger does."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.archive.keeping import (
    Came,
    Delete,
    Fetch,
    Keep,
    Pause,
    Step,
    Trouble,
    keep_operation,
    keeping,
    log_undeleted,
)
from airflow_speechkit.errors import (
    AuthenticationError,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    ResultExpiredError,
    ServiceFaultError,
    SpeechKitError,
    UnreachableError,
    unexpected,
)
from airflow_speechkit.redaction import where_it_came_from

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

log = logging.getLogger(__name__)

#: Errors after which the next request would most likely end in the same way.
_OF_ALL_REQUESTS = (
    AuthenticationError,
    PermissionDeniedError,
    QuotaExceededError,
    ServiceFaultError,
    UnreachableError,
)


class HowEnded(StrEnum):
    """How an operation ended."""

    DONE = "done"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True)
class Checked:
    """What one check has found.

    :param how: ``None``: the operation is running
    :param created_at: when the operation began, by the service
    """

    how: HowEnded | None
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

        :raises SpeechKitError: no usable answer came, or what came can't be archived now
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
            return Checked(HowEnded.GONE)
        except SpeechKitError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one answer does, the others are asked for
            log.error("Operation %s: an unexpected %s", operation_id, where_it_came_from(error))
            raise unexpected(operation_id, error) from None
        return Checked(HowEnded.FAILED if failed else HowEnded.DONE)

    def _keep(self, operation: Operation, archive: Archive) -> bool:
        """Archive an answer; return whether the operation has failed."""
        # No patience here: the others of a list come first, and whoever asks in rounds asks for this one again.
        trouble = Trouble(operation.id, lambda *error: True)
        steps = keeping(operation, delete=self.delete_after_archiving, trouble=trouble)
        try:
            step = next(steps)
            while True:
                step = steps.send(self._carry_out(step, operation, archive))
        except StopIteration as end:
            # Never that the answer is to be dropped: the first error has ended it.
            return end.value is True

    def _carry_out(self, step: Step, operation: Operation, archive: Archive) -> Came:
        try:
            match step:
                case Fetch():
                    return self.hook.get_recognition(operation.id, seen_done=True)
                case Keep(recognition, broken):
                    keep_operation(archive, operation, recognition, broken)
                case Delete():
                    self.hook.delete_recognition(operation.id)
                case Pause(seconds):
                    time.sleep(seconds)
        except SpeechKitError as error:
            return error
        return None

    def cancel(self, operation_ids: Iterable[str]) -> None:
        """Ask the service to cancel operations: best effort."""
        for operation_id in operation_ids:
            try:
                self.hook.cancel_operation(operation_id)
                log.info("Asked the service to cancel operation %s", operation_id)
            except QuotaExceededError as error:
                log.warning("The quota is used up, so the operations from %s on go on: %s", operation_id, error)
                return
            except SpeechKitError as error:
                log.warning("Operation %s was not cancelled: %s", operation_id, error)

    def delete(self, operation_ids: Iterable[str]) -> None:
        """Have the service delete results that are archived already. A second time does no harm."""
        for operation_id in operation_ids:
            try:
                self.hook.delete_recognition(operation_id)
            except SpeechKitError as error:
                log_undeleted(operation_id, error)
                if isinstance(error, _OF_ALL_REQUESTS):
                    return
