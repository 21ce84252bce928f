"""What is known before operations are waited for: of each its length and age."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import RECOGNITION_FILE
from airflow_speechkit.archive.ledger import RESULTS_KEPT
from airflow_speechkit.errors import OperationNotFoundError, SpeechKitError
from airflow_speechkit.hooks.archive import read_submissions
from airflow_speechkit.models import version_of
from airflow_speechkit.polling.target import PollTarget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.models import Submission

log = logging.getLogger(__name__)

#: A deferred model may take 24 hours, and by the newest documentation so may any.
DEFAULT_TIMEOUT = timedelta(hours=26)
#: How much later than the wait's own deadline Airflow may end the deferral by itself.
BACKSTOP = timedelta(minutes=5)


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


def delete_archived(archive: Archive, outcomes: Mapping[str, Outcome | None], hook: SpeechKitHook) -> None:
    """Have the service delete v3 results that were archived before: a task may end between archiving and deleting one.

    :param outcomes: how operations ended, by their ids
    """
    archived = {one: found.at for one, found in outcomes.items() if found and RECOGNITION_FILE in found.files}
    submissions = read_submissions(archive, archived)
    for operation_id, archived_at in archived.items():
        submission = submissions[operation_id]
        if datetime.now(UTC) - (archived_at if submission is None else submission.submitted_at) >= RESULTS_KEPT:
            continue
        # A second time does no harm.
        try:
            hook.delete_recognition(operation_id)
        except SpeechKitError as error:
            log.warning("The service still has the result of operation %s: %s", operation_id, error)
            if not isinstance(error, OperationNotFoundError):
                return
