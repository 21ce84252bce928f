"""Put labels of operations on record, and read files of labels. Nothing is sent, and nothing is paid.

No log line and no error says what a label holds: that may be a customer's number. Names of labels are not secret.
"""

from __future__ import annotations

import csv
import getpass
import io
import logging
import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.layout import SUBMISSION_FILE, labels_file, operation_file
from airflow_speechkit.archive.records import LabelRecord, label_changes, load, merged_labels, pack, read
from airflow_speechkit.errors import ArchiveError, SettingsError, SpeechKitError
from airflow_speechkit.models import is_operation_id
from airflow_speechkit.parsing import MalformedError, decode, parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Recording

log = logging.getLogger(__name__)

_PARALLEL = 16

#: How many recordings or operations one message names.
_MOST_NAMED = 10

#: The columns that identify an operation. The table recognitions has the operation's id as `recognition_id` too.
_KEYS = ("operation_id", "recognition_id", "audio_uri")
_FORMATS = (
    "CSV needs a header with a column `operation_id` or `audio_uri`; its other columns are labels. JSON Lines are "
    "objects with `operation_id` or `audio_uri`, and `labels`. Both are UTF-8. Nothing was written"
)


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """A correction of labels.

    :param about: an operation id, or a recording's address as it is on record, for all its operations
    :param labels: name -> text; None removes the label
    :param place: where it was given, such as ``line 3``, for messages
    """

    about: str
    labels: Mapping[str, str | None]
    place: str = ""


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
    :param update: True corrects existing labels, False only adds missing ones
    :param by: the task instance, or the user
    :param now: UTC
    :return: what was put on record, and all labels that are there now; both empty for an operation without submission
    :raises ArchiveError: a record cannot be read or written
    """
    entry = archive.entry(operation_id)
    if entry is None:
        return {}, {}
    records = archive.label_records(operation_id)
    while True:
        labels = merged_labels(entry.submission, records)
        changed = label_changes(labels, given, update=update)
        if not changed:
            return {}, labels
        record = LabelRecord(audio_uri=entry.submission.audio_uri, labels=changed, update=update, by=by, at=now)
        name = labels_file(operation_id, len(records) + 1)
        is_new = archive.folder.create(name, pack(record))
        there = record if is_new else load(archive.folder, name, LabelRecord.read)
        # A client that retries its own write finds its own record.
        if there == record:
            break
        # Another process was first. Compare again with its record.
        records += [there] if there is not None else []
    if not _is_on_record(archive, operation_id):
        # Deleted meanwhile. `delete_operation` lists the files once more after it has removed the submission.
        archive.folder.delete(name)
        return {}, {}
    return changed, labels | changed


def label(archive: Archive, given: Sequence[LabelChange], *, by: str, now: datetime) -> tuple[int, int]:
    """Correct labels. A second call changes nothing, and completes a call that was interrupted.

    :param given: the corrections; an address has the whole archive read
    :param by: who corrects them, for people
    :param now: UTC
    :return: how many operations have other labels now, and how many had these labels before
    :raises SettingsError: two corrections contradict each other; nothing was written
    :raises ArchiveError: an operation isn't on record, and nothing was written; or a record is damaged, and all other
        operations have their labels
    """
    addresses = {one.about for one in given if not is_operation_id(one.about)}
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="speechkit-archive") as pool:
        operations: dict[str, list[str]] = {}
        ids = list(archive.operations()) if addresses else []
        for operation_id, address in zip(ids, pool.map(lambda one: _address(archive, one), ids), strict=True):
            operations.setdefault(address, []).append(operation_id)
        wanted, places = _by_operation(given, operations)
        is_there = pool.map(lambda one: _is_on_record(archive, one), wanted)
        unknown = [one for one in given if one.about in addresses and one.about not in operations]
        unknown += [places[one] for one, there in zip(wanted, is_there, strict=True) if not there]
        if unknown:
            raise _unknown(unknown)

        def put(operation_id: str) -> bool | ArchiveError:
            try:
                return bool(put_labels(archive, operation_id, wanted[operation_id], update=True, by=by, now=now)[0])
            except ArchiveError as error:
                if not _is_damage(error):
                    raise
                return error

        done = list(pool.map(put, wanted))
    failed = [one for one in done if isinstance(one, ArchiveError)]
    if failed:
        raise ArchiveError(
            f"{len(failed)} of {len(done)} operations did not get their labels, all others have them: "
            f"{_named([one.what for one in failed])}",
            hint=failed[0].hint,
            retry_can_help=False,
        )
    return done.count(True), done.count(False)


def _address(archive: Archive, operation_id: str) -> str:
    try:
        entry = archive.entry(operation_id)
    except ArchiveError as error:
        if not _is_damage(error):
            raise
        log.warning("The recording of operation %s is not known: %s", operation_id, error.what)
        return ""
    return "" if entry is None else entry.submission.audio_uri


def _is_on_record(archive: Archive, operation_id: str) -> bool:
    return read(archive.folder, operation_file(operation_id, SUBMISSION_FILE)) is not None


def _by_operation(
    given: Sequence[LabelChange], operations: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[str, str | None]], dict[str, LabelChange]]:
    """Return the corrections of each operation, and the first place that names it.

    :raises SettingsError: two corrections contradict each other
    """
    wanted: dict[str, dict[str, str | None]] = {}
    first: dict[str, LabelChange] = {}
    given_by: dict[tuple[str, str], LabelChange] = {}
    for change in given:
        for operation_id in [change.about] if is_operation_id(change.about) else operations.get(change.about, ()):
            labels = wanted.setdefault(operation_id, {})
            first.setdefault(operation_id, change)
            for name, text in change.labels.items():
                before = given_by.setdefault((operation_id, name), change)
                if labels.setdefault(name, text) != text:
                    places = " and ".join(filter(None, (before.place, change.place))) or "it was given twice"
                    raise SettingsError(
                        f"The label {name!r} of operation {operation_id} has two different values ({places})",
                        hint="Keep one of them; nothing was written",
                    )
    return wanted, first


def _unknown(changes: Sequence[LabelChange]) -> ArchiveError:
    named = _named([f"{one.about} ({one.place})" if one.place else one.about for one in changes])
    return ArchiveError(
        f"The archive does not have {'this operation' if len(changes) == 1 else f'{len(changes)} operations'}: {named}",
        hint="Check --archive and the ids; `archive list` lists all operations. Nothing was written",
        retry_can_help=False,
    )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _is_damage(error: ArchiveError) -> bool:
    """Tell whether one file is damaged or too new, while the store itself can be read and written."""
    return error.__cause__ is None


class SubmitLabels:
    """Labels that a submit gives to recordings that have their operations already. Safe to share between threads.

    :param update: whether they replace labels that are on record
    :param by: the task instance, for people
    :param now: returns the time, UTC
    """

    def __init__(self, *, update: bool, by: str, now: Callable[[], datetime]) -> None:
        self._update = update
        self._by = by
        self._now = now
        self._changed: dict[str, Collection[str]] = {}
        self._different: dict[str, Collection[str]] = {}
        self._lock = Lock()

    def put(self, archive: Archive, recording: Recording, operation_id: str) -> None:
        """Put the labels of a recording on record. A damaged record is logged, and changes nothing else.

        :raises ArchiveError: the archive cannot be read or written
        """
        if not recording.labels:
            return
        try:
            changed, labels = put_labels(
                archive, operation_id, recording.labels, update=self._update, by=self._by, now=self._now()
            )
        except ArchiveError as error:
            if not _is_damage(error):
                raise
            log.error("The labels of %s can't be recorded: %s", recording.audio_uri, error)
            return
        different = label_changes(labels, recording.labels, update=True)
        with self._lock:
            if changed:
                self._changed[recording.audio_uri] = changed.keys()
            if different:
                self._different[recording.audio_uri] = different.keys()

    def joined(self, first: Recording, other: Recording) -> Recording:
        """Return a recording that is listed twice, with the labels of both, as if the second one came later."""
        different = [name for name in first.labels.keys() & other.labels if first.labels[name] != other.labels[name]]
        winner, loser = (other, first) if self._update else (first, other)
        if different and not self._update:
            self._different[first.audio_uri] = different
        return replace(first, labels={**loser.labels, **winner.labels})

    def log(self) -> None:
        """Log what has changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, {}
            different, self._different = self._different, {}
        if changed:
            log.info("Recorded the labels of %s recordings that already had operations (%s): %s", *_described(changed))
        if different:
            log.warning(
                "%s recordings keep labels that differ from those given now (%s): %s. `labels_update=True`, or "
                "`airflow-speechkit archive label`, replaces them",
                *_described(different),
            )


def _described(names: Mapping[str, Collection[str]]) -> tuple[str, str, str]:
    """Return how many recordings there are, their labels, and the recordings."""
    counts = Counter(name for each in names.values() for name in each)
    labels = _named([f"{name}: {count:,}" for name, count in sorted(counts.items())])
    return f"{len(names):,}", labels, _named(list(names))


def read_label_file(raw: bytes, uri: Callable[[str], str]) -> list[LabelChange]:
    """Return the corrections that a file has.

    :param raw: CSV, whose empty cells change nothing, or JSON Lines, whose nulls remove labels
    :param uri: turns an address into the one on record
    :raises SettingsError: a line cannot be read
    """
    try:
        text = decode(raw)
    except MalformedError as error:
        raise SettingsError(f"The file of labels can't be read: {error}", hint=_FORMATS) from None
    rows = _json_lines(text) if text.lstrip().startswith("{") else _csv(text)
    return [_change(line, row, labels, uri) for line, row, labels in rows]


def _csv(text: str) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    # Spreadsheets write semicolons where the comma is the decimal mark.
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not names and any(cells):
                names = _header(line, cells)
            elif any(cells):
                if len(cells) != len(names):
                    raise _bad(line, f"it has {len(cells)} cells, the header {len(names)}")
                row = dict(zip(names, cells, strict=True))
                yield line, row, {name: cell for name, cell in row.items() if name not in _KEYS and cell}
            line = reader.line_num + 1
    except csv.Error as error:
        raise _bad(line, f"it is not CSV ({error})") from None


def _header(line: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not set(names) & set(_KEYS):
        raise _bad(line, "the header has neither `operation_id` nor `audio_uri`")
    if len(set(names)) < len(names) or not all(names):
        raise _bad(line, "the header has a column twice, or one without a name")
    if facts := sorted({*names} & {"labels", "settings", "api_version", "billed_seconds"}):
        raise _bad(line, f"the header has {', '.join(facts)} of the table recognitions, which are not labels")
    if not set(names) - set(_KEYS):
        raise _bad(line, "the header has no labels")
    return names


def _json_lines(text: str) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    # Not `splitlines`: JSON may have U+2028 in its texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_object(line)
        except MalformedError as error:
            raise _bad(number, str(error)) from None
        labels = row.get("labels")
        if not isinstance(labels, dict):
            raise _bad(number, "it has no object `labels`")
        if unknown := row.keys() - {*_KEYS, "labels"}:
            raise _bad(number, f"it has {len(unknown)} fields beside `operation_id`, `audio_uri` and `labels`")
        yield number, row, labels


def _change(line: int, row: Mapping[str, Any], labels: Mapping[str, Any], uri: Callable[[str], str]) -> LabelChange:
    texts: dict[str, str | None] = {}
    for name, value in labels.items():
        if not name:
            raise _bad(line, "a label has no name")
        # Call ids are often written as numbers.
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
            raise _bad(line, f"the label {name!r} is not a text")
        texts[name] = None if value is None else str(value)
    operation_id, address = row.get("operation_id") or row.get("recognition_id"), row.get("audio_uri")
    about = operation_id.strip() if isinstance(operation_id, str) else operation_id
    if about:
        if not is_operation_id(about):
            raise _bad(line, "`operation_id` is not an operation id")
        return LabelChange(about=about, labels=texts, place=f"line {line}")
    if not address or not isinstance(address, str):
        raise _bad(line, "it has neither `operation_id` nor `audio_uri`")
    if not (address.startswith("/") or "://" in address):
        raise _bad(line, "`audio_uri` is not an address")
    try:
        return LabelChange(about=uri(address), labels=texts, place=f"line {line}")
    except SpeechKitError as error:
        what = error.what
    raise _bad(line, what)


def _bad(line: int, what: str) -> SettingsError:
    return SettingsError(f"Line {line} of the file of labels can't be read: {what}", hint=_FORMATS)
