"""Dispatchers to be tested, and time that passes for them."""

from __future__ import annotations

import math

from airflow_speechkit.polling.budget import CheckBudget, Limit
from airflow_speechkit.polling.dispatcher import Dispatcher
from airflow_speechkit.polling.waiting import Waiting

START = 1_795_000_000.0


def dispatcher(per_hour: int = 2000) -> Dispatcher:
    return Dispatcher(CheckBudget((Limit(per_hour, 3600.0),)))


def call(name: str, age_s: float = 0.0, now: float = START, **more: object) -> Waiting:
    about = {"audio_s": 300.0, "channels": 1, **more}
    return Waiting(name, now - age_s, **about)  # type: ignore[arg-type]


def first_turn(subject: Dispatcher, now: float = START) -> tuple[str, float]:
    """The next operation to be asked for, and when."""
    while True:
        turn = subject.turn(now)
        if turn.operation_id is not None:
            return turn.operation_id, now
        assert turn.wait_s < math.inf
        now += turn.wait_s + 1e-4


def asked_within(subject: Dispatcher, seconds: float, start: float = START) -> list[tuple[float, str]]:
    """What is asked for and when, where nothing ever ends."""
    now, asked = start, []
    while now < start + seconds:
        turn = subject.turn(now)
        if turn.operation_id is None:
            now += min(turn.wait_s, 5.0) + 1e-4
        else:
            asked.append((now - start, turn.operation_id))
            subject.running(turn.operation_id, now)
    return asked
