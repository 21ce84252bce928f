"""A recognize task run as Airflow runs it: deferred, and resumed in separate processes."""

from __future__ import annotations

import json
import time
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from tests.fixtures.direct import OGG, Desk, TaskInstance, again, events_of


def put(desk: Desk, count: int) -> str:
    answer = {"channels": [{"utterances": [{"text": "two words"}]}], "processing_s": 0}
    desk.emulator.seed(answer, glob=f"*{desk.prefix}/???.ogg")
    for number in range(count):
        desk.emulator.put(f"{desk.prefix}/{number:03}.ogg", OGG + number.to_bytes(2))
    return f"s3://{desk.bucket}/{desk.prefix}/"


def recognize(desk: Desk, audio: Any, *, deferrable: bool = True, **kwargs: Any) -> SpeechKitRecognizeOperator:
    known = {"language": "en-US", "submits_per_hour": 100_000, "poke_interval": 0.2, "deferrable": deferrable}
    return SpeechKitRecognizeOperator(task_id="recognize", audio=audio, **{**known, **kwargs})


class Runs:
    """A task instance that is deferred and resumed, each time in a separate process."""

    def __init__(self, operator: SpeechKitRecognizeOperator) -> None:
        self.operator = operator
        self.deferred: TaskDeferred | None = None
        self.context: Any = {"ti": TaskInstance()}

    def start(self) -> Any:
        return self._run(lambda operator: operator.execute(self.context))

    def go_on(self) -> Any:
        """Run the trigger to its event, and the worker after it."""
        assert self.deferred is not None
        path, about = self.deferred.trigger.serialize()
        if path.endswith("DateTimeTrigger"):
            time.sleep(max(about["moment"].timestamp() - time.time(), 0.0))
            event = None
        else:
            [event] = events_of((path, about))
        kwargs = {**json.loads(json.dumps(self.deferred.kwargs or {})), "event": event}
        return self._run(lambda operator: operator.resume_execution("execute_complete", kwargs, self.context))

    def finish(self) -> Any:
        result = self.start()
        while result is None:
            result = self.go_on()
        return result

    def _run(self, run: Any) -> Any:
        try:
            return run(again(self.operator))
        except TaskDeferred as deferred:
            self.deferred = deferred
            return None


def archived(desk: Desk, ids: Any) -> int:
    return sum(desk.archive.outcome(one) is not None for one in ids)


def operations(desk: Desk) -> list[str]:
    return list(desk.archive.operations())
