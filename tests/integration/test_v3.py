"""API v3 from end to end: operators as Airflow runs them, the emulator, the archive and the tables."""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_speechkit.archive.ledger import fingerprint
from airflow_speechkit.errors import (
    OperationNotFoundError,
    RecognitionFailedError,
    RecordingError,
    ResultExpiredError,
    SettingsError,
)
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.operators.intake import Intake
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.settings import V3_ONLY, ApiVersion, AudioEncoding, RecognitionSettings
from airflow_speechkit.triggers.recognition import SpeechKitRecognitionTrigger
from tests.fixtures.direct import Desk, events_of, wait_for
from tests.fixtures.environment import ROOT

MODES: dict[str, dict[str, Any]] = {
    "deferred": {"deferrable": True},
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
}

#: What only v3 can be asked for, each with a value other than its default.
ASKED: dict[str, Any] = {
    "languages": ["en-US", "ru-RU"],
    "language_restriction": "WHITELIST",
    "phone_formatting": False,
    "classifiers": {"insult": ["ON_FINAL", "ON_UTTERANCE"]},
    "speaker_analysis": True,
    "conversation_analysis": True,
    "analysis_quantiles": [0.5, 0.95],
    "speaker_silence_threshold_ms": 700,
    "simultaneous_silence_threshold_ms": 1500,
    "simultaneous_speech_threshold_ms": 250,
    "speaker_labeling": True,
    "summarization": {
        "model_uri": "gpt://b1g0/yandexgpt",
        "properties": [
            {"instruction": "What was promised?", "json_schema": {"type": "object"}},
            {"instruction": "Who called?", "json_object": True},
        ],
    },
}


def submit(audio: Any, **kwargs: Any) -> Any:
    operator = SpeechKitSubmitOperator(task_id="submit", audio=audio, **{"api_version": "v3", **kwargs})
    return operator.execute({})


def wait(operation_id: Any, mode: str = "deferred", **kwargs: Any) -> Any:
    sensor = partial(SpeechKitRecognitionSensor, task_id="wait", poke_interval=0.2, timeout=600)
    return wait_for(sensor(operation_id=operation_id, **MODES[mode], **kwargs))


def transform(desk: Desk, operation_id: Any) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, from the files that the transform operator wrote."""
    target = desk.place / "tables"
    manifest = SpeechKitTransformOperator(task_id="transform", target=str(target), operation_id=operation_id).execute(
        {}
    )
    return {
        name: [row for path in table["paths"] for row in pq.read_table(path).to_pylist()]
        for name, table in manifest["tables"].items()
    }


def pick(rows: list[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


def wav(seconds: float = 1.0, rate: int = 8000) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(int(seconds * rate) * 2))
    return content.getvalue()


@contextmanager
def overheard(desk: Desk) -> Iterator[list[dict[str, Any]]]:
    """Stand between the connection and the emulator; give the bodies of what is posted."""
    bodies: list[dict[str, Any]] = []

    class Between(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(json.loads(body))
            headers = {"Authorization": self.headers["Authorization"], "Content-Type": "application/json"}
            request = urllib.request.Request(desk.emulator.url + self.path, body, headers)
            try:
                with urllib.request.urlopen(request) as response:
                    status, answer = response.status, response.read()
            except urllib.error.HTTPError as error:
                with error:
                    status, answer = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    desk.connect(host=f"http://127.0.0.1:{server.server_port}")
    try:
        yield bodies
    finally:
        desk.connect()
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_setting_reaches_the_service_by_the_name_it_has_there(desk: Desk) -> None:
    audio = desk.put("call.ogg")
    assert set(ASKED) == V3_ONLY
    with overheard(desk) as bodies:
        submit(audio, model="deferred-general:rc", profanity_filter=True, literature_text=True, **ASKED)
    assert bodies == [
        {
            "uri": f"{desk.emulator.storage_url}/{desk.bucket}/{desk.prefix}/call.ogg",
            "recognition_model": {
                "model": "deferred-general:rc",
                "audio_format": {"container_audio": {"container_audio_type": "OGG_OPUS"}},
                "text_normalization": {
                    "text_normalization": "TEXT_NORMALIZATION_ENABLED",
                    "profanity_filter": True,
                    "literature_text": True,
                    "phone_formatting_mode": "PHONE_FORMATTING_MODE_DISABLED",
                },
                "language_restriction": {"restriction_type": "WHITELIST", "language_code": ["en-US", "ru-RU"]},
                "audio_processing_type": "FULL_DATA",
            },
            "recognition_classifier": {
                "classifiers": [{"classifier": "insult", "triggers": ["ON_FINAL", "ON_UTTERANCE"]}]
            },
            "speech_analysis": {
                "enable_speaker_analysis": True,
                "enable_conversation_analysis": True,
                "descriptive_statistics_quantiles": [0.5, 0.95],
                "speaker_options": {"silence_threshold_ms": 700},
                "converstation_options": {
                    "simultaneous_silence_threshold_ms": 1500,
                    "simultaneous_speech_threshold_ms": 250,
                },
            },
            "speaker_labeling": {"speaker_labeling": "SPEAKER_LABELING_ENABLED"},
            "summarization": {
                "model_uri": "gpt://b1g0/yandexgpt",
                "properties": [
                    {"instruction": "What was promised?", "json_schema": {"schema": {"type": "object"}}},
                    {"instruction": "Who called?", "json_object": True},
                ],
            },
        }
    ]


def test_raw_samples_and_a_pbx_wav_go_as_they_are(desk: Desk) -> None:
    raw = desk.put("call.raw", bytes(16000), duration_ms=1000)
    boxed = desk.put("call.wav", wav(rate=11025))
    with overheard(desk) as bodies:
        submit(raw, audio_encoding="LINEAR16_PCM", sample_rate_hertz=8000, raw_results=True)
        submit(boxed)
    assert [body["recognition_model"]["audio_format"] for body in bodies] == [
        {
            "raw_audio": {"audio_encoding": "LINEAR16_PCM", "sample_rate_hertz": 8000, "audio_channel_count": 1},
        },
        {"container_audio": {"container_audio_type": "WAV"}},
    ]
    normalised = [body["recognition_model"]["text_normalization"]["text_normalization"] for body in bodies]
    assert normalised == ["TEXT_NORMALIZATION_DISABLED", "TEXT_NORMALIZATION_ENABLED"]


def test_a_small_local_file_goes_along_and_is_paid_for_once(desk: Desk) -> None:
    call = desk.place / "звонок 1.wav"
    call.write_bytes(wav())
    with overheard(desk) as bodies:
        operation_id = submit(str(call), language="en-US")
        assert submit(str(call), language="en-US") == operation_id
    (body,) = bodies
    assert base64.b64decode(body["content"]) == wav()
    assert "uri" not in body
    wait(operation_id)
    (row,) = transform(desk, operation_id)["recognitions"]
    assert (row["audio_uri"], row["status"], row["utterances"]) == (call.as_uri(), "finished", 0)


def test_a_local_file_too_large_for_a_request_is_refused_before_anything_is_sent(desk: Desk) -> None:
    large = desk.place / "large.wav"
    samples = 46_000_000
    header = bytearray(wav(0.001))[:44]
    header[4:8], header[40:44] = (samples + 36).to_bytes(4, "little"), samples.to_bytes(4, "little")
    with large.open("wb") as file:
        file.write(header)
        file.truncate(44 + samples)
    with overheard(desk) as bodies, pytest.raises(RecordingError, match=r"too large.*large\.wav.*upload_to"):
        submit(str(large))
    assert bodies == []


def test_a_local_file_that_changes_or_goes_while_it_waits_to_be_sent_is_not_sent(desk: Desk) -> None:
    call = desk.place / "call.wav"
    call.write_bytes(wav())
    settings = RecognitionSettings(api_version=ApiVersion.V3)
    with SpeechKitHook() as hook, overheard(desk) as bodies:
        intake = Intake(hook, settings, "aws_default")
        (item,) = intake.recordings(intake.find([str(call)]), None)
        call.write_bytes(wav(2))
        with pytest.raises(RecordingError, match="changed"):
            intake.send(item.link, item.settings)
        call.unlink()
        with pytest.raises(RecordingError, match="can't be read"):
            intake.send(item.link, item.settings)
    assert bodies == []


@pytest.mark.parametrize("name", sorted(V3_ONLY))
def test_a_keyword_of_the_other_api_is_refused_by_name_before_anything_is_sent(desk: Desk, name: str) -> None:
    audio = desk.put()
    with pytest.raises(SettingsError, match=f"`{name}`.*API v3"):
        submit(audio, api_version="v2", **{name: ASKED[name]})
    assert desk.billed() == 0


def test_the_connection_says_which_api_is_used_and_downstream_nobody_asks(desk: Desk) -> None:
    audio = desk.put()
    plain = submit(audio, api_version=None)
    extra = {"archive": desk.archive_url, "storage_host": desk.emulator.storage_url, "api_version": "v3"}
    desk.connect(extra=extra)
    ours = submit(audio, api_version=None, languages=["en-US"])
    both = wait([plain, ours])
    tables = transform(desk, both)
    assert {row["operation_id"]: row["api_version"] for row in tables["recognitions"]} == {plain: "v2", ours: "v3"}
    assert [row["text"] for row in tables["utterances"]] == ["Two words", "Two words"]


SPOKEN = {
    "channels": [
        {
            "utterances": [
                {"text": "twenty one please", "normalized_text": "21 please", "start_ms": 0, "end_ms": 900,
                 "speaker": "1", "languages": {"de-DE": 0.2, "en-US": 0.8}},
                {"text": "good bye", "start_ms": 3000, "end_ms": 3800, "speaker": "0", "refined": False},
            ]
        }
    ],
    "analyses": [
        {"channel": 0, "classifierUpdate": {"windowType": "LAST_FINAL", "startTimeMs": "3000", "endTimeMs": "3800",
                                            "classifierResult": {"classifier": "formal_farewell"}}},
        {"channel": 0, "speakerAnalysis": {"speakerTag": "1", "speechBoundaries": {"endTimeMs": "900"}}},
        {"conversationAnalysis": {"conversationBoundaries": {"startTimeMs": "0", "endTimeMs": "3800"}}},
        {"summarization": {"results": [{"response": "nothing"}], "contentUsage": {"totalTokens": "7"}}},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("mode", "framing"), [("deferred", "pretty"), ("poke", "pretty"), ("reschedule", "compact")])
def test_a_result_is_read_archived_and_deleted_whichever_way_the_task_waits(
    desk: Desk, mode: str, framing: str
) -> None:
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
def test_a_page_in_place_of_a_result_is_neither_archived_nor_a_reason_to_delete(
    desk: Desk, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_speechkit.triggers.result_archiver.REFETCH_RETRY", RetryPolicy(0.01, 0.01, 1))
    desk.emulator.fault("garbage", on="recognition", times=1)
    operation_id = submit(desk.put(), language="en-US")
    wait(operation_id, mode, delete_after_archiving=True)
    assert [row["word"] for row in transform(desk, operation_id)["words"]] == ["two", "words"]


def test_a_result_that_is_over_is_told_from_one_that_never_was(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins(1, api="v3")
    desk.on_record(operation_id, age=timedelta(days=3, minutes=5))
    desk.emulator.fault("404", on="recognition", times=None, message="operation not found", code=5)
    with pytest.raises(ResultExpiredError):
        wait(operation_id, "poke")
    with SpeechKitHook() as hook, pytest.raises(OperationNotFoundError):
        hook.get_recognition("f8dneverthere0000000")


def test_nothing_is_deleted_that_is_not_archived(desk: Desk) -> None:
    with pytest.raises(SettingsError, match="`delete_after_archiving` needs an archive"):
        wait("f8dsomething", archive=False, delete_after_archiving=True)


def test_an_operation_itself_says_which_api_it_came_from(desk: Desk) -> None:
    operation_id = submit(desk.put(), language="en-US")
    # As of an operation whose id looks like one of v2, and that no archive knows.
    taken_for_v2 = {"operation_id": operation_id, "submitted_at": time.time(), "interval_s": 0.2}
    trigger = SpeechKitRecognitionTrigger(
        waiting=[taken_for_v2],
        speechkit_conn_id="speechkit_default",
        archive=desk.archive_url,
        deadline=time.time() + 60,
    )
    assert events_of(trigger.serialize()) == [{"state": "finished", "failed": [], "gone": []}]
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
    call = (ROOT / "dags/samples/doctor.ogg").read_bytes()
    desk.emulator.put(f"{desk.prefix}/heard.ogg", call)
    both = [desk.put("written.ogg", call, **said), f"s3://{desk.bucket}/{desk.prefix}/heard.ogg"]
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


def test_the_ledger_tells_every_setting_apart() -> None:
    base = {
        "api_version": ApiVersion.V3,
        "languages": ("ru-RU", "kk-KZ"),
        "speaker_analysis": True,
        "conversation_analysis": True,
    }
    others: dict[str, Any] = {
        **ASKED,
        "api_version": "v2",
        "language": "auto",
        "model": "general:rc",
        "profanity_filter": True,
        "literature_text": True,
        "raw_results": True,
        "speaker_analysis": False,
        "conversation_analysis": False,
        "language_restriction": "BLACKLIST",
    }
    marks = {"": fingerprint("s3://calls/1", "etag", RecognitionSettings(**base))}
    for field in fields(RecognitionSettings):
        if field.name in ("audio_encoding", "sample_rate_hertz", "audio_channel_count"):
            continue
        changed = {**base, field.name: others[field.name]}
        if field.name == "language":
            # `languages` takes its place.
            del changed["languages"]
        settings = RecognitionSettings(**({"api_version": "v2"} if field.name == "api_version" else changed))
        marks[field.name] = fingerprint("s3://calls/1", "etag", settings)
    # A container says these itself, and the ETag stands for it.
    pcm = {**base, "audio_encoding": AudioEncoding.LINEAR16_PCM}
    for name, more in (
        ("audio_encoding", {"sample_rate_hertz": 8000}),
        ("sample_rate_hertz", {"sample_rate_hertz": 16000}),
        ("audio_channel_count", {"sample_rate_hertz": 16000, "audio_channel_count": 2}),
    ):
        marks[name] = fingerprint("s3://calls/1", "etag", RecognitionSettings(**pcm, **more))
    assert len(set(marks.values())) == len(marks) == len(fields(RecognitionSettings)) + 1
