"""The frame of the fuzzer: numbered cases from fixed seeds, each with a limit on how long it may take.

    for case in cases("operations", 2000):
        with case:
            ...  # mutate with `case.chance`, read, compare

The same cases run each time. ``FUZZ_ROUND=7 make fuzz`` runs others.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

#: No case takes a second. What takes this long on any machine never ends, or is far from linear. CPU time: how busy
#: the machine is makes no difference. (What sleeps is ended by pytest's own timeout.)
HANG_S = 60.0

ROUND = os.environ.get("FUZZ_ROUND", "0")


class Hang(BaseException):
    """A case has not ended. Not an `Exception`, so that no reader takes it for damaged input."""


@dataclass
class Case:
    """One case; an error that leaves its ``with`` statement names it.

    :param name: names the case, and seeds it
    :param chance: decides what is mutated, and how
    """

    name: str
    chance: random.Random = field(init=False, repr=False)
    _before: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{ROUND}/{self.name}")

    def __enter__(self) -> Case:
        self._before = signal.signal(signal.SIGPROF, self._hangs)
        signal.setitimer(signal.ITIMER_PROF, HANG_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, self._before)
        if error is not None:
            error.add_note(f"in case {self.name} of round {ROUND}")

    def _hangs(self, number: int, frame: FrameType | None) -> None:
        raise Hang(f"case {self.name} of round {ROUND} has not ended after {HANG_S:g} s of work")


def cases(name: str, count: int) -> Iterator[Case]:
    """Give so many cases, the same ones each time."""
    return (Case(f"{name}/{number}") for number in range(count))


class Reached:
    """Counts how many mutants got as far as the readers of single fields, and were not refused as a whole before."""

    def __init__(self) -> None:
        self.mutants = self.reached = 0

    def count(self, reached: bool) -> None:
        """Count one mutant."""
        self.mutants += 1
        self.reached += reached

    def check(self) -> None:
        """Check that at least half did: a fuzzer of mutants that nothing looks into finds nothing."""
        assert self.mutants
        assert self.reached * 2 >= self.mutants, f"only {self.reached} of {self.mutants} mutants reached the fields"
