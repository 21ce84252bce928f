"""Wait in the triggerer until operations have ended, and archive their answers there."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_speechkit.compat import TRIGGERS_HAVE_ON_KILL, task_is_over
from airflow_speechkit.errors import SpeechKitError, error_from_json
from airflow_speechkit.polling.target import PollTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_speechkit.triggers.wait import OperationWait, WaitResult

log = logging.getLogger(__name__)

#: Shorter than `[triggerer] on_kill_timeout`, which cuts `on_kill` off after 30 s. Airflow's first answer about a
#: task's state can take half of that.
CANCEL_TIMEOUT_S = 27.0
#: Operations are waited for so long at least before more recordings are submitted, in seconds.
LEAST_WAIT_S = 30.0


class SpeechKitRecognitionTrigger(BaseTrigger):
    """Wait for operations of one connection; ends with one event that carries ids and states, never a result.

    All triggers of a connection in one triggerer share one poller, HTTP session, token and rate limiter.

    :param waiting: what is waited for: `PollTarget.to_json`, one mapping for each operation
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
        super().__init__()  # type: ignore[no-untyped-call]
        self.waiting = waiting
        self.speechkit_conn_id = speechkit_conn_id
        self.archive = archive
        self.deadline = deadline
        self.cancel_on_kill = cancel_on_kill
        self.delete_after_archiving = delete_after_archiving
        self.resume_at = resume_at

    @cached_property
    def wait(self) -> OperationWait:
        """The wait that this trigger runs."""
        from airflow_speechkit.triggers.wait import OperationWait

        return OperationWait(
            [PollTarget.from_json(one) for one in self.waiting],
            speechkit_conn_id=self.speechkit_conn_id,
            archive=self.archive,
            delete_after_archiving=self.delete_after_archiving,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what a triggerer needs to go on: no secret, no result."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: getattr(self, name) for name in signature(type(self)).parameters},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end with one event: see `wait_event`."""
        until = self.deadline
        if self.resume_at is not None:
            # A triggerer that was away may begin with this after that time. What has ended meanwhile is archived first.
            until = min(max(self.resume_at, time.time() + LEAST_WAIT_S), self.deadline)
        try:
            result = await self.wait.run(until, exactly=until < self.deadline)
            if self.resume_at is not None and result.error is None:
                # All have ended, and the next can be submitted later.
                await asyncio.sleep(max(min(self.resume_at, self.deadline) - time.time(), 0.0))
        except asyncio.CancelledError:
            # Before 3.3 this is all a trigger hears of a user who ends its task, and a restarting triggerer
            # looks the same: the task's state tells them apart.
            if not TRIGGERS_HAVE_ON_KILL:
                await self._cancel_despite_cancellation()
            raise
        yield TriggerEvent(wait_event(result, of=len(self.waiting)))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the operations, where that was asked for and the task is really over (Airflow 3.3 and later)."""
        await self._cancel_despite_cancellation()

    async def _cancel_despite_cancellation(self) -> None:
        """See the cancelling through: at each turn of its loop Airflow cancels again what is not gone yet."""
        if not self.cancel_on_kill or not self.wait.running:
            return
        cancelling = asyncio.create_task(self._cancel_if_ended())
        while not cancelling.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(cancelling)

    async def _cancel_if_ended(self) -> None:
        """Cancel what is still running, but only if the task instance is in a state it doesn't leave by itself.

        A trigger that moves to another triggerer is killed just like one whose task was ended by a user
        (Airflow 3.3.0 to 3.3.2), and after a clear the next attempt already waits for the same operations.
        """
        from asgiref.sync import sync_to_async

        # See `ArchiveAccess`.
        is_over = sync_to_async(task_is_over, thread_sensitive=False)
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                if await asyncio.shield(is_over(self.task_instance)):
                    await self.wait.cancel_running()
        except TimeoutError:
            log.warning("Not every operation could be cancelled within %g s", CANCEL_TIMEOUT_S)
        except SpeechKitError as error:
            log.warning("The operations were not cancelled: %s", error)


def event_error(event: dict[str, Any]) -> SpeechKitError | None:
    """Return the error that a wait's event tells of, None if it tells of none."""
    about = {name: value for name, value in event.items() if name != "state"}
    return error_from_json(about) if event.get("state") == "error" else None


def wait_event(result: WaitResult, *, of: int) -> dict[str, Any]:
    """Return the event of a wait: ids and numbers, never a result.

    :param of: how many operations were waited for
    :return: ``state``: ``finished`` (with the ids that ``failed`` and those that are ``gone``), ``timeout`` (with how
        many are ``left``), both with how many there were (``of``); or ``error``, with `SpeechKitError.to_json`
    """
    if result.error is not None:
        return {"state": "error", **result.error.to_json()}
    if result.left:
        return {"state": "timeout", "left": len(result.left), "of": of}
    return {"state": "finished", "failed": result.failed, "gone": result.gone, "of": of}
