"""What is known before operations are waited for: of each its length and age."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import RECOGNITION_FILE
from airflow_speechkit.archive.ledger import RESULTS_KEPT
from airflow_speechkit.hooks.archive import read_each
from airflow_speechkit.polling.target import PollTarget
from airflow_speechkit.submission import version_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.submission import Submission


def poll_target(operation_id: str, submission: Submission | None, *, interval_s: float | None = None) -> PollTarget:
    """Return what is waited for, with all that its schedule depends on.

    :param submission: what was submitted, where that is on record
    :param interval_s: the user's `poke_interval` in seconds
    """
    if submission is None:
        return PollTarget(
            operation_id, api_version=version_of({"id": operation_id}, finished=False), interval_s=interval_s
        )
    return PollTarget(
        operation_id,
        submission.submitted_at.timestamp(),
        audio_s=None if submission.duration_ms is None else submission.duration_ms / 1000,
        channels=submission.channels,
        model=submission.settings.model,
        api_version=submission.settings.api_version,
        interval_s=interval_s,
    )


def perhaps_not_deleted(archive: Archive, outcomes: Mapping[str, Outcome | None], *, now: datetime) -> list[str]:
    """Return which archived v3 results the service may still have: a task may end between archiving and deleting one.

    :param outcomes: how operations ended, by their ids
    :param now: UTC
    """
    archived = {one: found.at for one, found in outcomes.items() if found and RECOGNITION_FILE in found.files}
    submissions = read_each(archive.submission, archived)
    begun = {one: at if (found := submissions[one]) is None else found.submitted_at for one, at in archived.items()}
    return [one for one, at in begun.items() if now - at < RESULTS_KEPT]
