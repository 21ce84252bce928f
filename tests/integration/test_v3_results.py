"""Results of API v3 from end to end: waited for, archived, deleted, and turned into tables."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest

from airflow_speechkit.errors import (
    OperationNotFoundError,
    RecognitionFailedError,
    ResultExpiredError,
    SettingsError,
)
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger
from airflow_speechkit.triggers.wait import WaitResult
from tests.fixtures.direct import Desk, events_of
from tests.fixtures.environment import ROOT
from tests.integration.v3 import ASKED, MODES, SPOKEN, pick, submit, transform, wait


@pytest.mark.parametrize(("mode", "framing"), [("deferred", "pretty"), ("poke", "pretty"), ("reschedule", "compact")])
def test_a_result_is_read_archived_and_deleted_in_all_modes(desk: Desk, mode: str, framing: str) -> None:
    if framing == "pretty":
        desk.emulator.fault("pretty", on="recognition", times=None)
    desk.emulator.fault("not_ready", on="recognition", times=1)
    operation_id = submit(desk.put(**SPOKEN), **ASKED)
    assert wait(operation_id, mode, delete_after_archiving=True) == operation_id

    tables = transform(desk, operation_id)
    said = pick(tables["utterances"], "start_ms", "text", "text_raw", "language", "speaker", "channel_index")
    assert said == [
        (0, "21 please", "twenty one please", "en-US", "1", 1),
        (3000, "good bye", "good bye", None, "0", 0),
    ]
    assert pick(tables["words"], "word", "start_ms")[:2] == [("twenty", 0), ("one", 300)]
    found = pick(tables["analyses"], "kind", "channel", "start_ms", "end_ms")
    assert found == [
        ("classifier", "0", 3000, 3800),
        ("speaker_analysis", "1", 0, 900),
        ("conversation_analysis", None, 0, 3800),
        ("summarization", None, None, None),
    ]
    assert json.loads(tables["analyses"][-1]["payload"])["contentUsage"] == {"totalTokens": "7"}
    (row,) = tables["recognitions"]
    assert (row["api_version"], row["language"], row["status"]) == ("v3", "en-US, ru-RU", "finished")

    with SpeechKitHook() as hook, pytest.raises(ResultExpiredError):
        hook.get_recognition(operation_id, seen_done=True)
    # What is archived needs no service.
    assert wait(operation_id, mode, delete_after_archiving=True) == operation_id


@pytest.mark.parametrize("mode", MODES)
def test_an_error_in_mid_stream_fails_and_becomes_a_row(desk: Desk, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_speechkit.triggers.result_archiver.REFETCH_RETRY", RetryPolicy(0.01, 0.01, 1))
    broken = desk.put(stream_error={"code": 13, "message": "out of order", "after": 2})
    operation_id = submit(broken, language="en-US")
    with pytest.raises(RecognitionFailedError, match="out of order"):
        wait(operation_id, mode, delete_after_archiving=True)
    assert wait([operation_id], mode, on_failure="record") == [operation_id]
    tables = transform(desk, operation_id)
    assert pick(tables["recognitions"], "status", "error_code", "error_message") == [("failed", 13, "out of order")]
    assert tables["words"] == []


@pytest.mark.parametrize("mode", MODES)
def test_an_html_page_instead_of_a_result_is_not_archived_and_deletes_nothing(
    desk: Desk, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_speechkit.triggers.result_archiver.REFETCH_RETRY", RetryPolicy(0.01, 0.01, 1))
    desk.emulator.fault("garbage", on="recognition", times=1)
    operation_id = submit(desk.put(), language="en-US")
    wait(operation_id, mode, delete_after_archiving=True)
    assert [row["word"] for row in transform(desk, operation_id)["words"]] == ["two", "words"]


def test_an_expired_result_and_an_unknown_result_have_different_errors(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins(1, api="v3")
    desk.on_record(operation_id, age=timedelta(days=3, minutes=5))
    desk.emulator.fault("404", on="recognition", times=None, message="operation not found", code=5)
    with pytest.raises(ResultExpiredError):
        wait(operation_id, "poke")
    with SpeechKitHook() as hook, pytest.raises(OperationNotFoundError):
        hook.get_recognition("f8dneverthere0000000")


def test_a_result_is_never_deleted_before_it_is_archived(desk: Desk) -> None:
    with pytest.raises(SettingsError, match="`delete_after_archiving` needs an archive"):
        wait("f8dsomething", archive=False, delete_after_archiving=True)


def test_the_api_version_comes_from_the_operation(desk: Desk) -> None:
    operation_id = submit(desk.put(), language="en-US")
    # Like an operation with an id of v2 that is not in an archive.
    taken_for_v2 = {"operation_id": operation_id, "submitted_at": time.time(), "interval_s": 0.2}
    trigger = SpeechKitRecognitionTrigger(
        waiting=[taken_for_v2],
        speechkit_conn_id="speechkit_default",
        archive=desk.archive_url,
        deadline=time.time() + 60,
    )
    assert events_of(trigger.serialize()) == [WaitResult(of=1).to_event()]
    assert [row["word"] for row in transform(desk, operation_id)["words"]] == ["two", "words"]


def test_a_worker_starts_with_a_tenth_of_what_each_second_allows(desk: Desk) -> None:
    ids = desk.emulator.stand_ins(3, api="v3")
    desk.connect(extra={"archive": desk.archive_url, "checks_per_second": 4})
    assert wait(ids, "poke") == ids
    log = [one for one in desk.emulator.request_log() if one["kind"] == "operation"]
    asked = sorted(one["wall_s"] for one in log if any(operation_id in one["path"] for operation_id in ids))
    # 2.5 s apart; a busy machine may answer the first one late.
    assert asked[2] - asked[0] > 2.5


def test_both_apis_say_the_same_words(desk: Desk) -> None:
    said = {
        "channels": [
            {"utterances": [{"text": "hello there", "start_ms": 0, "end_ms": 900},
                            {"text": "yes", "start_ms": 1500, "end_ms": 1900, "refined": False}]},
            {"utterances": [{"text": "hi", "start_ms": 700, "end_ms": 2100}]},
        ]
    }  # fmt: skip
    call = (ROOT / "emulator/speechkit_emulator/samples/doctor.ogg").read_bytes()
    desk.emulator.put(f"{desk.prefix}/recognised.ogg", call)
    both = [desk.put("written.ogg", call, **said), f"s3://{desk.bucket}/{desk.prefix}/recognised.ogg"]
    columns = ("channel_index", "utterance", "alternative", "word_index", "word", "start_ms", "end_ms")
    submitted = {version: submit(both, api_version=version, language="en-US") for version in ("v2", "v3")}
    words = {}
    for version, first in (("v2", "1"), ("v3", "0")):
        ids = wait(submitted[version])
        rows = transform(desk, ids)["words"]
        words[version] = [pick([row for row in rows if row["operation_id"] == one], *columns) for one in ids]
        assert {row["channel"] for row in rows if row["channel_index"] == 0} == {first}
    assert words["v2"] == words["v3"]
    assert [len(one) > 3 for one in words["v3"]] == [True, True]
    assert {row[0] for row in words["v3"][1]} == {0, 1}
