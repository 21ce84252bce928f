"""Whose turn it is among those that are due."""

from __future__ import annotations

import gc
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.polling.queue import FairQueue, PendingOperation
from airflow_speechkit.polling.target import PollTarget


def waiting(name: str, due: float = 0.0, task: str = "batch") -> PendingOperation:
    made = PendingOperation(PollTarget(name), task, 0.0, 0.0)
    made.due = due
    return made


def filled(*operations: PendingOperation) -> FairQueue:
    queue = FairQueue()
    for operation in operations:
        queue.put(operation)
    return queue


def taken(queue: FairQueue, now: float, number: int = 1_000_000) -> list[str]:
    names = []
    while len(names) < number and (operation := queue.first(now)) is not None:
        assert queue.pop(now) is operation
        names.append(operation.operation_id)
    return names


def tasks_taken(queue: FairQueue, now: float, number: int) -> Counter[str]:
    return Counter(name.split()[0] for name in taken(queue, now, number))


def test_an_empty_queue_has_nothing_due_ever() -> None:
    assert FairQueue().first(1e9) is None
    assert FairQueue().next_due() == math.inf


def test_operations_come_when_they_are_due_in_that_order() -> None:
    queue = filled(waiting("late", 30.0), waiting("early", 10.0), waiting("middle", 20.0))
    assert queue.first(9.9) is None
    assert queue.next_due() == 10.0
    assert taken(queue, 25.0) == ["early", "middle"]
    assert queue.next_due() == 30.0
    assert taken(queue, 30.0) == ["late"]


def test_what_is_due_next_is_what_is_not_due_yet() -> None:
    queue = filled(waiting("a", 10.0), waiting("b", 20.0))
    assert queue.first(15.0) is not None
    assert queue.next_due() == 20.0


def test_tasks_take_turns_and_each_goes_on_in_its_own_order() -> None:
    queue = filled(*(waiting(f"{task} {due}", due, task) for task in "abc" for due in range(3)))
    assert taken(queue, 10.0) == ["a 0", "b 0", "c 0", "a 1", "b 1", "c 1", "a 2", "b 2", "c 2"]


def test_one_recording_comes_next_beside_a_batch_of_thousands() -> None:
    queue = filled(*(waiting(str(number)) for number in range(3000)))
    taken(queue, 0.0, 500)
    queue.put(waiting("call", 100.0, "call"))
    assert "call" in taken(queue, 100.0, 2)
    # A second time, by a task that has lost its turn meanwhile.
    taken(queue, 200.0, 500)
    queue.put(waiting("call", 300.0, "call"))
    assert "call" in taken(queue, 300.0, 2)


def test_a_batch_gets_on_beside_many_tasks_that_ask_again_and_again() -> None:
    queue = filled(*(waiting(f"batch {number}") for number in range(100)))
    calls = [waiting(f"call{number} ", task=f"call{number}") for number in range(9)]
    names: list[str] = []
    for now in range(200):
        for call in calls:
            if not call.entry:
                call.due = float(now)
                queue.put(call)
        names += taken(queue, float(now), 1)
    assert sum(name.startswith("batch") for name in names) >= 18


def test_what_was_put_in_anew_is_there_once_and_when_it_is_due_now() -> None:
    again, other = waiting("again", 10.0), waiting("other", 20.0)
    queue = filled(again, other)
    again.due = 30.0
    queue.put(again)
    assert taken(queue, 25.0) == ["other"]
    assert taken(queue, 30.0) == ["again"]
    assert taken(queue, 1000.0) == []


def test_what_was_put_in_anew_while_it_was_due_is_there_once_and_later() -> None:
    again = waiting("again")
    queue = filled(again, waiting("other"))
    assert queue.first(0.0) is again
    again.due = 50.0
    queue.put(again)
    assert taken(queue, 10.0) == ["other"]
    assert queue.next_due() == 50.0
    assert taken(queue, 50.0) == ["again"]


@pytest.mark.parametrize("is_due", [False, True])
def test_what_was_removed_does_not_come(is_due: bool) -> None:
    gone = waiting("gone", 0.0)
    queue = filled(gone, waiting("there", 1.0))
    if is_due:
        assert queue.first(1.0) is gone
    queue.remove(gone)
    assert taken(queue, 1.0) == ["there"]
    assert queue.next_due() == math.inf


def test_a_task_that_has_left_and_one_that_is_known_by_the_same_name_share_no_turns() -> None:
    for _ in range(3):
        left = [waiting(f"a {number}", task="a") for number in range(5)]
        queue = filled(*left, waiting("b", task="b"))
        assert queue.first(0.0) is left[0]
        for one in left:
            queue.remove(one)
        queue.forget_task("a")
        for number in range(20):
            queue.put(waiting(f"a {number}", task="a"))
            queue.put(waiting(f"b {number}", task="b"))
        assert tasks_taken(queue, 0.0, 20) == {"a": 10, "b": 10}


def test_what_has_left_or_was_put_in_anew_is_not_kept() -> None:
    queue = filled(staying := waiting("there", 1e9))
    before = number_of_operations()
    for number in range(1000):
        gone = waiting(str(number), 1e9)
        queue.put(gone)
        queue.put(staying)
        queue.remove(gone)
    assert number_of_operations() - before <= 100


def number_of_operations() -> int:
    return sum(isinstance(one, PendingOperation) for one in gc.get_objects())


class TestWhoHasAskedLeast:
    def test_is_whoever_has_asked_nothing_or_no_more_than_the_others(self) -> None:
        queue = filled(*(waiting(str(number)) for number in range(30)), waiting("call", task="call"))
        assert queue.has_asked_least("batch")
        taken(queue, 0.0, 20)
        assert queue.has_asked_least("call")
        assert not queue.has_asked_least("batch")
        assert queue.has_asked_least("new")

    def test_is_whoever_is_alone(self) -> None:
        queue = filled(*(waiting(str(number)) for number in range(30)), waiting("call", task="call"))
        taken(queue, 0.0, 20)
        queue.forget_task("call")
        assert queue.has_asked_least("batch")

    def test_is_all_of_those_who_have_asked_alike(self) -> None:
        queue = filled(*(waiting(f"{task} {one}", task=task) for task in "abc" for one in range(10)))
        taken(queue, 0.0, 15)
        assert all(queue.has_asked_least(task) for task in "abc")

    def test_counts_what_is_hours_ago_no_more(self) -> None:
        queue = filled(*(waiting(str(number)) for number in range(30)), waiting("call", 6 * 3600.0, "call"))
        taken(queue, 0.0, 20)
        assert taken(queue, 6 * 3600.0, 1)
        assert queue.has_asked_least("batch")

    def test_is_always_somebody(self) -> None:
        queue = FairQueue()
        for number in range(50):
            for task in "abcde"[: 1 + number % 5]:
                queue.put(waiting(f"{task}{number}", float(number), task))
        for now in range(0, 5000, 100):
            taken(queue, float(now), 3)
            assert any(queue.has_asked_least(task) for task in "abcde")


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "remove", "pop", "pass"]), st.integers(0, 11), st.integers(0, 30)),
        max_size=80,
    )
)
def test_whatever_happens_each_operation_that_is_due_comes_once(steps: list[tuple[str, int, int]]) -> None:
    queue, now = FairQueue(), 0.0
    operations = [waiting(str(number), task="abc"[number % 3]) for number in range(12)]
    there: set[str] = set()
    for what, which, seconds in steps:
        operation = operations[which]
        name = operation.operation_id
        if what == "put":
            operation.due = now + seconds
            queue.put(operation)
            there.add(name)
        elif what == "remove":
            queue.remove(operation)
            there.discard(name)
        elif what == "pass":
            now += seconds
        elif (first := queue.first(now)) is not None:
            assert first.due <= now
            assert queue.pop(now) is first
            there.remove(first.operation_id)
    later = [one.due for one in operations if one.operation_id in there and one.due > now]
    queue.first(now)
    assert queue.next_due() == min(later, default=math.inf)
    rest = taken(queue, now + 100.0)
    assert sorted(rest) == sorted(there)
