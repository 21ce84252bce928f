"""What is waited for, and what came of it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_speechkit.models import version_of
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.errors import SpeechKitError
    from airflow_speechkit.models import Submission


@dataclass(frozen=True, slots=True)
class PollTarget:
    """One operation that a task waits for.

    :param operation_id: the service's id
    :param submitted_at: when it was submitted, in seconds since the epoch; None where that isn't on record: the
        operation is asked for at once, and says it
    :param audio_s: length of the recording in seconds, where it is known
    :param channels: number of channels, where it is known: each one costs the service its time
    :param model: ``deferred-*`` may take up to 24 hours
    :param api_version: whose quota a check counts against
    :param interval_s: the user's `poke_interval` in seconds, in place of the learned schedule
    """

    operation_id: str
    submitted_at: float | None = None
    audio_s: float | None = None
    channels: int | None = None
    model: str = "general"
    api_version: ApiVersion = ApiVersion.V2
    interval_s: float | None = None

    @classmethod
    def of(cls, operation_id: str, submission: Submission | None, *, interval_s: float | None = None) -> PollTarget:
        """Return what is known about an operation.

        :param submission: what was submitted, where that is on record
        :param interval_s: the user's `poke_interval` in seconds
        """
        if submission is None:
            version = version_of({"id": operation_id}, finished=False)
            return cls(operation_id, api_version=version, interval_s=interval_s)
        return cls(
            operation_id,
            submission.submitted_at.timestamp(),
            audio_s=None if submission.duration_ms is None else submission.duration_ms / 1000,
            channels=submission.channels,
            model=submission.settings.model,
            api_version=submission.settings.api_version,
            interval_s=interval_s,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults: a trigger may carry ten thousand of them."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        defaults = {one.name: one.default for one in fields(self) if one.default is not MISSING}
        values = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
        return values | ({"api_version": self.api_version.value} if "api_version" in values else {})

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PollTarget:
        """Read what `to_json` returned."""
        return cls(**values | {"api_version": ApiVersion(values.get("api_version", ApiVersion.V2))})


class PollOutcome(StrEnum):
    """What came of the wait for an operation."""

    ENDED = "ended"  #: in a result or in an error of its own: `operation.state` says which
    GONE = "gone"  #: the service doesn't know it (404): it never existed, or its three days are over
    UNANSWERED = "unanswered"  #: no usable answer came, many times in a row


@dataclass(frozen=True, slots=True)
class PollResult:
    """What came of one operation.

    :param operation: where it has ended
    :param error: where it is gone or unanswered
    """

    operation_id: str
    outcome: PollOutcome
    operation: Operation | None = None
    error: SpeechKitError | None = None
