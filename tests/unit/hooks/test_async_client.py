"""What a trigger's requests cost, against a server on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_speechkit.errors import AuthenticationError, SpeechKitError
from airflow_speechkit.hooks import speechkit
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from tests.unit.api.loopback import Behaviour, ReceivedRequest, ScriptedServer, answer, scripted_server

RUNNING = {"id": "f8dabc", "done": False, "createdAt": "2025-08-09T20:48:53Z", "description": "STT v3"}
PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
IAM_PATH = "/iam/v1/tokens"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def hook(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> SpeechKitHook:
    key = {"id": request.node.name, "service_account_id": "aje1", "private_key": PEM}
    connection = {"conn_type": "speechkit", "host": server.url, "extra": {"authorized_key": json.dumps(key)}}
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps(connection))
    return SpeechKitHook()


def token(name: str, expires_in_s: float = 43_000.0) -> Behaviour:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + expires_in_s))
    return answer(200, {"iamToken": name, "expiresAt": at})


def to_operations(server: ScriptedServer) -> list[ReceivedRequest]:
    return [request for request in server.received if request.path.startswith("/operations/")]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_check_and_a_cancel_are_sent_once(hook: SpeechKitHook, server: ScriptedServer, status: int) -> None:
    server.scripts = {IAM_PATH: [token("t1.one")]}
    server.script = [answer(status), answer(status)]
    async with hook.async_client() as client:
        for request in (client.get_operation, client.cancel_operation):
            with pytest.raises(SpeechKitError, match=str(status)):
                await request("f8dabc")
    assert len(to_operations(server)) == 2


async def test_after_authorizing_a_check_has_its_token(hook: SpeechKitHook, server: ScriptedServer) -> None:
    server.scripts = {IAM_PATH: [token("t1.one")]}
    server.script = [answer(200, RUNNING)]
    async with hook.async_client() as client:
        await client.authorize()
        assert [request.path for request in server.received] == [IAM_PATH]
        await client.get_operation("f8dabc")
    assert len(server.received) == 2


def test_threads_that_start_together_fetch_one_token(hook: SpeechKitHook, server: ScriptedServer) -> None:
    def slow(handler: Any) -> None:
        time.sleep(0.2)
        token("t1.one")(handler)

    server.scripts = {IAM_PATH: [slow]}
    server.script = [answer(200, RUNNING)]
    with hook, ThreadPoolExecutor(8) as pool:
        list(pool.map(hook.get_operation, ["f8dabc"] * 8))
    assert [request.path for request in server.received].count(IAM_PATH) == 1


class TestAReplacedKey:
    """After a 401 the connection is read again, and the session stays open."""

    @pytest.fixture
    def connect(self, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        # What was read within a minute is shared.
        monkeypatch.setattr(speechkit, "READ_AGAIN_AFTER_S", 0.0)

        def connect(connection: str) -> None:
            monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", connection)

        return connect

    async def test_is_used_after_the_first_401(self, server: ScriptedServer, connect: Callable[[str], None]) -> None:
        server.script = [answer(401), answer(200, RUNNING)]
        connect(with_key(server, "old"))
        async with SpeechKitHook().async_client() as client:
            connect(with_key(server, "new"))
            with pytest.raises(AuthenticationError):
                await client.get_operation("f8dabc")
            await client.get_operation("f8dabc")
        assert [request.headers["authorization"] for request in server.received] == ["Api-Key old", "Api-Key new"]

    async def test_that_cannot_be_read_leaves_the_old_one_in_use(
        self, server: ScriptedServer, connect: Callable[[str], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        server.script = [answer(401), answer(200, RUNNING)]
        connect(with_key(server, "old"))
        async with SpeechKitHook().async_client() as client:
            connect(json.dumps({"conn_type": "speechkit", "host": server.url}))
            with pytest.raises(AuthenticationError):
                await client.get_operation("f8dabc")
            await client.get_operation("f8dabc")
        assert "can't be read again, the old key stays in use" in caplog.text
        assert {request.headers["authorization"] for request in server.received} == {"Api-Key old"}


def with_key(server: ScriptedServer, key: str) -> str:
    return json.dumps({"conn_type": "speechkit", "host": server.url, "password": key})
