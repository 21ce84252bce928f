"""An operation as it is waited for, and what came of it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_speechkit.models import version_of
from airflow_speechkit.retry import FailureStreak
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.models import Submission

#: A user's interval is this long at least, in seconds.
_SHORTEST_SET_INTERVAL_S = 0.1


class PollTarget(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation that a task waits for. A trigger carries it as JSON, without the fields that have their defaults.

    :param operation_id: the service's id
    :param submitted_at: when it was submitted, in seconds since the epoch; None where that isn't on record: the
        operation is asked for at once, and the answer has the time
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
            # Interned, since msgspec tells a default by its identity.
            model=sys.intern(submission.settings.model),
            api_version=submission.settings.api_version,
            interval_s=interval_s,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PollTarget:
        """Read what `msgspec.to_builtins` returned."""
        # Not by `msgspec.convert`: threads that convert at the same time for the first time crash it.
        return cls(**values | {"api_version": ApiVersion(values.get("api_version", ApiVersion.V2))})


@dataclass(frozen=True, slots=True)
class PollResult:
    """What came of one operation.

    :param operation: where it has ended, in a result or in an error of its own
    :param error: why there is no answer: `OperationNotFoundError` where the service doesn't know the operation, an
        error that lasts, or one that ended all checks
    """

    operation_id: str
    operation: Operation | None = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class PendingOperation:
    """An operation that tasks wait for, as the scheduler knows it. Times are of a clock that nobody sets, in seconds.

    :param target: what the first task knows about it
    :param task: that task: the check counts as its own
    :param began_at: when it was submitted, as far as that is known
    :param due: when to ask for it; infinite while it is asked for
    :param asked_age_s: its age at the last answer, which was "not yet"; 0 if there was none
    :param load: how many operations like it are expected to end in a second
    :param streak: its checks that failed
    """

    target: PollTarget
    task: Hashable
    began_at: float
    age_is_known: bool = False
    due: float = -math.inf
    asked_at: float = -math.inf
    asked_age_s: float = 0.0
    load: float = 0.0
    is_learned: bool = False
    interval_s: float = math.inf
    streak: FailureStreak = field(default_factory=FailureStreak)

    def join(self, target: PollTarget) -> None:
        """Let a task wait for it: of the tasks' intervals and the learned schedule, the earliest check counts."""
        if target.interval_s is None:
            self.is_learned = True
        else:
            self.interval_s = min(self.interval_s, max(target.interval_s, _SHORTEST_SET_INTERVAL_S))

    @property
    def is_being_asked(self) -> bool:
        """Whether a check is under way."""
        return self.due == math.inf

    def set_age(self, now: float, age_s: float | None) -> None:
        """Set the age in seconds, unless it is known already."""
        if age_s is not None and not self.age_is_known:
            self.began_at, self.age_is_known = min(now - age_s, self.began_at), True

    def age_s(self, now: float) -> float:
        """Return the seconds since the submission, as far as that is known."""
        return now - self.began_at
