"""When an answer is fetched, archived and deleted: the decision alone, without service, archive or clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from airflow_speechkit.archive.keeping import Delete, Fetch, Keep, LetGo, Pause, Reach, Step, Trouble, keeping, reaching

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.archive import keeping as module
from airflow_speechkit.errors import (
    ArchiveError,
    ConnectionSettingsError,
    NotFinishedError,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RecognitionFailedError,
    ResultExpiredError,
    ServiceFaultError,
    SpeechKitError,
)
from airflow_speechkit.hooks.archive import is_too_much
from airflow_speechkit.settings import ApiVersion

V2 = Operation(id="e03a", state=OperationState.DONE, api_version=ApiVersion.V2)
V3 = Operation(id="f8da", state=OperationState.DONE, api_version=ApiVersion.V3)
FAILED_V2 = Operation(id="e03b", state=OperationState.FAILED, api_version=ApiVersion.V2, error_code=3)
FAILED_V3 = Operation(id="f8db", state=OperationState.FAILED, api_version=ApiVersion.V3, error_code=3)
BROKEN = RecognitionFailedError("The result breaks off with an error", code=13)
OUTAGE = ServiceFaultError("in trouble", http_status=503)
AWAY = ArchiveError("away")


def never(error: SpeechKitError, failures: int, for_s: float) -> bool:
    return False


def run(
    operation: Operation,
    came: Iterable[Any] = (),
    *,
    delete: bool = True,
    too_many: Callable[[SpeechKitError, int, float], bool] = never,
    trouble: Trouble | None = None,
) -> tuple[list[Step], bool | LetGo]:
    """Drive it; `came` answers all steps but pauses, in order, and is followed by success."""
    answers = iter(came)
    steps = keeping(operation, delete=delete, trouble=trouble or Trouble(operation.id, too_many))
    taken = [next(steps)]
    while True:
        step = taken[-1]
        good = b"{}" if isinstance(step, Fetch) else None
        try:
            taken.append(steps.send(None if isinstance(step, Pause) else next(answers, good)))
        except StopIteration as end:
            return taken, end.value


def pauses(taken: list[Step]) -> list[Pause]:
    return [step for step in taken if isinstance(step, Pause)]


@pytest.mark.parametrize(
    ("operation", "expected", "failed"),
    [
        (V2, [Keep()], False),
        (V3, [Fetch(), Keep(b"{}"), Delete()], False),
        (FAILED_V2, [Keep()], True),
        (FAILED_V3, [Keep()], True),
    ],
)
def test_a_v3_result_is_fetched_archived_and_then_deleted_and_all_else_only_archived(
    operation: Operation, expected: list[Step], failed: bool
) -> None:
    assert run(operation) == (expected, failed)


def test_nothing_is_deleted_unasked() -> None:
    assert run(V3, delete=False) == ([Fetch(), Keep(b"{}")], False)


def test_a_result_that_breaks_off_again_and_again_is_archived_as_failed_and_not_deleted() -> None:
    tries = len(module.RETRY_PAUSES_S) + 1
    taken, failed = run(V3, [BROKEN] * tries)
    assert failed
    assert taken.count(Fetch()) == tries
    assert [one.seconds for one in pauses(taken)] == list(module.RETRY_PAUSES_S)
    assert taken[-1] == Keep(None, BROKEN)


def test_a_result_that_broke_off_in_a_bad_moment_is_a_result() -> None:
    taken, failed = run(V3, [BROKEN, BROKEN])
    assert taken[-2:] == [Keep(b"{}"), Delete()]
    assert not failed


def test_a_result_that_can_not_be_had_is_tried_again_ever_later_and_nothing_is_held_meanwhile() -> None:
    taken, failed = run(V3, [OUTAGE] * 9)
    assert [one.seconds for one in pauses(taken)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert not any(one.holding for one in pauses(taken))
    assert taken[-2:] == [Keep(b"{}"), Delete()]
    assert not failed


def test_a_result_that_is_not_ready_is_asked_for_once_between_pauses() -> None:
    taken, _ = run(V3, [NotFinishedError("not ready")] * 2)
    assert taken[:5] == [Fetch(), Pause(5, False), Fetch(), Pause(10, False), Fetch()]


def test_an_archive_that_can_not_be_written_is_tried_again_with_what_was_fetched() -> None:
    taken, failed = run(V3, [b"{}", AWAY, AWAY])
    assert taken == [Fetch(), Keep(b"{}"), Pause(5, True), Keep(b"{}"), Pause(10, True), Keep(b"{}"), Delete()]
    assert not failed


@pytest.mark.parametrize("operation", [V2, V3, FAILED_V2], ids=["v2", "v3", "failed"])
def test_nobody_holds_an_answer_for_longer_than_a_minute(operation: Operation) -> None:
    fetched = [b"{}"] if operation is V3 else []
    taken, how = run(operation, fetched + [AWAY] * 99)
    assert how == LetGo(Pause(60, False))
    assert pauses(taken) == [Pause(5, True), Pause(10, True), Pause(20, True)]


def test_an_answer_that_was_dropped_is_tried_once_each_time_ever_later_and_never_held_again() -> None:
    trouble = Trouble("e03a", never)
    run(V2, [AWAY] * 99, trouble=trouble)
    for seconds in (80, 160, 300, 300):
        assert run(V2, [AWAY], trouble=trouble) == ([Keep()], LetGo(Pause(seconds, False)))
    assert run(V2, trouble=trouble) == ([Keep()], False)


def test_an_answer_is_not_held_at_all_where_the_archive_is_known_to_be_away() -> None:
    with pytest.raises(StopIteration) as end:
        next(keeping(V2, delete=True, trouble=Trouble("e03a", never, lambda: False)))
    assert end.value.value == LetGo(Pause(60, False))


def test_no_answer_is_fetched_for_an_archive_that_can_not_be_reached() -> None:
    trouble = Trouble("e03a", never)
    steps = reaching(trouble, Pause(60, False))
    assert [next(steps), steps.send(None), steps.send(AWAY), steps.send(None), steps.send(AWAY)] == [
        Pause(60, False),
        Reach(),
        Pause(5, False),
        Reach(),
        Pause(10, False),
    ]
    assert steps.send(None) == Reach()
    with pytest.raises(StopIteration):
        steps.send(None)


def test_the_patience_with_an_archive_outlasts_its_answer() -> None:
    trouble = Trouble("e03a", is_too_much)
    tries, waited_s = 0, 0.0

    def go_on() -> None:
        nonlocal tries, waited_s
        while True:
            taken, how = run(V2, [AWAY] * 99, trouble=trouble)
            assert isinstance(how, LetGo)
            tries += taken.count(Keep())
            waited_s += sum(one.seconds for one in [*pauses(taken), how.pause])

    with pytest.raises(ArchiveError):
        go_on()
    assert tries > 10
    assert 3600 <= waited_s < 4000


def test_a_quota_is_waited_for_as_long_as_the_service_says() -> None:
    taken, _ = run(V3, [QuotaExceededError("used up", retry_after_s=600)])
    assert pauses(taken) == [Pause(600, False)]


def test_the_patience_counts_failures_and_their_time_and_each_kind_by_itself() -> None:
    told: list[tuple[str, int, float]] = []

    def too_many(error: SpeechKitError, failures: int, for_s: float) -> bool:
        told.append((type(error).__name__, failures, for_s))
        return failures == 3

    refused = PermissionDeniedError("no", http_status=403)
    with pytest.raises(ServiceFaultError):
        run(V3, [OUTAGE, OUTAGE, refused, OUTAGE], too_many=too_many)
    assert told == [
        ("ServiceFaultError", 1, 0),
        ("ServiceFaultError", 2, 5),
        ("PermissionDeniedError", 1, 0),
        ("ServiceFaultError", 3, 35),
    ]
    told.clear()
    with pytest.raises(ArchiveError):
        run(V3, [OUTAGE, OUTAGE, b"{}", AWAY, AWAY, AWAY], too_many=too_many)
    assert told[-1] == ("ArchiveError", 3, 15), "an answer ends the row"


@pytest.mark.parametrize(
    "error",
    [
        ResultExpiredError("gone"),
        OperationNotFoundError("unknown", http_status=404),
        ConnectionSettingsError("no such connection"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_can_not_pass_ends_it_at_once(error: SpeechKitError) -> None:
    with pytest.raises(type(error)):
        run(V3, [error])


def test_an_archive_that_a_person_has_to_mend_ends_it_at_once() -> None:
    with pytest.raises(ArchiveError):
        run(V2, [ArchiveError("damaged", retry_can_help=False)])


def test_a_result_that_can_not_be_deleted_is_archived_all_the_same() -> None:
    assert run(V3, [b"{}", None, OUTAGE]) == ([Fetch(), Keep(b"{}"), Delete()], False)


def test_no_result_is_shown_by_a_step() -> None:
    assert "words" not in repr(Keep(b"words"))
