"""Put labels on record of operations that are there already. Nothing is sent, and nothing is paid."""

from __future__ import annotations

import getpass
import logging
import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from airflow_speechkit.archive.labels import LabelRecord, changes, merged
from airflow_speechkit.archive.layout import SUBMISSION_FILE, labels_file, operation_file
from airflow_speechkit.archive.reading import load, read
from airflow_speechkit.archive.records import pack
from airflow_speechkit.errors import ArchiveError, SettingsError
from airflow_speechkit.models import is_operation_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Recording

log = logging.getLogger(__name__)

_SIDE_BY_SIDE = 16

#: How many recordings or operations are named in one message.
_MOST_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """Corrections that somebody wants.

    :param about: an operation id, or a recording's address as it is on record: all its operations are meant
    :param labels: name -> text; None removes the label
    :param place: where it was said, such as ``line 3``, for messages
    """

    about: str
    labels: Mapping[str, str | None]
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What became of corrections.

    :param changed: how many operations have other labels now
    :param unchanged: how many had these labels before
    """

    changed: int
    unchanged: int


def current_user() -> str:
    """Return who runs this process, for people."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # In a container: a number without a name.
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def put_labels(
    archive: Archive, operation_id: str, given: Mapping[str, str | None], *, update: bool, by: str, now: datetime
) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Put those labels on record that change something.

    :param given: name -> text; None removes the label
    :param update: correct what is there; otherwise only what is missing is added
    :param by: the task instance, or the user
    :param now: UTC
    :return: what was put on record, and all labels that are there now; nothing of an operation without a submission
    :raises ArchiveError: a record can't be read or written
    """
    entry = archive.entry(operation_id)
    if entry is None:
        return {}, {}
    records = archive.label_records(operation_id)
    while True:
        labels = merged(entry.submission, records)
        changed = changes(labels, given, update=update)
        if not changed:
            return {}, labels
        record = LabelRecord(audio_uri=entry.submission.audio_uri, labels=changed, update=update, by=by, at=now)
        name = labels_file(operation_id, len(records) + 1)
        is_new = archive.folder.create(name, pack(record.to_json()))
        there = record if is_new else load(archive.folder, name, LabelRecord.from_json)
        # A client that retries a write of its own finds it there and reports a loss.
        if there == record:
            break
        # Somebody else's came first: what is left to say behind it?
        records += [there] if there is not None else []
    if read(archive.folder, operation_file(operation_id, SUBMISSION_FILE)) is None:
        # Forgotten meanwhile: nothing of it may stay. `forget` looks once more after it has removed the submission.
        archive.folder.delete(name)
        return {}, {}
    return changed, labels | changed


def label(archive: Archive, given: Sequence[LabelChange], *, by: str, now: datetime) -> Labelled:
    """Correct labels. Again, and it changes nothing; started again after it was killed it goes on.

    All is checked before the first record is written.

    :param given: what to correct; an address means all operations of the recording, and has the whole archive read
    :param by: who says so, for people
    :param now: UTC
    :raises SettingsError: two say different things about one label of an operation; nothing was written
    :raises ArchiveError: an operation isn't on record, and nothing was written; or a record is damaged: all other
        operations have their labels
    """
    addresses = {one.about for one in given if not is_operation_id(one.about)}
    operations = _operations_of(archive, addresses) if addresses else {}
    wanted, places = _by_operation(given, operations)
    unknown = [one for one in given if one.about in addresses and one.about not in operations]
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="speechkit-archive") as pool:
        there = dict(zip(wanted, pool.map(partial(_is_on_record, archive), wanted), strict=True))
        unknown += [places[one] for one, is_there in there.items() if not is_there]
        if unknown:
            raise _unknown(unknown)

        def put(operation_id: str) -> bool | ArchiveError:
            try:
                return bool(put_labels(archive, operation_id, wanted[operation_id], update=True, by=by, now=now)[0])
            except ArchiveError as error:
                if not _concerns_one(error):
                    raise
                return error

        done = list(pool.map(put, wanted))
    failed = [one for one in done if isinstance(one, ArchiveError)]
    labelled = Labelled(changed=done.count(True), unchanged=done.count(False))
    if failed:
        raise ArchiveError(
            f"{len(failed)} of {len(done)} operations did not get their labels, all others have them: "
            f"{_named([one.what for one in failed])}",
            hint=failed[0].hint,
            retry_can_help=False,
        )
    return labelled


def _operations_of(archive: Archive, addresses: Collection[str]) -> dict[str, list[str]]:
    """Find the operations of recordings, in one pass over the archive."""
    found: dict[str, list[str]] = {}
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="speechkit-archive") as pool:
        ids = list(archive.operations())
        for operation_id, address in zip(ids, pool.map(partial(_address, archive), ids), strict=True):
            if address in addresses:
                found.setdefault(address, []).append(operation_id)
    return found


def _address(archive: Archive, operation_id: str) -> str:
    try:
        entry = archive.entry(operation_id)
    except ArchiveError as error:
        if not _concerns_one(error):
            raise
        log.warning("It isn't known which recording operation %s is of: %s", operation_id, error.what)
        return ""
    return "" if entry is None else entry.submission.audio_uri


def _is_on_record(archive: Archive, operation_id: str) -> bool:
    return read(archive.folder, operation_file(operation_id, SUBMISSION_FILE)) is not None


def _by_operation(
    given: Sequence[LabelChange], operations: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[str, str | None]], dict[str, LabelChange]]:
    """Return what each operation's labels are to be, and who says so first.

    :raises SettingsError: two say different things
    """
    wanted: dict[str, dict[str, str | None]] = {}
    first: dict[str, LabelChange] = {}
    said: dict[tuple[str, str], LabelChange] = {}
    for change in given:
        for operation_id in [change.about] if is_operation_id(change.about) else operations.get(change.about, ()):
            labels = wanted.setdefault(operation_id, {})
            first.setdefault(operation_id, change)
            for name, text in change.labels.items():
                before = said.setdefault((operation_id, name), change)
                if labels.setdefault(name, text) != text:
                    places = " and ".join(filter(None, (before.place, change.place))) or "it was given twice"
                    raise SettingsError(
                        f"The label {name!r} of operation {operation_id} is to have two different values ({places})",
                        hint="Keep one of them; nothing was written",
                    )
    return wanted, first


def _unknown(changes: Sequence[LabelChange]) -> ArchiveError:
    named = _named([f"{one.about} ({one.place})" if one.place else one.about for one in changes])
    return ArchiveError(
        f"The archive does not have {'this operation' if len(changes) == 1 else f'{len(changes)} operations'}: {named}",
        hint="Check --archive and the ids; `archive list` names all operations. Nothing was written",
        retry_can_help=False,
    )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _concerns_one(error: ArchiveError) -> bool:
    """Tell whether a file is damaged, or too new: the store itself can be read and written."""
    return error.__cause__ is None


class SubmitLabels:
    """Labels that a submit gives to recordings that have their operations already. Safe to share between threads.

    It logs names of labels, never what they say: that may be a customer's number.

    :param update: whether they replace labels that are there
    :param by: who submits, for people
    :param now: the time, UTC
    """

    def __init__(self, *, update: bool, by: str, now: Callable[[], datetime]) -> None:
        self._update = update
        self._by = by
        self._now = now
        self._changed: dict[str, Collection[str]] = {}
        self._different: dict[str, Collection[str]] = {}
        self._lock = Lock()

    def put(self, archive: Archive, item: Recording, operation_id: str) -> None:
        """Put the labels of a recording on record.

        A damaged record is logged, and touches nothing else.

        :raises ArchiveError: the archive can't be read or written
        """
        if not item.labels:
            return
        try:
            changed, labels = put_labels(
                archive, operation_id, item.labels, update=self._update, by=self._by, now=self._now()
            )
        except ArchiveError as error:
            if not _concerns_one(error):
                raise
            log.error("The labels of %s can't be put on record: %s", item.audio_uri, error)
            return
        different = changes(labels, item.labels, update=True)
        with self._lock:
            if changed:
                self._changed[item.audio_uri] = changed.keys()
            if different:
                self._different[item.audio_uri] = different.keys()

    def joined(self, first: Recording, other: Recording) -> Recording:
        """Return a recording that is in the list twice, with the labels of both: as if the other came later."""
        different = [name for name in first.labels.keys() & other.labels if first.labels[name] != other.labels[name]]
        winner, loser = (other, first) if self._update else (first, other)
        if different and not self._update:
            self._different[first.audio_uri] = different
        return replace(first, labels={**loser.labels, **winner.labels})

    def log(self) -> None:
        """Say what became of them, once."""
        with self._lock:
            changed, self._changed = self._changed, {}
            different, self._different = self._different, {}
        if changed:
            log.info(
                "Put labels on record of %s recordings that had their operations already (%s): %s",
                f"{len(changed):,}",
                _counted(changed),
                _named(list(changed)),
            )
        if different:
            log.warning(
                "%s recordings keep labels that differ from those given now (%s): %s. `labels_update=True`, or "
                "`airflow-speechkit archive label`, replaces them",
                f"{len(different):,}",
                _counted(different),
                _named(list(different)),
            )


def _counted(names: Mapping[str, Collection[str]]) -> str:
    """Say which labels, and of how many recordings."""
    counts = Counter(name for each in names.values() for name in each)
    return _named([f"{name}: {count:,}" for name, count in sorted(counts.items())])
