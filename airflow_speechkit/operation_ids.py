"""Operation ids as an upstream task returns them: one, a list, or the lazy sequence of a mapped task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import is_operation_id


def operation_ids(given: Any) -> list[str]:
    """Return an upstream task's output as a list, each id once, in the order given.

    A mapped task that was given lists returns a sequence of lists: one level is flattened.

    :param given: an id, a list of ids, a lazy sequence, or a sequence of lists
    :return: at least one id
    :raises SettingsError: there is no id, or something else
    """
    found: dict[str, None] = {}
    for one in _flat(given):
        if not isinstance(one, str) or not one.strip():
            raise SettingsError(
                f"`operation_id` has a {type(one).__name__} in place of an operation id (a string)",
                hint="Give it `submit.output`, an id, or a list of ids",
            )
        operation_id = one.strip()
        if operation_id == "None":
            raise SettingsError(
                "`operation_id` is the text 'None': a template found nothing",
                hint="Give it `submit.output`, or check why the upstream task returned nothing",
            )
        if not is_operation_id(operation_id):
            raise SettingsError(
                f"{operation_id[:100]!r} is not an operation id", hint="An id looks like e03sncdp55uvg2tfpso1"
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
