"""What a task that works in visits has sent so far.

A later visit hands it on although its recording was deleted, or replaced, meanwhile. Beside what `archive.layout`
describes, an archive has ::

    runs/<task instance>.json    fingerprint -> operation id of what the visits have sent

The task instance stands in the file's name as a hash. The ledger, not this file, says what is paid for.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from airflow_speechkit.archive.batch import How, ToSubmit
from airflow_speechkit.archive.ledger import fingerprint
from airflow_speechkit.archive.reading import load
from airflow_speechkit.archive.records import pack
from airflow_speechkit.parsing import expect

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_speechkit.archive.batch import SubmitOutcome
    from airflow_speechkit.archive.store import Archive


def put_on_record(archive: Archive, scope: str, outcomes: Iterable[SubmitOutcome]) -> None:
    """Put on record what the visits have sent.

    :param scope: the task instance
    :raises ArchiveError: the archive can't be written
    """
    sent = {one.fingerprint: one.operation_id for one in outcomes if one.how is How.SUBMITTED}
    archive.folder.replace(_file(scope), pack({"sent": sent}))


def with_what_has_gone(archive: Archive, scope: str, items: Sequence[ToSubmit]) -> list[ToSubmit]:
    """Add the recordings that earlier visits have sent, and that aren't found any more as they were.

    :param scope: the task instance
    :param items: what was found; one that was replaced since it was sent gives way to what was sent
    :raises ArchiveError: the archive can't be read
    """
    sent = load(archive.folder, _file(scope), lambda data: expect(data["sent"], dict)) or {}
    here = {fingerprint(item.audio_uri, item.version, item.settings) for item in items}
    submissions = [archive.submission(operation_id) for mark, operation_id in sent.items() if mark not in here]
    gone = {
        one.audio_uri: ToSubmit(
            audio_uri=one.audio_uri,
            version=one.etag,
            settings=one.settings,
            size_bytes=one.size_bytes,
            duration_ms=one.duration_ms,
            channels=one.channels,
            billed_seconds=one.billed_seconds,
            labels=one.labels,
        )
        for one in submissions
        if one is not None
    }
    uris = {item.audio_uri for item in items}
    return [
        *(gone.get(item.audio_uri, item) for item in items),
        *(item for uri, item in gone.items() if uri not in uris),
    ]


def _file(scope: str) -> str:
    return f"runs/{hashlib.sha256(scope.encode(errors='backslashreplace')).hexdigest()[:32]}.json"
