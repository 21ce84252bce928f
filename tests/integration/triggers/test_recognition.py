"""The triggerer's part of a wait."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import (
    ArchiveError,
    NotFinishedError,
    ServiceFaultError,
)
from airflow_speechkit.hooks.async_client import SpeechKitAsyncClient
from airflow_speechkit.triggers import wait
from tests.fixtures.direct import Desk, events_of, trigger_of
from tests.fixtures.until import until
from tests.integration.triggers.waiting import FINISHED, event, trigger

FAILED = {"code": 3, "message": "Unsupported audio"}


def test_a_trigger_is_restored_from_its_serialized_form(desk: Desk) -> None:
    made = trigger(desk, "e03a", cancel_on_kill=True, delete_after_archiving=True)
    written = made.serialize()
    assert trigger_of(written).serialize() == written
    assert desk.emulator.api_key not in json.dumps(written)


def test_the_event_contains_ids_and_states_only(desk: Desk) -> None:
    good, bad = *desk.emulator.stand_ins(result_bytes=100_000), *desk.emulator.stand_ins(error=FAILED)
    assert event(desk, good, bad, "e03neverwas000000000") == FINISHED | {
        "failed": [bad],
        "not_found": ["e03neverwas000000000"],
        "of": 3,
    }
    answer, failed = desk.archive.answer(good), desk.archive.outcome(bad)
    assert answer is not None
    assert len(answer.operation) > 50_000
    assert failed is not None
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.message) == (3, "Unsupported audio")


def test_without_an_archive_the_trigger_only_waits(desk: Desk) -> None:
    good, bad = *desk.emulator.stand_ins(api="v3"), *desk.emulator.stand_ins(error=FAILED)
    assert event(desk, good, bad, archive=None) == FINISHED | {"failed": [bad], "of": 2}


def test_at_the_deadline_the_wait_ends_and_the_operations_continue(desk: Desk) -> None:
    good, slow = *desk.emulator.stand_ins(), *desk.emulator.stand_ins(processing_s=36_000)
    before = desk.emulator.requests().get("cancel", {})
    # On a busy machine, the first can be too short for a check.
    for seconds in (1.5, 15.0, 150.0):
        found = event(desk, good, slow, deadline=time.time() + seconds)
        if found["left"] == 1:
            break
    assert found == FINISHED | {"left": 1, "of": 2}
    assert desk.archive.answer(good) is not None
    assert desk.emulator.requests().get("cancel", {}) == before


def test_a_trigger_started_after_its_deadline_checks_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    good, slow = *desk.emulator.stand_ins(), *desk.emulator.stand_ins(processing_s=36_000)
    assert event(desk, good, deadline=time.time() - 5) == FINISHED | {"of": 1}
    assert desk.archive.answer(good) is not None
    monkeypatch.setattr(wait, "FIRST_ROUND_S", 2.0)
    assert event(desk, slow, deadline=time.time() - 5) == FINISHED | {"left": 1, "of": 1}


def test_triggers_of_a_connection_share_their_checks(desk: Desk) -> None:
    ids = desk.emulator.stand_ins(3)
    before = desk.checks()
    events = events_of(trigger(desk, *ids).serialize(), trigger(desk, *ids[1:]).serialize())
    assert events == [FINISHED | {"of": of} for of in (3, 2)]
    assert desk.checks() == before + 3


def test_triggers_run_in_one_event_loop_after_another(desk: Desk) -> None:
    for operation_id in desk.emulator.stand_ins(3):
        assert event(desk, operation_id) == FINISHED | {"of": 1}


@pytest.mark.usefixtures("brief_pauses")
def test_an_answer_is_archived_when_the_archive_is_writable_again(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    hindrance = Path(desk.archive_url)
    hindrance.write_text("")

    async def scene() -> list[Any]:
        async def make_way() -> None:
            # Longer than five tries take.
            await asyncio.sleep(2.5)
            await asyncio.to_thread(hindrance.unlink)

        making_way = asyncio.create_task(make_way())
        found = [one.payload async for one in trigger(desk, operation_id).run()]
        await making_way
        return found

    assert asyncio.run(scene()) == [FINISHED | {"of": 1}]
    assert desk.archive.answer(operation_id) is not None


@pytest.mark.usefixtures("little_patience")
def test_an_archive_that_is_never_writable_fails_the_wait_with_its_error(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    Path(desk.archive_url).write_text("")
    found = event(desk, operation_id)
    assert found["error"]["kind"] == ArchiveError.__name__
    assert desk.archive_url in found["error"]["what"]


@pytest.mark.usefixtures("brief_pauses")
def test_a_v3_result_that_breaks_off_is_fetched_again(desk: Desk) -> None:
    first, second = desk.emulator.stand_ins(2, api="v3")
    desk.emulator.fault(503, on="recognition", times=2)
    desk.emulator.fault("cut", on="recognition", times=1)
    assert event(desk, first) == FINISHED | {"of": 1}
    assert event(desk, second) == FINISHED | {"of": 1}


def without_results(desk: Desk, *ids: str, times: int | None = None, kind: str = "not_ready") -> None:
    """Have the service not give out the results of these."""
    for operation_id in ids:
        desk.emulator.fault(kind, on="recognition", times=times, match=operation_id)


@pytest.mark.usefixtures("brief_pauses")
def test_results_that_are_not_ready_do_not_delay_others(desk: Desk) -> None:
    ids = desk.emulator.stand_ins(12, api="v3")
    stuck, good = ids[:8], ids[8:]
    without_results(desk, *stuck)

    async def scene() -> None:
        made = trigger(desk, *ids)
        waiting = asyncio.create_task(anext(aiter(made.run())))  # type: ignore[arg-type]
        await until(lambda: all(desk.archive.answer(one) for one in good))
        assert made.wait.left >= set(stuck)
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(scene())


@pytest.mark.usefixtures("brief_pauses")
def test_a_result_that_is_ready_late_is_archived(desk: Desk) -> None:
    late, *others = desk.emulator.stand_ins(3, api="v3")
    # Three times for each of five tries, which was the most before a wait ended.
    without_results(desk, late, times=18)
    assert event(desk, late, *others) == FINISHED | {"of": 3}
    assert desk.archive.answer(late) is not None


@pytest.mark.usefixtures("little_patience")
def test_a_result_that_is_never_ready_fails_the_wait_after_the_others_are_archived(desk: Desk) -> None:
    stuck, *others = desk.emulator.stand_ins(3, api="v3")
    without_results(desk, stuck)
    found = event(desk, stuck, *others)
    assert (found["error"]["kind"], found["error"]["retry_can_help"]) == (NotFinishedError.__name__, True)
    assert all(desk.archive.answer(one) for one in others)


@pytest.mark.usefixtures("brief_pauses")
def test_a_wait_continues_after_an_outage_of_the_results(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins(api="v3")
    # Four attempts in each of seven tries.
    without_results(desk, operation_id, times=28, kind="503")
    assert event(desk, operation_id) == FINISHED | {"of": 1}


@pytest.mark.usefixtures("little_patience")
def test_a_long_outage_of_the_results_fails_the_wait_with_its_error(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins(api="v3")
    without_results(desk, operation_id, kind="503")
    found = event(desk, operation_id)
    assert found["error"]["kind"] == ServiceFaultError.__name__


def test_checks_and_results_of_a_wait_share_one_session(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0
    original = SpeechKitAsyncClient.__aenter__

    async def enter(client: SpeechKitAsyncClient) -> SpeechKitAsyncClient:
        nonlocal opened
        opened += 1
        return await original(client)

    monkeypatch.setattr(SpeechKitAsyncClient, "__aenter__", enter)
    assert event(desk, *desk.emulator.stand_ins(4, api="v3")) == FINISHED | {"of": 4}
    assert opened == 1


def test_a_missing_connection_fails_the_wait_with_its_error(desk: Desk) -> None:
    found = event(desk, "e03a", speechkit_conn_id="nobody")
    assert found["error"]["kind"] == "ConnectionSettingsError"


def test_a_wait_renews_an_expired_token(desk: Desk) -> None:
    key = desk.emulator.credentials()["authorized_key"]
    desk.connect(password=None, extra={"authorized_key": key})
    (operation_id,) = desk.emulator.stand_ins(processing_s=150)

    async def scene() -> list[Any]:
        async def revoke() -> None:
            await asyncio.sleep(1)
            await asyncio.to_thread(desk.emulator.revoke_tokens)

        revoking = asyncio.create_task(revoke())
        found = [one.payload async for one in trigger(desk, operation_id).run()]
        await revoking
        return found

    assert asyncio.run(scene()) == [FINISHED | {"of": 1}]
