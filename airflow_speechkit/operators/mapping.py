"""What Airflow makes of a list that a later task is mapped over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import MappedOperator, XComArg, conf

from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import BaseOperator


def check_length(operator: BaseOperator, length: int) -> None:
    """Refuse a list of operation ids that Airflow would refuse after it was paid for.

    :param operator: the one that returns them
    :param length: how many they will be
    :raises SettingsError: a task is mapped over them, and `[core] max_map_length` is less
    """
    limit = conf.getint("core", "max_map_length", fallback=1024)
    if length <= limit or not operator.has_dag():  # type: ignore[no-untyped-call]
        return
    # What is mapped over a mapped task has as many instances as that one has, however long each one's list is.
    if isinstance(operator.dag.get_task(operator.task_id), MappedOperator):
        return
    mapped = next(_mapped_over_ids_of(operator), None)
    if mapped is not None:
        raise SettingsError(
            f"{length} operation ids would be handed to {mapped.node_id!r}, which is mapped over them, and "
            f"`[core] max_map_length` is {limit}",
            hint=f"Give {mapped.node_id!r} the whole list (`operation_id=`, without expand), or raise the limit; "
            "nothing has been uploaded or sent",
        )


def _mapped_over_ids_of(operator: BaseOperator) -> Iterator[Any]:
    """Give what is mapped over the operation ids: as they are returned, or as a sensor hands them on."""
    yield from operator.iter_mapped_dependants()
    for task in operator.downstream_list:
        # By its name: operators and sensors know nothing of each other.
        if any(kind.__name__ == "SpeechKitRecognitionSensor" for kind in type(task).__mro__):
            given = XComArg.iter_xcom_references(getattr(task, "operation_id", None))
            if any(upstream.node_id == operator.node_id for upstream, _ in given):
                yield from task.iter_mapped_dependants()
