"""What is known of an operation before it is waited for."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from airflow_speechkit.polling.waiting import Waiting
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from airflow_speechkit.submission import Submission

#: What the ids of API v3 begin with, as far as seen: for operations that no archive knows.
V3_ID_PREFIX = "f8d"


def waiting_for(operation_id: str, submission: Submission | None, *, now: float, interval_s: float | None) -> Waiting:
    """Say what is waited for, with all that its schedule depends on.

    :param submission: what was submitted; without it the wait counts from `now`
    :param now: seconds since the epoch
    :param interval_s: the user's `poke_interval` in seconds
    """
    if submission is None:
        version = ApiVersion.V3 if operation_id.startswith(V3_ID_PREFIX) else ApiVersion.V2
        return Waiting(operation_id, now, api_version=version.value, interval_s=interval_s)
    return Waiting(
        operation_id,
        submission.submitted_at.timestamp(),
        audio_s=None if submission.duration_ms is None else submission.duration_ms / 1000,
        channels=submission.channels,
        model=submission.settings.model,
        api_version=submission.settings.api_version.value,
        interval_s=interval_s,
    )


def compact(waiting: Waiting) -> dict[str, Any]:
    """Write it without its defaults: a trigger may carry ten thousand of them through Airflow's database."""
    values = {one.name: getattr(waiting, one.name) for one in fields(Waiting)}
    defaults = {one.name: one.default for one in fields(Waiting) if one.default is not MISSING}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
