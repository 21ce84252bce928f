"""The scenes of one fault, side by side: what strikes all of them at once strikes when all of them are ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.faults.matrix import Scene

LONGEST_WAIT_S = 1200


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What came of a scene.

    :param error: why it failed, None where it didn't
    :param seconds: how long it took
    """

    error: BaseException | None
    seconds: float


class Meeting:
    """Where the scenes of a row wait for each other. One that has ended is not waited for.

    :param expected: how many come
    """

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._there = 0
        self._held = 0
        self._changed = threading.Condition()
        self._called_off = threading.Event()

    def pause(self, seconds: float) -> None:
        """Wait a little.

        :raises InterruptedError: nobody is interested in the row any more
        """
        if self._called_off.wait(seconds):
            raise InterruptedError("the test run was interrupted")

    def call_off(self) -> None:
        """Let every scene end at its next pause."""
        self._called_off.set()

    def join(self) -> None:
        """Take note that one more will come."""
        with self._changed:
            self._expected += 1

    def meet(self, deed: Callable[[], None]) -> None:
        """Wait until all others are here; one of them does the deed, then all go on.

        :raises TimeoutError: somebody neither came nor ended
        """
        with self._changed:
            number = self._held
            self._there += 1
            deadline = time.monotonic() + LONGEST_WAIT_S
            while self._held == number:
                if self._there >= self._expected:
                    self._hold(deed)
                elif not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{self._there} of {self._expected} scenes came to meeting {number}")

    def _hold(self, deed: Callable[[], None]) -> None:
        self._held += 1
        self._there = 0
        self._changed.notify_all()
        deed()

    def leave(self) -> None:
        """Take note that one will come no more."""
        with self._changed:
            self._expected -= 1
            self._changed.notify_all()


def run_row(scenes: Iterable[Scene], play: Callable[[Scene, Meeting, Meeting], None]) -> dict[str, Ending]:
    """Run scenes side by side.

    :param play: is given the scene, where it meets the others of its row, and where those meet whose recognitions run
        until the service's clock, which they share, is put forward
    :return: what came of each, by the scene's id
    """
    row = list(scenes)
    meeting, clock = Meeting(len(row)), Meeting(0)

    def run(scene: Scene) -> Ending:
        started = time.monotonic()
        error: BaseException | None = None
        try:
            play(scene, meeting, clock)
        except BaseException as caught:  # noqa: BLE001 - it becomes the test's own
            error = caught
        finally:
            meeting.leave()
        return Ending(error=error, seconds=time.monotonic() - started)

    with ThreadPoolExecutor(max(1, len(row))) as pool:
        try:
            return dict(zip([scene.id for scene in row], pool.map(run, row), strict=True))
        except BaseException:
            meeting.call_off()
            clock.call_off()
            raise
