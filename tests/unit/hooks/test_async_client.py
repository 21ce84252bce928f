"""What a trigger's requests cost, against a server on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_speechkit.errors import ServiceFaultError
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from tests.unit.api.loopback import Asked, Behaviour, Told, answer, told_server

RUNNING = {"id": "f8dabc", "done": False, "createdAt": "2025-08-09T20:48:53Z", "description": "STT v3"}
PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
IAM_PATH = "/iam/v1/tokens"


@pytest.fixture
def server() -> Iterator[Told]:
    with told_server() as told:
        yield told


@pytest.fixture
def hook(server: Told, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> SpeechKitHook:
    key = {"id": request.node.name, "service_account_id": "aje1", "private_key": PEM}
    connection = {"conn_type": "speechkit", "host": server.url, "extra": {"authorized_key": json.dumps(key)}}
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps(connection))
    return SpeechKitHook()


def token(name: str, expires_in_s: float = 43_000.0) -> Behaviour:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + expires_in_s))
    return answer(200, {"iamToken": name, "expiresAt": at})


class Counted:
    def __init__(self) -> None:
        self.number = 0

    async def allowed(self) -> None:
        self.number += 1


def to_operations(server: Told) -> list[Asked]:
    return [asked for asked in server.asked if asked.path.startswith("/operations/")]


async def test_a_check_that_is_sent_again_with_a_new_token_is_counted_twice(hook: SpeechKitHook, server: Told) -> None:
    server.scripts = {IAM_PATH: [token("t1.one"), token("t1.two")]}
    server.script = [answer(401), answer(200, RUNNING)]
    counted = Counted()
    async with hook.async_client() as client:
        await client.get_operation("f8dabc", counted.allowed)
    assert counted.number == len(to_operations(server)) == 2
    assert len(server.asked) == 4, "tokens cost no status check"


@pytest.mark.parametrize("status", [429, 503])
async def test_a_cancel_is_asked_for_once(hook: SpeechKitHook, server: Told, status: int) -> None:
    server.scripts = {IAM_PATH: [token("t1.one")]}
    server.script = [answer(status)]
    counted = Counted()
    async with hook.async_client() as client:
        with pytest.raises(Exception, match=str(status)):
            await client.cancel_operation("f8dabc", counted.allowed)
    assert counted.number == len(to_operations(server)) == 1


async def test_a_cancel_by_the_other_method_is_counted_as_a_second_request(hook: SpeechKitHook, server: Told) -> None:
    server.scripts = {IAM_PATH: [token("t1.one")]}
    server.script = [answer(405), answer(503)]
    counted = Counted()
    async with hook.async_client() as client:
        with pytest.raises(ServiceFaultError):
            await client.cancel_operation("f8dabc", counted.allowed)
    assert [asked.method for asked in to_operations(server)] == ["GET", "POST"]
    assert counted.number == 2


async def test_a_request_is_allowed_only_once_its_token_is_there(hook: SpeechKitHook, server: Told) -> None:
    server.scripts = {IAM_PATH: [token("t1.one"), token("t1.two")]}
    server.script = [answer(401), answer(200, RUNNING)]
    before: list[str] = []

    async def allowed() -> None:
        before.append(server.asked[-1].path)

    async with hook.async_client() as client:
        await client.get_operation("f8dabc", allowed)
    assert before == [IAM_PATH, IAM_PATH], "a late token makes no checks go out together"
