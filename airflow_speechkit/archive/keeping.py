"""When an answer is fetched, archived and deleted from the service: one decision for workers and triggerers.

`keeping` yields what is to be done and is sent what came of it: a result's bytes, an error, or nothing. It holds an
answer, perhaps of megabytes, over a short outage of the archive alone; over a longer one nobody does, and `reaching`
tells when it is worth fetching again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_speechkit.compressed import Packed
from airflow_speechkit.errors import (
    LostError,
    OperationNotFoundError,
    QuotaExceededError,
    RecognitionFailedError,
    SpeechKitError,
    StorageError,
    WrongBeforeSendingError,
)
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive

log = logging.getLogger(__name__)

#: Pauses before a v3 result that breaks off with an error is asked for again: that may have been the service's bad
#: moment. After them the recognition counts as failed.
RETRY_PAUSES_S = (1.0, 4.0, 15.0, 40.0)

#: Pauses after anything else that goes wrong: doubling, seconds.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0

#: An answer is held for so many seconds of pauses altogether while the archive is away. Then it is let go: answers of
#: megabytes, held for an hour, would keep the places of checks from everybody, and fill the memory.
HELD_S = 60.0
#: The first pause without the answer is no shorter: it costs a request to have it again.
LET_GO_S = 60.0

#: Asking again ends in the same way.
_FINAL = (LostError, OperationNotFoundError, WrongBeforeSendingError)


@dataclass(frozen=True)
class Fetch:
    """Step: fetch a v3 result. Sent: its bytes, or the error."""


@dataclass(frozen=True)
class Keep:
    """Step: archive the answer. Sent: nothing, or the error.

    :param recognition: v3: the result
    :param broken: v3: what the service says in place of the result
    """

    recognition: bytes | None = field(default=None, repr=False)
    broken: RecognitionFailedError | None = None


@dataclass(frozen=True)
class Pause:
    """Step: wait.

    :param holding: whether an answer, perhaps of megabytes, is held meanwhile
    """

    seconds: float
    holding: bool


@dataclass(frozen=True)
class Delete:
    """Step: have the service delete a v3 result. Sent: nothing, or the error."""


@dataclass(frozen=True)
class Reach:
    """Step: see whether the archive is there. Sent: nothing, or the error."""


@dataclass(frozen=True)
class LetGo:
    """What `keeping` ends with where the answer has to be dropped: go through `reaching`, then have it again.

    :param pause: what to begin with
    """

    pause: Pause


Step = Fetch | Keep | Pause | Delete | Reach
Came = bytes | SpeechKitError | None
#: Of an error, how many of its kind there were in a row, and for how many seconds: whether they are too many.
TooMany = Callable[[SpeechKitError, int, float], bool]


def is_fetched_apart(operation: Operation) -> bool:
    """Tell whether an ended operation has a result that isn't in the answer that says so."""
    from airflow_speechkit.api.operation import OperationState

    return operation.api_version is ApiVersion.V3 and operation.state is OperationState.DONE


class Trouble:
    """Errors in a row that may pass, and how long an answer is held meanwhile.

    :param operation_id: what is to be archived
    :param too_many: when to give up over them
    :param may_hold: whether an answer may be held at all; not where the archive is known to have been away for long
    """

    def __init__(self, operation_id: str, too_many: TooMany, may_hold: Callable[[], bool] = lambda: True) -> None:
        self.operation_id = operation_id
        self.too_many = too_many
        self.may_hold = may_hold
        self._failures = 0
        #: Of errors that can pass and of those that can't: how many, and when they began.
        self._runs: dict[bool, tuple[int, float]] = {}
        # Without the time that the tries themselves took: there is no clock here, and it only makes for more patience.
        self._for_s = 0.0
        self._held_s = 0.0

    def pause_after(self, error: SpeechKitError, *, holding: bool) -> Pause:
        """Take in one more error; return how long to wait, and whether the answer is held meanwhile.

        :param holding: whether there is one
        :raises SpeechKitError: the error, where it can't pass, or they are too many
        """
        # A storage that can't be reached may be there again in a minute; a right that is missing isn't, nor is a
        # damaged file mended.
        if isinstance(error, _FINAL) or (isinstance(error, StorageError) and not error.retry_can_help):
            raise error
        self._failures += 1
        number, since_s = self._runs.get(error.retry_can_help, (0, self._for_s))
        self._runs[error.retry_can_help] = number + 1, since_s
        if self.too_many(error, number + 1, self._for_s - since_s):
            raise error
        seconds = pause_s(self._failures)
        if isinstance(error, QuotaExceededError):
            seconds = max(seconds, error.retry_after_s or 0.0)
        held = holding and self._held_s + seconds <= HELD_S and self.may_hold()
        if held:
            self._held_s += seconds
        elif holding:
            seconds = max(seconds, min(LET_GO_S, LONGEST_PAUSE_S))
        self._for_s += seconds
        log.warning("Operation %s can't be archived yet; again in %g s: %s", self.operation_id, seconds, error)
        return Pause(seconds, held)


def keeping(operation: Operation, *, delete: bool, trouble: Trouble) -> Generator[Step, Came, bool | LetGo]:
    """Archive the answer of an ended operation.

    :param operation: one that is done or has failed
    :param delete: have the service delete a v3 result once it is archived
    :param trouble: the same one each time that this operation's answer is archived
    :return: whether the operation counts as failed; or that its answer is to be dropped, and asked for again later
    :raises SpeechKitError: what came of the last try. Nothing is lost by it: the service keeps a result for three days
    """
    from airflow_speechkit.api.operation import OperationState

    recognition: bytes | None = None
    broken: RecognitionFailedError | None = None
    if not trouble.may_hold():
        # The try alone can hold the answer for minutes, where the archive doesn't answer.
        return LetGo(Pause(min(LET_GO_S, LONGEST_PAUSE_S), holding=False))
    if is_fetched_apart(operation):
        recognition, broken = yield from _fetching(Trouble(operation.id, trouble.too_many))
    while isinstance(error := (yield Keep(recognition, broken)), SpeechKitError):
        pause = trouble.pause_after(error, holding=True)
        if not pause.holding:
            return LetGo(pause)
        yield pause
    # One that nobody could read yet stays with the service for its three days.
    if delete and recognition is not None and not isinstance(recognition, Packed):
        error = yield Delete()
        if isinstance(error, SpeechKitError):
            log_undeleted(operation.id, error)
    return operation.state is OperationState.FAILED or broken is not None


def reaching(trouble: Trouble, pause: Pause) -> Generator[Step, Came, None]:
    """Wait until the archive is there again, without an answer: only then is one fetched for it.

    :param trouble: of the operation
    :param pause: the first one
    :raises SpeechKitError: what came of the last try
    """
    yield pause
    while isinstance(error := (yield Reach()), SpeechKitError):
        yield trouble.pause_after(error, holding=False)


def _fetching(trouble: Trouble) -> Generator[Step, Came, tuple[bytes | None, RecognitionFailedError | None]]:
    pauses = iter(RETRY_PAUSES_S)
    while True:
        came = yield Fetch()
        if isinstance(came, RecognitionFailedError):
            pause = next(pauses, None)
            if pause is None:
                return None, came
            log.warning("Operation %s: %s. It is asked for again in %g s", trouble.operation_id, came.what, pause)
            yield Pause(pause, holding=False)
        elif isinstance(came, SpeechKitError):
            yield trouble.pause_after(came, holding=False)
        else:
            return came, None


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S)


def log_undeleted(operation_id: str, error: SpeechKitError) -> None:
    """Say that a result is still with the service: no reason to fail, it is archived and forgotten in three days."""
    log.warning("The service still has the result of operation %s: %s", operation_id, error)


def keep_operation(
    archive: Archive,
    operation: Operation,
    recognition: bytes | None,
    broken: RecognitionFailedError | None = None,
) -> Outcome:
    """Archive an ended operation as the service gave it: carries out `Keep`.

    :param operation: one that is done or has failed
    :param recognition: v3: the result's stream
    :param broken: v3: what the service says in place of the result of an operation that is done
    :raises ArchiveError: it can't be written
    """
    from airflow_speechkit.api.operation import OperationState
    from airflow_speechkit.archive.ledger import Failure
    from airflow_speechkit.results.answer import Answer

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
