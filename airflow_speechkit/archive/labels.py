"""Labels that don't get on record, because the recording has its operation already, with those of its submission."""

from __future__ import annotations

import logging
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.archive.batch import ToSubmit
    from airflow_speechkit.archive.store import Archive

log = logging.getLogger(__name__)

#: How many recordings of a run are named.
MOST_NAMED = 20


class DroppedLabels:
    """Says in the log of which recordings the labels were dropped. Safe to share between threads.

    It names labels, never what they say: that may be a customer's number.
    """

    def __init__(self) -> None:
        self._count = 0
        self._lock = Lock()

    def compare(self, archive: Archive, item: ToSubmit, operation_id: str) -> None:
        """Compare the labels of a recording with those on record for its operation, where it was given any.

        :raises ArchiveError: the submission can't be read
        """
        if not item.labels:
            return
        submission = archive.submission(operation_id)
        if submission is None:
            return
        given, kept = dict(item.labels), dict(submission.labels)
        names = sorted(name for name in given.keys() | kept.keys() if given.get(name) != kept.get(name))
        if not names:
            return
        with self._lock:
            self._count += 1
            count = self._count
        if count <= MOST_NAMED:
            log.warning(
                "%s has its operation already, with the labels of its first submission: those given now differ (%s), "
                "and are dropped",
                item.audio_uri,
                ", ".join(names),
            )
        elif count == MOST_NAMED + 1:
            log.warning(
                "More than %d recordings have their operations already, with other labels: the others aren't named",
                MOST_NAMED,
            )
