"""Read a file of labels: CSV with a header, or JSON Lines. No error says what stands in it, but for names of labels."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.labelling import LabelChange
from airflow_speechkit.errors import SettingsError, SpeechKitError
from airflow_speechkit.models import is_operation_id
from airflow_speechkit.parsing import MalformedError, decode, parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ID, _ADDRESS = "operation_id", "audio_uri"
#: How a line says what it is about. `recognitions` calls the operation's id `recognition_id`.
_KEYS = (_ID, "recognition_id", _ADDRESS)
_SHAPES = (
    f"CSV needs a header with a column `{_ID}` or `{_ADDRESS}`, its other columns are labels; JSON Lines are objects "
    f"with `{_ID}` or `{_ADDRESS}`, and `labels`. Both are UTF-8. Nothing was written"
)


def read_label_file(raw: bytes, uri: Callable[[str], str]) -> list[LabelChange]:
    """Return what a file wants to have corrected.

    :param raw: CSV, whose empty cells change nothing, or JSON Lines, whose nulls remove labels
    :param uri: makes of an address what is on record
    :raises SettingsError: a line isn't what it should be
    """
    try:
        text = decode(raw)
    except MalformedError as error:
        raise SettingsError(f"The file of labels can't be read: {error}", hint=_SHAPES) from None
    rows = _json_lines(text) if text.lstrip().startswith("{") else _csv(text)
    return [_change(line, row, labels, uri) for line, row, labels in rows]


def _csv(text: str) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    header, _, _ = text.partition("\n")
    # Spreadsheets write semicolons where the comma is the decimal mark.
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _bad(line, f"it is no CSV ({error})") from None
        if cells is None:
            return
        if names and any(cells):
            if len(cells) != len(names):
                raise _bad(line, f"it has {len(cells)} cells, the header {len(names)}")
            row = dict(zip(names, cells, strict=True))
            yield line, row, {name: cell for name, cell in row.items() if name not in _KEYS and cell}
        elif any(cells):
            names = _header(line, cells)
        line = reader.line_num + 1


def _header(line: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not set(names) & set(_KEYS):
        raise _bad(line, f"the header has neither `{_ID}` nor `{_ADDRESS}`")
    if len(set(names)) < len(names) or not all(names):
        raise _bad(line, "the header has a column twice, or one without a name")
    if facts := sorted({*names} & {"labels", "settings", "api_version", "billed_seconds"}):
        raise _bad(line, f"the header has {', '.join(facts)} of the table recognitions, which are no labels")
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
            raise _bad(number, f"it has {len(unknown)} fields beside `{_ID}`, `{_ADDRESS}` and `labels`")
        yield number, row, labels


def _change(line: int, row: Mapping[str, Any], labels: Mapping[str, Any], uri: Callable[[str], str]) -> LabelChange:
    texts: dict[str, str | None] = {}
    for name, value in labels.items():
        if not name:
            raise _bad(line, "a label has no name")
        # Call ids are often written as numbers.
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
            raise _bad(line, f"the label {name!r} is no text")
        texts[name] = None if value is None else str(value)
    operation_id, address = row.get(_ID) or row.get("recognition_id"), row.get(_ADDRESS)
    about = operation_id.strip() if isinstance(operation_id, str) else operation_id
    if about:
        if not is_operation_id(about):
            raise _bad(line, f"`{_ID}` can't be an operation id")
        return LabelChange(about=about, labels=texts, place=f"line {line}")
    if not address or not isinstance(address, str):
        raise _bad(line, f"it has neither `{_ID}` nor `{_ADDRESS}`")
    if not (address.startswith("/") or "://" in address):
        raise _bad(line, f"`{_ADDRESS}` is no address")
    try:
        return LabelChange(about=uri(address), labels=texts, place=f"line {line}")
    except SpeechKitError as error:
        what = error.what
    raise _bad(line, what)


def _bad(line: int, what: str) -> SettingsError:
    return SettingsError(f"Line {line} of the file of labels can't be taken: {what}", hint=_SHAPES)
