"""A task instance that is deferred and resumed as by Airflow, with a clock that the test sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from tests.fixtures.direct import Desk, again


class TaskInstance:
    """The attributes of a task instance that a submit reads."""

    def __init__(self, run_id: str) -> None:
        self.dag_id, self.task_id, self.run_id, self.map_index = "calls", "submit", run_id, -1


@dataclass
class Deferral:
    """A deferral: its time, and the arguments to resume with."""

    moment: datetime
    method: str
    kwargs: dict[str, Any]
    timeout: Any = None


@dataclass
class Task:
    """A task instance. A new operator makes each of its visits, as a new process would.

    :param operator: what it runs
    :param clock: a traveller of `time_machine`
    :param deferrals: what it deferred with so far
    :param context: what is in its context besides
    """

    desk: Desk
    operator: Any
    clock: Any
    run_id: str = "monday"
    deferrals: list[Deferral] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)

    def start(self) -> Any:
        """Run ``execute``: a first try, a retry, or a cleared task."""
        return self._run(lambda operator, context: operator.execute(context))

    def go_on(self) -> Any:
        """Wait for the deferral's moment, and make the next visit."""
        deferral = self.deferrals[-1]
        self.wait((deferral.moment - datetime.now(UTC)).total_seconds())
        kwargs = {**deferral.kwargs, "event": deferral.moment}
        return self._run(lambda operator, context: operator.resume_execution(deferral.method, kwargs, context))

    def finish(self, result: Any = None) -> Any:
        """Make visits until there are no more; return the result."""
        while result is None:
            result = self.go_on()
        return result

    def wait(self, seconds: float) -> None:
        """Let time pass, here and at the service."""
        self.clock.shift(max(seconds, 0))
        self.desk.emulator.advance(max(seconds, 0))

    def _run(self, run: Callable[[Any, Any], Any]) -> Any:
        try:
            return run(again(self.operator), {**self.context, "ti": TaskInstance(self.run_id)})
        except TaskDeferred as deferred:
            deferral = deferred
        path, about = deferral.trigger.serialize()
        assert path.endswith(".temporal.DateTimeTrigger")
        assert deferral.method_name is not None
        kwargs = json.loads(json.dumps(deferral.kwargs or {}))
        self.deferrals.append(Deferral(about["moment"], deferral.method_name, kwargs, deferral.timeout))
        return None
