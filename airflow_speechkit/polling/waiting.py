"""What is waited for, and how a wait ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.errors import OperationNotFoundError, SpeechKitError


@dataclass(frozen=True, slots=True)
class Waiting:
    """One operation that somebody waits for: all that its schedule depends on, but for the clock.

    :param operation_id: the service's id
    :param submitted_at: when it was submitted, in seconds since the epoch; the age of the operation counts from here,
        so that a restart changes nothing
    :param audio_s: length of the recording in seconds, where it is known
    :param channels: number of channels, where it is known: each one costs the service its time
    :param model: ``deferred-*`` may take up to 24 hours
    :param api_version: ``v2`` or ``v3``
    :param interval_s: the user's `poke_interval` in seconds, in place of the prediction
    """

    operation_id: str
    submitted_at: float
    audio_s: float | None = None
    channels: int | None = None
    model: str = "general"
    api_version: str = "v2"
    interval_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The operation has ended, in a result or in an error of its own: `operation.state` tells which.

    :param checks: status checks spent on it in this process
    :param delay_s: seconds between its end, by the service's clock, and this answer; `None` where it can't be told
    """

    operation_id: str
    operation: Operation
    checks: int
    delay_s: float | None


@dataclass(frozen=True, slots=True)
class Gone:
    """The service does not know the operation (404): it never existed, or its three days are over."""

    operation_id: str
    error: OperationNotFoundError


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No usable answer came, many times in a row and for a long time; the operation itself may well be fine.

    :param error: the last error
    :param failures: errors in a row
    :param for_s: seconds since the first of them
    """

    operation_id: str
    error: SpeechKitError
    failures: int
    for_s: float


Ending = Finished | Gone | Unanswered
