"""What differs between Airflow's versions, where common-compat doesn't cover it or only its newest versions do."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

#: Airflow 3.3 calls a trigger when a user kills its task; before, there is only the cancelled coroutine.
TRIGGERS_HAVE_ON_KILL = hasattr(BaseTrigger, "on_kill")
#: How long a task that is ended may cancel operations, in seconds. Shorter than `[triggerer] on_kill_timeout`, which
#: cuts `on_kill` off after 30 s; Airflow's first answer about a task's state can take half of that.
CANCEL_TIMEOUT_S = 27.0

#: Final states of a task instance. Any other state may be that of a new attempt that waits for the same operation:
#: after "clear" it may be deferred again before the old trigger is called.
TERMINAL_TASK_STATES = frozenset({"failed", "success", "skipped", "removed", "upstream_failed"})


#: Where Airflow's versions keep the same things, the newest first.
_SECRETS_MASKERS = ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")


def _first_of(modules: Sequence[str], name: str) -> Any:
    for module in modules:
        with suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"This Airflow has no {name} in any of {', '.join(modules)}")


_one_lookup = threading.RLock()


def lookup_lock() -> AbstractContextManager[object]:
    """Return the lock to hold while a thread looks up Airflow connections.

    Airflow 3.2 and later lock it themselves where a supervisor in another process is queried. Before, two threads of a
    worker get each other's answers; and the supervisor of `dag.test()`, `airflow dags test` and `airflow tasks test`
    serves one thread: during its lookup the others find no connection. Airflow 2.11 has no supervisor.
    """
    task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    if task_runner is None or hasattr(getattr(task_runner, "SUPERVISOR_COMMS", None), "_thread_lock"):
        return nullcontext()
    return _one_lookup


def mask_secret(secret: str) -> None:
    """Mask a secret in Airflow's logs."""
    _first_of(_SECRETS_MASKERS, "mask_secret")(secret)


def task_is_over(task_instance: Any) -> bool:
    """Whether a task is in a final state (blocking: in a trigger call it in a thread).

    False also where the state can't be read: then its operations must not be cancelled.

    :param task_instance: anything with ``dag_id``, ``task_id``, ``run_id`` and ``map_index``
    """
    try:
        state = read_task_state(task_instance)
    except Exception as error:  # noqa: BLE001 - whatever hides the state
        log.warning("The task's state can't be read (%s): its operations are not cancelled", type(error).__name__)
        return False
    if state not in TERMINAL_TASK_STATES:
        log.info("The task is %s: its operations are not cancelled", state)
        return False
    return True


def first_start(context: Context, *, retries: int) -> datetime | None:
    """Return when a task that is rescheduled began; None if this is its first start.

    :param context: of the task
    :param retries: of the task
    """
    task_instance: Any = context.get("ti")
    if task_instance is None:
        return None
    if hasattr(task_instance, "get_first_reschedule_date"):
        began: datetime | None = task_instance.get_first_reschedule_date(context)
        return began
    # Airflow 2.11, whose sensors look it up in the same way.
    key = {name: getattr(task_instance, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    first_try = (task_instance.max_tries or 0) - retries + 1
    found: datetime | None = _first_of(("airflow.sensors.base",), "_orig_start_date")(**key, try_number=first_try)
    return found


def read_task_state(task_instance: Any) -> str | None:
    """Return a task instance's current state (blocking: call it in a thread from a trigger).

    :param task_instance: anything with ``dag_id``, ``task_id``, ``run_id`` and ``map_index``
    :return: the state, ``None`` for a task without one
    :raises LookupError: there is no such task instance
    """
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return _read_task_state_from_database(task_instance)
    states = RuntimeTaskInstance.get_task_states(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=task_instance.map_index,
    )
    # The server keys a mapped task by "<task>_<index>".
    for name, state in states.get(task_instance.run_id, {}).items():
        if name == task_instance.task_id or name == f"{task_instance.task_id}_{task_instance.map_index}":
            return None if state is None else str(getattr(state, "value", state))
    raise LookupError(f"no task instance {task_instance.dag_id}.{task_instance.task_id} in {task_instance.run_id}")


def _read_task_state_from_database(task_instance: Any) -> str | None:
    # Airflow 2.11: workers and triggerers still reach the database.
    from airflow.models.taskinstance import TaskInstance

    key = {name: getattr(task_instance, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
    found: Any = TaskInstance.get_task_instance(**key)  # type: ignore[attr-defined,unused-ignore]
    if found is None:
        raise LookupError(f"no task instance {key}")
    state: str | None = found.state
    return state
