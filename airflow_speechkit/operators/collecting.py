"""Operations of a submit task that fails: no sensor will wait for them."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_speechkit.archive.ledger import RESULTS_KEPT
from airflow_speechkit.archive.submit_rules import SubmitStatus
from airflow_speechkit.errors import QuotaExceededError, SpeechKitError
from airflow_speechkit.hooks.archive import read_each, read_submissions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.archive.submit_rules import SubmitOutcome
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

log = logging.getLogger(__name__)

#: Younger ones may well run, and a check of one that runs is a check for nothing.
OLD = timedelta(hours=1)

#: The folder has 2,500 checks an hour (v2), and others wait too. A retry goes on with the next ones.
MOST = 1000


def collect(archive: Archive, hook: SpeechKitHook, outcomes: Iterable[SubmitOutcome], now: datetime) -> None:
    """Archive the answers of older operations that have ended, and log until when the others are kept.

    With one bad recording among them a nightly run fails each night, before anything waits: after three days all the
    others would have to be paid for again. This way the next run finds their answers.

    :param outcomes: what became of the recordings
    :param now: UTC
    """
    awaited = [one for one, ended in read_each(archive.outcome, _awaited(outcomes)).items() if ended is None]
    submissions = read_submissions(archive, awaited)
    submitted_at = {one: known.submitted_at for one, known in submissions.items() if known is not None}
    old = sorted((one for one, at in submitted_at.items() if now - at >= OLD), key=submitted_at.__getitem__)
    kept = set()
    for operation_id in old[:MOST]:
        try:
            if _archive_if_ended(archive, hook, operation_id):
                kept.add(operation_id)
        except SpeechKitError as error:
            # It must not hide the task's own error.
            log.warning("Operation %s is not archived: %s", operation_id, error)
            if isinstance(error, QuotaExceededError):
                break
    if kept:
        log.info("%d operations that were submitted before have ended; their answers are archived now", len(kept))
    left = [at for one, at in submitted_at.items() if one not in kept]
    if left:
        log.warning(
            "%d accepted operations have no archived answer, and nobody waits for them while this task fails. Run it "
            "again, or wait for them otherwise, before %s UTC: then the service deletes their results",
            len(left),
            f"{min(left) + RESULTS_KEPT:%Y-%m-%d %H:%M}",
        )


def fail_without_archive(error: SpeechKitError, outcomes: Iterable[SubmitOutcome]) -> None:
    """Log the operation ids of a failing task that has no archive, and prevent a retry that could pay twice.

    :param error: what it fails with
    :param outcomes: what became of its recordings until then
    :raises AirflowFailException: a submission was lost. With an archive the retry would find it there, and send nothing
    """
    known = list(outcomes)
    if ids := _awaited(known):
        log.warning(
            "Without an archive nothing records the accepted operations. Give their ids to a sensor: %s",
            ", ".join(ids),
        )
    if lost := [one.recording.audio_uri for one in known if one.status is SubmitStatus.LOST]:
        raise AirflowFailException(
            f"{error} The task is not tried again: that could pay twice for what may have been accepted: "
            f"{', '.join(lost)}"
        ) from error


def _awaited(outcomes: Iterable[SubmitOutcome]) -> list[str]:
    return list(dict.fromkeys(one.operation_id for one in outcomes if one.is_awaited and one.operation_id))


def _archive_if_ended(archive: Archive, hook: SpeechKitHook, operation_id: str) -> bool:
    from airflow_speechkit.api.operation import OperationState

    operation = hook.get_operation(operation_id, attempts=1)
    if operation.state is OperationState.RUNNING:
        return False
    recognition = hook.get_recognition(operation_id, seen_done=True) if operation.is_fetched_apart else None
    archive.keep_operation(operation, recognition)
    return True
