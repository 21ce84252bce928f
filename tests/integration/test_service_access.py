"""The hook with the emulator: all kinds of credentials, and a recognition from its submission to its answer."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_speechkit.api.operation import OperationState
from airflow_speechkit.errors import (
    AuthenticationError,
    OperationNotFoundError,
    RecognitionFailedError,
    ResultExpiredError,
    SpeechKitError,
)
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.settings import RecognitionSettings

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

Connect = Callable[..., SpeechKitHook]


@pytest.fixture
def connect(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Connect]:
    hooks: list[SpeechKitHook] = []
    places = {"archive": str(tmp_path / "archive"), "storage_host": emulator.storage_url}

    def make(conn_type: str = "speechkit", host: str | None = None, **fields: Any) -> SpeechKitHook:
        extra = {**places, **fields.pop("extra", {})}
        connection = {"conn_type": conn_type, "host": host or emulator.url, "extra": extra, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_TESTED", json.dumps(connection))
        hooks.append(SpeechKitHook("speechkit_tested"))
        return hooks[-1]

    emulator.clear_faults()
    yield make
    emulator.clear_faults()
    for hook in hooks:
        hook.close()


@pytest.fixture
def iam_token(emulator: EmulatorProcess, connect: Connect) -> str:
    """A token as somebody else would have fetched it."""
    from airflow_speechkit.api.credentials import Authorization, AuthorizedKey
    from airflow_speechkit.api.endpoints import Endpoints
    from airflow_speechkit.api.exchange import Exchange
    from airflow_speechkit.api.sync_transport import SyncTransport

    key = AuthorizedKey.from_json(emulator.credentials()["authorized_key"])
    authorization = Authorization(Exchange(user_agent="tests"), Endpoints.at(emulator.url), key, tokens={})
    transport = SyncTransport()
    header: str = transport.drive(authorization.header())
    transport.close()
    return header.removeprefix("Bearer ")


WAYS = ["api_key", "password", "iam_token", "authorized_key", "authorized_key_path", "metadata", "yandexcloud"]


@pytest.mark.parametrize("way", WAYS)
def test_all_kinds_of_credentials_are_accepted(
    emulator: EmulatorProcess, connect: Connect, iam_token: str, tmp_path: Any, way: str
) -> None:
    key = json.dumps(emulator.credentials()["authorized_key"])
    path = tmp_path / "key.json"
    path.write_text(key)
    hosts = ("recognition", "recognition_v3", "operations", "iam", "metadata")
    fields: dict[str, Any] = {
        "api_key": {"extra": {"api_key": emulator.api_key}},
        "password": {"password": emulator.api_key},
        "iam_token": {"extra": {"iam_token": iam_token}},
        "authorized_key": {"extra": {"authorized_key": key}},
        "authorized_key_path": {"extra": {"authorized_key_path": str(path)}},
        "metadata": {"extra": {"use_metadata": True}},
        "yandexcloud": {
            "conn_type": "yandexcloud",
            "extra": {"service_account_json": key, **{f"{part}_host": emulator.url for part in hosts}},
        },
    }[way]
    hook = connect(**fields)
    well, message = hook.test_connection()
    assert well
    assert "The service accepts the key and lets it recognise speech (API v2)" in message

    async def ask() -> None:
        async with hook.async_client() as client:
            with pytest.raises(OperationNotFoundError):
                await client.get_operation("e0312345678901234567")

    asyncio.run(ask())


def test_a_wrong_key_a_missing_role_and_another_account_have_different_errors(
    emulator: EmulatorProcess, connect: Connect
) -> None:
    well, message = connect(password="AQVNnosuchkeynosuchkeynosuchkey").test_connection()
    assert not well
    assert "HTTP 401" in message
    well, message = connect(password=emulator.credentials()["api_key_without_role"]).test_connection()
    assert not well
    assert "HTTP 403" in message
    assert "ai.speechkit-stt.user" in message
    other = {**emulator.credentials()["authorized_key"], "id": "ajenosuchkey"}
    with pytest.raises(AuthenticationError, match="a token for the authorized key"):
        connect(extra={"authorized_key": other}).get_operation("e0312345678901234567")


def test_a_revoked_token_is_renewed(emulator: EmulatorProcess, connect: Connect) -> None:
    hook = connect(extra={"authorized_key": emulator.credentials()["authorized_key"]})
    (operation_id,) = emulator.stand_ins(1)
    hook.get_operation(operation_id)
    emulator.revoke_tokens()
    assert hook.get_operation(operation_id).id == operation_id


def recording() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(8000)
        wav.writeframes(bytes(16000))
    return file.getvalue()


def finished(hook: SpeechKitHook, emulator: EmulatorProcess, operation_id: str) -> OperationState:
    emulator.advance(3600)

    async def wait() -> OperationState:
        async with hook.async_client() as client:
            while True:
                operation = await client.get_operation(operation_id)
                if operation.state is not OperationState.RUNNING:
                    return operation.state
                await asyncio.sleep(0.2)

    return asyncio.run(wait())


def test_v2_from_submission_to_answer(emulator: EmulatorProcess, connect: Connect) -> None:
    link = emulator.put("access/silence.raw", recording()[44:])
    hook = connect(password=emulator.api_key)
    operation = hook.submit(link, RecognitionSettings(audio_encoding="LINEAR16_PCM", sample_rate_hertz=8000))
    assert operation.state is OperationState.RUNNING
    state = finished(hook, emulator, operation.id)
    answer = hook.get_answer(operation.id)
    assert state is not OperationState.RUNNING
    assert json.loads(answer.operation)["id"] == operation.id


def test_v3_from_submission_to_answer_and_deletion(emulator: EmulatorProcess, connect: Connect) -> None:
    hook = connect(password=emulator.api_key, extra={"api_version": "v3"})
    assert hook.test_connection()[0]
    settings = RecognitionSettings(api_version="v3", audio_encoding="WAV", language="en-US")
    operation = hook.submit_inline(recording(), settings)
    assert finished(hook, emulator, operation.id) is OperationState.DONE
    answer = hook.get_answer(operation.id)
    assert answer.recognition is not None
    assert hook.delete_recognition(operation.id) is True
    with pytest.raises(SpeechKitError):
        hook.get_recognition(operation.id, seen_done=True)


@pytest.mark.parametrize("kind", ["400", "403", "429", "500", "503", "504"])
def test_a_refused_submission_is_billed_at_most_once(emulator: EmulatorProcess, connect: Connect, kind: str) -> None:
    link = emulator.put("access/refused.raw", recording()[44:])
    before = len(emulator.billing())
    emulator.fault(kind)
    hook = connect(password=emulator.api_key)
    settings = RecognitionSettings(audio_encoding="LINEAR16_PCM", sample_rate_hertz=8000)
    with pytest.raises(SpeechKitError) as caught:
        hook.submit(link, settings)
    assert caught.value.may_have_been_accepted is (kind == "504")
    assert len(emulator.billing()) == before


@pytest.mark.parametrize(("kind", "accepted"), [("drop_before", 0), ("drop_after", 1), ("cut", 1), ("garbage", 0)])
def test_a_submission_whose_answer_is_lost_is_not_sent_again(
    emulator: EmulatorProcess, connect: Connect, kind: str, accepted: int
) -> None:
    link = emulator.put(f"access/{kind}.raw", recording()[44:])
    before = len(emulator.billing())
    emulator.fault(kind, on="submit")
    hook = connect(password=emulator.api_key)
    with pytest.raises(SpeechKitError) as caught:
        hook.submit(link, RecognitionSettings(audio_encoding="LINEAR16_PCM", sample_rate_hertz=8000))
    assert caught.value.may_have_been_accepted
    assert len(emulator.billing()) - before == accepted


def test_a_result_can_be_not_ready_indented_cut_off_or_expired(emulator: EmulatorProcess, connect: Connect) -> None:
    hook = connect(password=emulator.api_key)
    (operation_id,) = emulator.stand_ins(1, api="v3", result_bytes=300_000)
    assert finished(hook, emulator, operation_id) is OperationState.DONE
    emulator.fault("not_ready", on="recognition", times=1)
    whole = hook.get_recognition(operation_id, seen_done=True)
    emulator.fault("pretty", on="recognition", times=1)
    assert len(hook.get_recognition(operation_id, seen_done=True)) > len(whole) > 0
    emulator.fault("cut", on="recognition", times=1)
    assert hook.get_recognition(operation_id, seen_done=True) == whole
    emulator.advance(4 * 24 * 3600)
    with pytest.raises(ResultExpiredError):
        hook.get_recognition(operation_id, seen_done=True)
    with pytest.raises(OperationNotFoundError):
        hook.get_operation(operation_id)


def test_an_error_in_mid_stream_is_a_failed_recognition(emulator: EmulatorProcess, connect: Connect) -> None:
    hook = connect(password=emulator.api_key)
    emulator.fault("stream_error", on="submit")
    settings = RecognitionSettings(api_version="v3", audio_encoding="WAV", language="en-US")
    operation = hook.submit_inline(recording(), settings)
    finished(hook, emulator, operation.id)
    with pytest.raises(RecognitionFailedError):
        hook.get_recognition(operation.id, seen_done=True)


def test_a_cancelled_operation_is_answered_as_one(emulator: EmulatorProcess, connect: Connect) -> None:
    (operation_id,) = emulator.stand_ins(1, processing_s=100_000)
    assert connect(password=emulator.api_key).cancel_operation(operation_id).id == operation_id
