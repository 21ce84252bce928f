"""Put labels of operations on record, and read files of labels. Nothing is sent, and nothing is paid.

No log line and no error has the value of a label, which may be a customer's number. Names of labels are not secret.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import socket
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.identity import all_operations, may_be_shared, shared_under, submissions
from airflow_speechkit.archive.layout import SUBMISSION_FILE, each, labels_file, load, operation_file, pack, read_each
from airflow_speechkit.archive.records import LabelRecord, label_changes, merged_labels
from airflow_speechkit.errors import ArchiveError, SettingsError
from airflow_speechkit.models import PARTS_PREFIX, is_operation_id
from airflow_speechkit.parsing import MalformedError, decode, parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Recording

log = logging.getLogger(__name__)

#: The columns that identify an operation. The table recognitions has the operation's id as `recognition_id` too.
_KEYS = {"operation_id", "recognition_id", "audio_uri"}
#: Columns of the table recognitions: a file that was exported from it would make labels of them.
_NO_LABELS = {"labels", "settings", "api_version", "billed_seconds"}
_FORMATS = (
    "CSV needs a header with a column `operation_id` or `audio_uri`; its other columns are labels. JSON Lines are "
    "objects with `operation_id` or `audio_uri`, and `labels`. Both are UTF-8. Nothing was written"
)


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """A correction of labels.

    :param about: an operation id or recognition id, or a recording's address as it is on record, for all its operations
    :param labels: name -> text; None removes the label
    :param place: where it was given, such as ``line 3``, for messages
    """

    about: str
    labels: Mapping[str, str | None]
    place: str = ""

    def error(self, what: str) -> SettingsError:
        """Return the error of a correction that can't be made."""
        where = f" ({self.place})" if self.place else ""
        return SettingsError(
            f"{self.about}{where} {what}",
            hint="Check the archive and the ids; `airflow-speechkit archive list` lists all. Nothing was written",
        )


def current_user() -> str:
    """Return who runs this process, for people."""
    return f"{os.environ.get('USER') or f'uid {os.getuid()}'}@{socket.gethostname()}"


def put_labels(
    archive: Archive, about: str, given: Mapping[str, str | None], *, update: bool, by: str, now: datetime
) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Put those labels on record that change something.

    :param about: an operation, or the recognition id of a recording that shares one
    :param given: name -> text; None removes the label
    :param update: True corrects existing labels, False only adds missing ones
    :param by: the task instance, or the user
    :param now: UTC
    :return: what was put on record, and all labels that are there now; both empty for an operation without submission
    :raises ArchiveError: a record cannot be read or written
    """
    other = shared_under(archive, about)
    operation_id = about if other is None else other.operation_id
    entry = archive.entry(operation_id)
    if entry is None:
        return {}, {}
    submission = other or entry.submission
    records = archive.label_records(operation_id)
    while True:
        labels = merged_labels(submission, records)
        changed = label_changes(labels, given, update=update)
        # The first other recording of an operation that was submitted by its address needs one: readers of the labels
        # find by it that there are others.
        if not changed and (other is None or may_be_shared(entry, records)):
            return {}, labels
        record = LabelRecord(audio_uri=submission.audio_uri, labels=changed, update=update, by=by, at=now)
        name = labels_file(operation_id, len(records) + 1)
        is_new = archive.folder.create(name, pack(record))
        there = record if is_new else load(archive.folder, name, LabelRecord.read)
        # A client that retries its own write finds its own record.
        if there == record:
            break
        # Another process was first. Compare again with its record.
        records += [there] if there is not None else []
    if not archive.folder.exists(operation_file(operation_id, SUBMISSION_FILE)):
        # Deleted meanwhile. `delete_operation` lists the files once more after it has removed the submission.
        archive.folder.delete(name)
        return {}, {}
    return changed, labels | changed


def label(archive: Archive, given: Sequence[LabelChange], *, by: str, now: datetime) -> tuple[int, int]:
    """Correct labels. A second call changes nothing, and completes a call that was interrupted.

    :param given: the corrections; an address, or the recognition id of a recording in parts, has the whole archive read
    :param by: who corrects them, for people
    :param now: UTC
    :return: how many operations have other labels now, and how many had these labels before
    :raises SettingsError: an operation isn't on record, or two corrections contradict each other; nothing was written
    :raises ArchiveError: a record is damaged, and all other operations have their labels
    """
    # What the corrections are about, as operations and recognition ids.
    known: dict[str, list[str]] = {}
    abouts = list(dict.fromkeys(one.about for one in given))
    ids = [one for one in abouts if is_operation_id(one) and not one.startswith(PARTS_PREFIX)]
    if len(ids) < len(abouts):
        for names in each(partial(_names, archive), archive.operations()):
            for name, about in names:
                known.setdefault(name, []).append(about)
    known |= read_each(partial(_on_record, archive), ids)
    wanted: dict[str, dict[str, str | None]] = {}
    for change in given:
        if not known.get(change.about):
            raise change.error("is not in the archive")
        for one in known[change.about]:
            labels = wanted.setdefault(one, {})
            for name, text in change.labels.items():
                if labels.setdefault(name, text) != text:
                    raise change.error(f"gives the label {name!r} another value than a correction before it")

    def put(about: str) -> bool | ArchiveError:
        try:
            changed, _ = put_labels(archive, about, wanted[about], update=True, by=by, now=now)
            return bool(changed)
        except ArchiveError as error:
            return error

    done = list(each(put, wanted))
    failed = [one for one in done if isinstance(one, ArchiveError)]
    if failed:
        raise ArchiveError(
            f"The labels of {len(failed)} of {len(done)} operations were not recorded, those of the others were: "
            f"{failed[0].what}",
            hint=failed[0].hint,
            retry_can_help=failed[0].retry_can_help,
        )
    return done.count(True), done.count(False)


def _names(archive: Archive, operation_id: str) -> list[tuple[str, str]]:
    """Return the addresses of an operation's recordings, and the recognition id of one in parts, each with its id.

    There are none if a record is damaged.
    """
    try:
        found = submissions(archive, operation_id)
    except ArchiveError as error:
        if error.retry_can_help:
            raise
        log.warning("The recording of operation %s is not known: %s", operation_id, error.what)
        return []
    names = [(one.audio_uri, one.recognition_id or operation_id) for one in found]
    return names + [(one.part.recognition_id, operation_id) for one in found if one.part is not None]


def _on_record(archive: Archive, about: str) -> list[str]:
    """Return the id itself, if it is on record. The labels of a part are those of all parts."""
    try:
        entry = archive.entry(about)
    except ArchiveError as error:
        if error.retry_can_help:
            raise
        # It is there, and damaged.
        return [about]
    if entry is not None:
        part = entry.submission.part
        return list(dict.fromkeys([about, *(all_operations(archive, part) if part else ())]))
    return [] if shared_under(archive, about) is None else [about]


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

    def put(self, archive: Archive, recording: Recording, about: str) -> None:
        """Put the labels of a recording on record. A damaged record is logged, and changes nothing else.

        :param about: as in `put_labels`
        :raises ArchiveError: the archive cannot be read or written
        """
        try:
            changed, labels = put_labels(
                archive, about, recording.labels, update=self._update, by=self._by, now=self._now()
            )
        except ArchiveError as error:
            if error.retry_can_help:
                raise
            log.error("The labels of %s can't be recorded: %s", recording.audio_uri, error)
            return
        if changed:
            self._changed[recording.audio_uri] = changed.keys()
        if different := label_changes(labels, recording.labels, update=True):
            self._different[recording.audio_uri] = different.keys()

    def joined(self, first: Recording, other: Recording) -> Recording:
        """Return a recording that is listed twice, with the labels of both, as if the second one came later."""
        winner, loser = (other, first) if self._update else (first, other)
        return replace(first, labels={**loser.labels, **winner.labels})

    def log(self) -> None:
        """Log what has changed since the last call."""
        changed, self._changed = self._changed, {}
        different, self._different = self._different, {}
        if changed:
            log.info("Recorded the labels %s of %d recordings that already had operations: %s", *_described(changed))
        if different:
            log.warning(
                "The labels %s of %d recordings differ from those on record, which are kept: %s. "
                "`labels_update=True`, or `airflow-speechkit archive label`, replaces them",
                *_described(different),
            )


def _described(names: Mapping[str, Collection[str]]) -> tuple[str, int, str]:
    """Return the labels, how many recordings there are, and the first ten."""
    return ", ".join(sorted(set().union(*names.values()))), len(names), ", ".join(list(names)[:10])


def read_label_file(raw: bytes, uri: Callable[[str], str]) -> list[LabelChange]:
    """Return the corrections that a file has.

    :param raw: CSV, whose empty cells change nothing, or JSON Lines, whose nulls remove labels
    :param uri: turns an address into the one on record
    :raises SettingsError: a line cannot be read
    """
    try:
        text = decode(raw)
    except MalformedError as error:
        raise _bad(1, error) from None
    changes = []
    for line, row, labels in _json_lines(text) if text.lstrip().startswith("{") else _csv(text):
        try:
            changes.append(LabelChange(about=_about(row, uri), labels=_texts(labels), place=f"line {line}"))
        except ValueError as error:
            raise _bad(line, getattr(error, "what", error)) from None
    return changes


def _csv(text: str) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    # Spreadsheets write semicolons where the comma is the decimal mark.
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    known = set(names)
    if names and (not known & _KEYS or not known - _KEYS or known & {"", *_NO_LABELS} or len(known) < len(names)):
        raise _bad(1, f"a column is missing, is there twice, or is one of {', '.join(sorted(_NO_LABELS))}")
    try:
        for row in rows:
            if not any(cell for cells in row.values() for cell in cells or ()):
                continue
            if None in row or None in row.values():
                raise _bad(rows.line_num, "it has not as many cells as the header")
            yield rows.line_num, row, {name: cell for name, cell in row.items() if name not in _KEYS and cell}
    except csv.Error as error:
        raise _bad(rows.reader.line_num, f"it is not CSV ({error})") from None


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    # Not `splitlines`: JSON may have U+2028 in its texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_object(line)
        except MalformedError as error:
            raise _bad(number, error) from None
        labels = row.pop("labels", None)
        if not isinstance(labels, dict) or row.keys() - _KEYS:
            raise _bad(number, "it has no object `labels`, or another field")
        yield number, row, labels


def _texts(labels: dict[str, Any]) -> dict[str, str | None]:
    """Return labels as texts: call ids are often written as numbers.

    :raises ValueError: a label has no name, or isn't a text
    """
    for name, value in labels.items():
        if not name or isinstance(value, bool) or not isinstance(value, str | int | None):
            raise ValueError(f"the label {name!r} has no name, or is not a text")
    return {name: None if value is None else str(value) for name, value in labels.items()}


def _about(row: dict[str, Any], uri: Callable[[str], str]) -> str:
    """Return the operation id, or the address as it is on record.

    :raises ValueError: there is neither
    """
    operation_id, address = row.get("recognition_id") or row.get("operation_id"), row.get("audio_uri")
    if isinstance(operation_id, str) and is_operation_id(operation_id.strip()):
        return operation_id.strip()
    if operation_id or not isinstance(address, str) or not (address.startswith("/") or "://" in address):
        raise ValueError("it has neither a valid `operation_id` nor a valid `audio_uri`")
    return uri(address)


def _bad(line: int, what: object) -> SettingsError:
    return SettingsError(f"Line {line} of the file of labels can't be read: {what}", hint=_FORMATS)
