"""The fault matrix: which faults strike which steps, how, and which cells are left out for what reason.

The tests are parametrised by it, and docs/reliability.md is made from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.job import Job

Play = Callable[["Job"], None]


class Fault(StrEnum):
    """What goes wrong."""

    WORKER_KILLED = "worker killed"
    TRIGGERER_KILLED = "triggerer killed"
    SCHEDULER_KILLED = "scheduler killed"
    EMULATOR_RESTARTED = "emulator restarted"
    DROPPED_BEFORE = "connection dropped before acceptance"
    DROPPED_AFTER = "connection dropped after acceptance"
    UNAUTHORIZED = "401 mid-wait"
    TOO_MANY = "429 storm"
    ERRORS_500 = "500s"
    ERRORS_503 = "503s"
    CUT_ANSWER = "cut answer"
    FULL_DISK = "full disk on the archive"
    UNREACHABLE = "archive unreachable"


class Stage(StrEnum):
    """The step of the job that it strikes."""

    SUBMIT = "submit"
    WAIT = "wait"
    ARCHIVE = "archive"
    TRANSFORM = "transform"
    LOAD = "load"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One way in which a fault strikes a step: a test.

    :param fault: the row
    :param stage: the column
    :param name: what tells it from the others of its cell
    :param text: what happens, and the result
    :param window: whether the request may have been accepted and its answer never came back
    :param play: makes it happen, and checks the result
    """

    fault: Fault
    stage: Stage
    name: str
    text: str
    window: bool
    play: Play

    @property
    def id(self) -> str:
        """What the test is called."""
        words = [self.fault, self.stage, self.name]
        return "-".join(word.replace(" ", "_") for word in words)

    @property
    def slug(self) -> str:
        """What its recordings, its archive and its connections are called."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.fault.name} {self.stage.name} {self.name}".lower())


SCENES: list[Scene] = []


def scene(fault: Fault, stage: Stage, name: str, text: str, *, window: bool = False) -> Callable[[Play], Play]:
    """Enter a function into the matrix."""

    def entered(play: Play) -> Play:
        SCENES.append(Scene(fault=fault, stage=stage, name=name, text=text, window=window, play=play))
        return play

    return entered


_NO_REQUEST = "sends no request to the service (a transform reads the archive, a load reads the tables' files)"
_NOT_THERE = "does not run in the triggerer"

#: Why a cell has no test.
LEFT_OUT: dict[tuple[Fault, Stage], str] = {
    **{(Fault.TRIGGERER_KILLED, stage): _NOT_THERE for stage in (Stage.TRANSFORM, Stage.LOAD)},
    **{
        (fault, stage): _NO_REQUEST
        for fault in (Fault.UNAUTHORIZED, Fault.TOO_MANY)
        for stage in (Stage.TRANSFORM, Stage.LOAD)
    },
    (Fault.FULL_DISK, Stage.WAIT): "writes nothing; its end is in the next column",
    (Fault.FULL_DISK, Stage.TRANSFORM): "reads the archive, and writes nothing into it",
    (Fault.FULL_DISK, Stage.LOAD): "reads the tables' files, not the archive",
    (Fault.UNREACHABLE, Stage.LOAD): "reads the tables' files, not the archive",
}


def scenes_of(fault: Fault, stage: Stage) -> list[Scene]:
    """The tests of a cell."""
    return [one for one in SCENES if (one.fault, one.stage) == (fault, stage)]
