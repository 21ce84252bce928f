from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_speechkit.api.operation import LARGE_BODY, OperationState
from airflow_speechkit.errors import (
    ConnectionSettingsError,
    NotFinishedError,
    OperationNotFoundError,
    QuotaExceededError,
    ServiceFaultError,
    SettingsError,
)
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from tests.unit.api.loopback import ScriptedServer, answer, scripted_server

KEY = "AQVNhunter2hunter2hunter2"
V2_RESPONSE = {"@type": "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"}
STAMPS = {"createdAt": "2025-08-09T20:48:53Z", "modifiedAt": "2025-08-09T20:48:57Z"}
RUNNING = {"id": "e03abc", "done": False, **STAMPS}
SILENCE = {"done": True, "response": V2_RESPONSE, "id": "e03abc", **STAMPS}
V3_DONE = {"done": True, "id": "f8dabc", "description": "STT v3 async recognition", **STAMPS}
V3_STREAM = json.dumps(
    {"result": {"final": {"alternatives": [{"text": "да", "words": []}]}, "channelTag": "0"}}, ensure_ascii=False
).encode()
LINK = "https://storage.yandexcloud.net/b/k.ogg"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def make(conn_id: str = "speechkit_default", **fields: Any) -> None:
        fields = {"conn_type": "speechkit", "password": KEY, **fields}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return make


@pytest.fixture
def hook(server: ScriptedServer, connect: Callable[..., None]) -> Iterator[SpeechKitHook]:
    connect(host=server.url)
    with SpeechKitHook() as made:
        yield made


def test_making_a_hook_reads_nothing() -> None:
    SpeechKitHook("there_is_no_such_connection")


def test_the_connection_is_read_once(hook: SpeechKitHook, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hook.connection
    monkeypatch.delenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT")
    assert hook.connection is first
    assert asyncio.run(hook.async_connection()) is first


def test_the_hook_has_the_connections_settings(connect: Callable[..., None]) -> None:
    connect()
    bare = SpeechKitHook()
    assert (bare.api_version, bare.archive, bare.aws_conn_id) == ("v2", None, "aws_default")
    assert bare.submits_per_hour == 500
    connect(extra={"api_version": "v3", "archive": "s3://a/b", "aws_conn_id": "aws_x", "checks_per_second": 2})
    server = SpeechKitHook()
    assert (server.api_version, server.archive, server.aws_conn_id) == ("v3", "s3://a/b", "aws_x")
    assert server.endpoints == server.connection.endpoints
    assert asyncio.run(server.rate_limiter("v3")).limit == 2


def test_a_missing_connection_is_an_error() -> None:
    hook = SpeechKitHook("nowhere")
    for read in (lambda: hook.connection, lambda: asyncio.run(hook.async_connection())):
        with pytest.raises(ConnectionSettingsError, match="There is no connection `nowhere`"):
            read()
    assert hook.test_connection()[0] is False


@pytest.mark.filterwarnings("ignore:Encountered non-JSON")
def test_an_extra_that_is_no_json_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps({"conn_type": "speechkit", "extra": '{"api_key": "hunter2'}))
    hook = SpeechKitHook("broken")
    for read in (lambda: hook.connection, lambda: asyncio.run(hook.async_connection())):
        with pytest.raises(ConnectionSettingsError, match="its extra isn't a JSON object") as caught:
            read()
        assert "hunter2" not in str(caught.value)


def test_secrets_of_the_connection_are_masked(connect: Callable[..., None]) -> None:
    from airflow.providers.common.compat.sdk import redact

    private = "-----BEGIN PRIVATE KEY-----\nhunter3\n-----END PRIVATE KEY-----"
    key = json.dumps({"id": "a", "service_account_id": "b", "private_key": private})
    connect(password=None, extra={"authorized_key": key})
    assert SpeechKitHook().connection
    assert "hunter3" not in redact(f"oh no: {private}")
    connect("other", password="hunter4hunter4hunter4")
    assert asyncio.run(SpeechKitHook("other").async_connection())
    assert "hunter4" not in redact("oh no: hunter4hunter4hunter4")


def test_a_recording_is_submitted_with_the_versions_of_all_who_take_part(
    hook: SpeechKitHook, server: ScriptedServer
) -> None:
    server.script = [answer(200, RUNNING)]
    operation = hook.submit(LINK, RecognitionSettings(audio_encoding="OGG_OPUS"))
    assert operation.id == "e03abc"
    agent = server.received[0].headers["user-agent"]
    assert agent.startswith("airflow-speechkit/")
    assert "apache-airflow/" in agent


def test_a_recording_is_sent_along_with_v3(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.script = [answer(200, {**RUNNING, "id": "f8dabc"})]
    operation = hook.submit_inline(b"RIFF", RecognitionSettings(api_version="v3", audio_encoding="WAV"))
    assert operation.api_version is ApiVersion.V3


def test_an_answer_of_v2_is_the_operation_itself(hook: SpeechKitHook, server: ScriptedServer) -> None:
    body = json.dumps(SILENCE).encode()
    server.script = [answer(200, body)]
    found = hook.get_answer("e03abc")
    assert (found.api_version, found.operation, found.recognition) == (ApiVersion.V2, body, None)


def test_an_answer_of_v3_has_its_stream_too(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.script = [answer(200, V3_DONE), answer(200, V3_STREAM)]
    found = hook.get_answer("f8dabc")
    assert (found.api_version, found.recognition) == (ApiVersion.V3, V3_STREAM)


def test_an_answer_of_a_failed_v3_operation_has_none(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.script = [answer(200, {**V3_DONE, "error": {"code": 3, "message": "no"}})]
    assert hook.get_answer("f8dabc").recognition is None
    assert len(server.received) == 1


def test_an_answer_of_an_operation_that_runs_is_not_there_yet(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.script = [answer(200, RUNNING)]
    with pytest.raises(NotFinishedError, match="still running"):
        hook.get_answer("e03abc")


def test_answers_come_as_data_frames_too(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.scripts = {
        "/operations/e03abc": [answer(200, SILENCE)],
        "/operations/f8dabc": [answer(200, V3_DONE)],
        "/stt/v3/getRecognition": [answer(200, V3_STREAM)],
    }
    frames = hook.tables(["e03abc", "f8dabc"])
    assert set(frames) == {"recognitions", "utterances", "words", "analyses"}
    assert list(frames["recognitions"]["operation_id"]) == ["e03abc", "f8dabc"]
    assert len(frames["utterances"]) == 1


def test_data_frames_of_one_operation_take_its_id_as_it_is(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.scripts = {"/operations/e03abc": [answer(200, SILENCE)]}
    assert list(hook.tables("e03abc")["recognitions"]["operation_id"]) == ["e03abc"]
    with pytest.raises(SettingsError, match="operation_id"):
        hook.tables(["e03abc", ""])


def test_a_hook_can_be_closed_twice_and_used_again(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.script = [answer(200, RUNNING)]
    for _ in range(2):
        assert hook.get_operation("e03abc").state is OperationState.RUNNING
        hook.close()
        hook.close()


# --- on an event loop


def test_a_trigger_asks_through_one_session(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.scripts = {
        "/operations/e03abc": [answer(200, RUNNING)],
        "/operations/e03abc:cancel": [answer(200, SILENCE)],
        "/stt/v3/getRecognition": [answer(200, V3_STREAM)],
        "/stt/v3/deleteRecognition": [answer(200)],
    }

    async def send() -> None:
        async with hook.async_client() as client:
            found = await asyncio.gather(*(client.get_operation("e03abc") for _ in range(20)))
            assert {one.state for one in found} == {OperationState.RUNNING}
            assert (await client.cancel_operation("e03abc")).state is OperationState.DONE
            assert await client.get_recognition("f8dabc") == V3_STREAM
            assert await client.delete_recognition("f8dabc") is True

    asyncio.run(send())


@pytest.mark.parametrize(
    ("status", "kind"), [(404, OperationNotFoundError), (429, QuotaExceededError), (503, ServiceFaultError)]
)
def test_a_trigger_asks_once_and_leaves_it_to_its_budget_to_ask_again(
    hook: SpeechKitHook, server: ScriptedServer, status: int, kind: type[Exception]
) -> None:
    server.script = [answer(status)]

    async def send() -> None:
        async with hook.async_client() as client:
            with pytest.raises(kind):
                await client.get_operation("e03abc")

    asyncio.run(send())
    assert len(server.received) == 1


def test_a_large_answer_is_read_on_an_event_loop_too(hook: SpeechKitHook, server: ScriptedServer) -> None:
    chunk = {"alternatives": [{"text": "слово " * 50, "words": []}], "channelTag": "1"}
    body = json.dumps({**SILENCE, "response": {**V2_RESPONSE, "chunks": [chunk] * 1000}}).encode()
    assert len(body) > LARGE_BODY
    server.script = [answer(200, body)]

    async def send() -> None:
        async with hook.async_client() as client:
            operation = await client.get_operation("e03abc")
            assert operation.state is OperationState.DONE
            assert operation.raw == body

    asyncio.run(send())
