"""What ``airflow-speechkit archive label`` is to correct. No message says what a label holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow_speechkit.archive.labels import LabelChange, read_label_file
from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import is_operation_id

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from airflow_speechkit.storage import Folder


def asked_for(
    arguments: argparse.Namespace, folder: Callable[[str], Folder], uri: Callable[[str], str]
) -> list[LabelChange]:
    """Return the corrections that the arguments ask for.

    :param folder: opens a path or URL
    :param uri: makes of a recording's address what is on record
    :raises SettingsError: they can't be taken, or a line of the file can't
    """
    operation_id, *pairs = arguments.what or [None]
    if (operation_id is None) == (arguments.source is None) or (arguments.source and arguments.remove):
        raise SettingsError("Either an OPERATION_ID with its labels, or --from FILE, says what to correct")
    if arguments.source == "-":
        return read_label_file(sys.stdin.buffer.read(), uri)
    if arguments.source is not None:
        try:
            raw = folder(arguments.source).read("")
        except FileNotFoundError:
            raise SettingsError(f"There is no file {arguments.source}") from None
        return read_label_file(raw, uri)
    if not is_operation_id(operation_id):
        # Not quoted: it may be a label, with a customer's number.
        raise SettingsError("The first argument can't be an operation id")
    return [LabelChange(about=operation_id, labels=_labels(pairs, arguments.remove))]


def _labels(pairs: Sequence[str], remove: Sequence[str]) -> dict[str, str | None]:
    labels: dict[str, str | None] = dict.fromkeys(remove)
    for number, pair in enumerate(pairs, start=1):
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise SettingsError(f"Label {number} isn't written as KEY=VALUE")
        if name in labels:
            raise SettingsError(f"The label {name!r} is given twice")
        labels[name] = text
    if not labels:
        raise SettingsError("There is no label to correct", hint="Give KEY=VALUE, or --remove KEY")
    return labels
