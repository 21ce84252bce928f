"""What is waited for, and how a wait ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.settings import ApiVersion

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
    :param api_version: whose quota a check counts against; a trigger's JSON has it as a string
    :param interval_s: the user's `poke_interval` in seconds, in place of the prediction
    """

    operation_id: str
    submitted_at: float
    audio_s: float | None = None
    channels: int | None = None
    model: str = "general"
    api_version: ApiVersion | str = ApiVersion.V2
    interval_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_version", ApiVersion(self.api_version))


@dataclass(frozen=True, slots=True)
class Finished:
    """The operation has ended, in a result or in an error of its own: `operation.state` tells which."""

    operation_id: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class Gone:
    """The service does not know the operation (404): it never existed, or its three days are over."""

    operation_id: str
    error: OperationNotFoundError


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No usable answer came, many times in a row and for a long time; the operation itself may well be fine.

    :param error: the last error
    """

    operation_id: str
    error: SpeechKitError


Ending = Finished | Gone | Unanswered
