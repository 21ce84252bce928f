"""A scheduler driven in virtual time: nothing waits, and the clock moves when there is nothing to do."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

from airflow_speechkit.errors import SpeechKitError, UnreachableError
from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.scheduler import Scheduler
from airflow_speechkit.polling.target import PollTarget

START = 1_795_000_000.0
#: From a check to its answer, in seconds.
LATENCY_S = 0.2


class World:
    """Operations, a service that answers, and the scheduler that asks it.

    :param limiter: of the scheduler; by default there is plenty
    """

    def __init__(self, limiter: RateLimiter | None = None) -> None:
        self.scheduler = Scheduler(limiter or RateLimiter(100_000, 3600.0))
        self.now = START
        #: When each check went out, and for which operation.
        self.asked: list[tuple[float, str]] = []
        #: When the end of an operation was seen, in seconds after `START`.
        self.seen: dict[str, float] = {}
        self.given_up: list[str] = []
        #: Says whether a check fails, and by which error.
        self.failing: Callable[[str], SpeechKitError | None] = lambda _: None
        #: Says whether a check is refused with a 429: by how many seconds to wait, or 0.
        self.refusing: Callable[[str], float | None] = lambda _: None
        #: Whether answers say when an operation began and ended.
        self.is_stamped = True
        self._began: dict[str, float] = {}
        self._ends: dict[str, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    @property
    def elapsed_s(self) -> float:
        return self.now - START

    def at(self, in_s: float, do: Callable[[], None]) -> None:
        """Have something done so many seconds from now."""
        heapq.heappush(self._events, (self.now + in_s, next(self._numbers), do))

    def begin(self, name: str, took_s: float = math.inf, *, age_s: float = 0.0) -> None:
        """Let an operation run at the service, for `took_s` in all."""
        self._began.setdefault(name, self.now - age_s)
        self._ends.setdefault(name, self._began[name] + took_s)

    def add(
        self, name: str, took_s: float = math.inf, *, age_s: float = 0.0, task: str = "batch", **about: object
    ) -> None:
        """Wait for an operation that was submitted `age_s` ago."""
        self.begin(name, took_s, age_s=age_s)
        known = {"submitted_at": self.now - age_s, "audio_s": 300.0, "channels": 1, **about}
        target = PollTarget(name, **known)  # type: ignore[arg-type]
        known_age_s = None if target.submitted_at is None else self.now - target.submitted_at
        self.scheduler.add(target, task, self.now, known_age_s)

    def run(self, seconds: float = math.inf, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let so much time pass, or until something is so."""
        end = self.now + seconds
        for step in itertools.count():
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            if until():
                return
            turn = self.scheduler.turn(self.now)
            if turn.operation_id is not None:
                self._ask(turn.operation_id)
                continue
            then = min(self.now + turn.wait_s + 1e-4, self._events[0][0] if self._events else math.inf)
            if then > end:
                self.now = end
                return
            assert then < math.inf, "nothing is left to do"
            assert step < 1_000_000
            self.now = then

    def run_until_seen(self, *names: str) -> None:
        """Let time pass until the end of each of these was seen, or of all."""
        wanted = set(names or self._ends)
        self.run(until=lambda: wanted <= self.seen.keys())

    def ages(self, name: str) -> list[float]:
        """The ages at which an operation was asked for."""
        return [at - self._began[name] for at, which in self.asked if which == name]

    def delays_s(self) -> dict[str, float]:
        """How long after its end each operation's end was seen."""
        return {name: START + seen - self._ends[name] for name, seen in self.seen.items()}

    def _ask(self, name: str) -> None:
        self.asked.append((self.now, name))
        failing, refusing = self.failing(name), self.refusing(name)
        asked_at = self.now

        def answer() -> None:
            if refusing is not None:
                self.scheduler.refused(name, self.now, refusing or None)
            elif failing is not None:
                for one in self.scheduler.failed(name, self.now, failing):
                    self.given_up.append(one)
                    self.scheduler.forget(one)
            elif self._ends[name] <= asked_at + LATENCY_S / 2:
                took_s = math.floor(self._ends[name]) - math.floor(self._began[name])
                self.scheduler.ended(name, self.now, float(took_s) if self.is_stamped else None)
                self.seen[name] = self.elapsed_s
            else:
                self.scheduler.running(name, self.now, self.now - self._began[name] if self.is_stamped else None)

        self.at(LATENCY_S, answer)


def outage(error: SpeechKitError | None = None) -> Callable[[str], SpeechKitError]:
    """Let each check fail with an error of the host."""
    return lambda _: error or UnreachableError("No answer")
