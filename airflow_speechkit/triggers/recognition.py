"""How a task waits until operations have ended: in the triggerer, or in its own worker."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_speechkit.compat import CANCEL_TIMEOUT_S, TRIGGERS_HAVE_ON_KILL, task_is_over
from airflow_speechkit.errors import SpeechKitError
from airflow_speechkit.polling.target import PollTarget
from airflow_speechkit.triggers.wait import OperationWait, WaitResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow_speechkit.archive.store import Archive

log = logging.getLogger(__name__)

#: Operations are waited for so long at least before more recordings are submitted, in seconds.
LEAST_WAIT_S = 30.0
#: A deferred model may take 24 hours, and by the newest documentation so may any.
DEFAULT_TIMEOUT = timedelta(hours=26)
#: How much later than the wait's own deadline Airflow may end the deferral by itself.
BACKSTOP = timedelta(minutes=5)


class SpeechKitRecognitionTrigger(BaseTrigger):
    """Wait for operations of one connection; ends with one event that carries ids and states, never a result.

    All triggers of a connection in one triggerer share one poller, HTTP session, token and rate limiter.

    :param waiting: what is waited for: a `PollTarget` as JSON for each operation
    :param speechkit_conn_id: the connection (its secrets are read in the triggerer, never kept here)
    :param archive: the archive's URL; ``None``: answers are not archived
    :param deadline: when to give up, in seconds since the epoch: a restarted triggerer goes on with the same one
    :param cancel_on_kill: cancel the operations when a user has ended the task
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    :param resume_at: end about then, in seconds since the epoch, with what is left: more can be submitted
    """

    def __init__(
        self,
        *,
        waiting: list[dict[str, Any]],
        speechkit_conn_id: str,
        archive: str | None,
        deadline: float,
        cancel_on_kill: bool = False,
        delete_after_archiving: bool = False,
        resume_at: float | None = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()  # type: ignore[no-untyped-call]
        self._arguments: dict[str, Any] = arguments
        self.deadline = deadline
        self.cancel_on_kill = cancel_on_kill
        self.resume_at = resume_at

    @cached_property
    def wait(self) -> OperationWait:
        """The wait that this trigger runs."""
        return OperationWait(
            [PollTarget.from_json(one) for one in self._arguments["waiting"]],
            speechkit_conn_id=self._arguments["speechkit_conn_id"],
            archive=self._arguments["archive"],
            delete_after_archiving=self._arguments["delete_after_archiving"],
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what a triggerer needs to go on: no secret, no result."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self._arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end with one event: see `WaitResult.to_event`."""
        until = self.deadline
        if self.resume_at is not None:
            # A triggerer that didn't run may begin with this after that time. What has ended is archived first.
            until = min(max(self.resume_at, time.time() + LEAST_WAIT_S), self.deadline)
        try:
            result = await self.wait.run(until, exactly=until < self.deadline)
            if self.resume_at is not None and result.error is None:
                # All have ended, and the next can be submitted later.
                await asyncio.sleep(max(min(self.resume_at, self.deadline) - time.time(), 0.0))
        except asyncio.CancelledError:
            # Before 3.3 a trigger whose task was ended by a user is only cancelled, as when its triggerer restarts.
            # The task's state tells them apart.
            if not TRIGGERS_HAVE_ON_KILL:
                await self.on_kill()
            raise
        yield TriggerEvent(result.to_event())  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the operations, where that was asked for and the task is really over (Airflow 3.3 and later)."""
        if not self.cancel_on_kill or not self.wait.running:
            return
        cancelling = asyncio.create_task(self._cancel_if_over())
        # At each turn of its loop Airflow cancels again what has not ended yet.
        while not cancelling.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(cancelling)

    async def _cancel_if_over(self) -> None:
        """Cancel what is still running, but only if the task instance is in a state it doesn't leave by itself.

        A trigger that moves to another triggerer is killed just like one whose task was ended by a user
        (Airflow 3.3.0 to 3.3.2), and after a clear the next attempt already waits for the same operations.
        """
        from asgiref.sync import sync_to_async

        # See `use_archive`.
        is_over = sync_to_async(task_is_over, thread_sensitive=False)
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                if await asyncio.shield(is_over(self.task_instance)):
                    await self.wait.cancel_running()
        except TimeoutError:
            log.warning("Not every operation could be cancelled within %g s", CANCEL_TIMEOUT_S)
        except SpeechKitError as error:
            log.warning("The operations were not cancelled: %s", error)


class WaitingTask:
    """What the sensor and `SpeechKitRecognizeOperator` have in common."""

    speechkit_conn_id: str
    cancel_on_kill: bool
    delete_after_archiving: bool
    _waiting: OperationWait | None = None
    _task_instance: Any = None

    def on_kill(self) -> None:
        """Have the service cancel what runs, where that was asked for and the task doesn't go on by itself."""
        if not self.cancel_on_kill or self._waiting is None or not self._waiting.running:
            return
        if task_is_over(self._task_instance):
            try:
                asyncio.run(asyncio.wait_for(self._waiting.cancel_running(), CANCEL_TIMEOUT_S))
            except TimeoutError:
                log.warning("Not every operation could be cancelled within %g s", CANCEL_TIMEOUT_S)

    def _run_wait(self, wait: OperationWait, deadline: float, *, stop_when_idle: bool = False) -> WaitResult:
        """Wait in an event loop in a thread of its own.

        Airflow ends a task (SIGTERM, `execution_timeout`) by an exception that it raises wherever the main thread is:
        that must not be in a coroutine.

        :param deadline: when to stop, in seconds since the epoch
        :param stop_when_idle: stop where nothing is due for a while
        :raises SpeechKitError: why the wait was given up
        """
        # It can't know who else polls.
        wait.cautious = True
        self._waiting = wait
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            loop = runner.get_loop()
            task = loop.create_task(wait.run(deadline, exactly=True, stop_when_idle=stop_when_idle))
            with ThreadPoolExecutor(1, thread_name_prefix="speechkit-wait") as pool:
                running = pool.submit(loop.run_until_complete, task)
                try:
                    result: WaitResult = running.result()
                except BaseException:
                    loop.call_soon_threadsafe(task.cancel)
                    raise
        if result.error is not None:
            raise result.error
        return result

    def _trigger(
        self, archive: Archive | None, targets: Sequence[PollTarget], deadline: float, resume_at: float | None = None
    ) -> SpeechKitRecognitionTrigger:
        return SpeechKitRecognitionTrigger(
            waiting=[msgspec.to_builtins(one) for one in targets],
            speechkit_conn_id=self.speechkit_conn_id,
            archive=None if archive is None else archive.url,
            deadline=deadline,
            cancel_on_kill=self.cancel_on_kill,
            delete_after_archiving=self.delete_after_archiving,
            resume_at=resume_at,
        )
