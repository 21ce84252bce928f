"""Operation ids as an upstream task hands them on: one, a list, or the lazy sequence of a mapped task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import is_operation_id


def operation_ids(given: Any) -> list[str]:
    """Make a list of what an upstream's output is, each id once, in the order given.

    A mapped task that was given lists hands on a sequence of lists: one level is flattened.

    :param given: an id, a list of ids, a lazy sequence, or a sequence of lists
    :return: at least one id
    :raises SettingsError: there is none, or something that isn't an operation id
    """
    found: dict[str, None] = {}
    for one in _flat(given):
        if not isinstance(one, str) or not one.strip():
            raise SettingsError(
                f"`operation_id` holds a {type(one).__name__} where an operation id (a string) belongs",
                hint="Give it `submit.output`, an id, or a list of ids",
            )
        operation_id = one.strip()
        if operation_id == "None":
            raise SettingsError(
                "`operation_id` is the text 'None': a template found nothing",
                hint="Give it `submit.output`, or look why the upstream task has returned nothing",
            )
        if not is_operation_id(operation_id):
            raise SettingsError(
                f"{operation_id[:100]!r} can't be an operation id", hint="One looks like e03sncdp55uvg2tfpso1"
            )
        found[operation_id] = None
    if not found:
        raise SettingsError("`operation_id` is an empty list", hint="Give it at least one operation id")
    return list(found)


def _flat(given: Any) -> Iterable[Any]:
    if given is None or isinstance(given, str) or not isinstance(given, Iterable):
        yield given
        return
    for one in given:
        if isinstance(one, str) or not isinstance(one, Iterable):
            yield one
        else:
            yield from one
