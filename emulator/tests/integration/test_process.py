"""The emulator as a process: its line of JSON, its state after a kill -9, and its children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.caller import OGG_HEAD, Caller, first_sentence, quick, transcript_of

COMMAND = [sys.executable, "-m", "speechkit_emulator", "--port=0", "--storage-port=0", "--recognisers=1"]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def wait_until(condition: object, *, tries: int = 600) -> None:
    assert callable(condition)
    for _ in range(tries):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition did not become true")


@pytest.fixture
def command() -> object:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_command_prints_one_line_and_its_children_end_with_it(command: object, number: signal.Signals) -> None:
    assert callable(command)
    process, ready = command("--warm")
    assert list(ready) == ["speechkit", "storage", "bucket", "api_key", "access_key_id", "secret_access_key"]
    assert ready["speechkit"].startswith("http://127.0.0.1:")
    wait_until(lambda: len(children(process.pid)) >= 3)
    family = children(process.pid)
    process.send_signal(number)
    code = process.wait(timeout=30)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    wait_until(lambda: all(has_ended(pid) for pid in family))
    assert process.stdout is not None
    assert process.stdout.read() == b""


def test_a_port_in_use_is_an_error_without_a_traceback(running: EmulatorProcess) -> None:
    port = running.url.rpartition(":")[2]
    done = subprocess.run(
        [*COMMAND, f"--port={port}", "--no-warm", f"--storage-url={running.storage_url}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"can't listen" in done.stderr
    assert b"Traceback" not in done.stderr


def test_operations_billing_tokens_and_clock_are_kept_after_a_kill(tmp_path: Path) -> None:
    with quick(state=tmp_path) as emulator:
        caller = Caller(emulator)
        done = caller.submit(emulator.put("a.ogg", OGG_HEAD, transcript_of("hello"))).json()["id"]
        waits = caller.submit(emulator.put("b.ogg", OGG_HEAD, transcript_of("hello", processing_s=1e6))).json()["id"]
        token = caller.ask(
            "GET", "/computeMetadata/v1/instance/service-accounts/default/token", **{"Metadata-Flavor": "Google"}
        ).json()["access_token"]
        caller.finished(done)
        emulator.advance(10_000)
        before, bill, keys, url = emulator.clock()["now_s"], emulator.billing(), emulator.credentials(), emulator.url
        answer = caller.finished(done)
        emulator.restart()
        assert emulator.url == url
        assert emulator.credentials() == keys
        assert emulator.clock()["now_s"] >= before
        assert emulator.billing() == bill
        caller.authorization = f"Bearer {token}"
        assert caller.finished(done) == answer
        assert caller.ask("GET", f"/operations/{waits}").json()["done"] is False
        emulator.advance(1e6)
        assert emulator.billing()[1]["state"] == "done"
        caller.session.close()


def test_recognition_continues_after_a_kill() -> None:
    with quick() as emulator:
        caller = Caller(emulator)
        link = emulator.put("message.pcm", first_sentence())
        operation_id = caller.submit_pcm(link).json()["id"]
        emulator.restart()
        operation = caller.finished(operation_id)
        assert "message for" in operation["response"]["chunks"][-1]["alternatives"][0]["text"].lower()
        assert [line["operation_id"] for line in emulator.billing()] == [operation_id]
        caller.session.close()


def test_a_killed_recogniser_is_replaced() -> None:
    with quick(warm=True) as emulator:
        caller = Caller(emulator)
        link = emulator.put("message.pcm", first_sentence())
        assert "response" in caller.finished(caller.submit_pcm(link).json()["id"])
        assert emulator.pid is not None
        workers = [pid for pid in children(emulator.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        assert "response" in caller.finished(caller.submit_pcm(link).json()["id"])
        caller.session.close()


def test_an_unreachable_bucket_is_an_internal_error(tmp_path: Path) -> None:
    from speechkit_emulator.storage import StorageServer

    storage = StorageServer()
    try:
        with EmulatorProcess(storage_url=storage.url) as emulator:
            caller = Caller(emulator)
            link = emulator.put("a.ogg", OGG_HEAD, transcript_of("hello"))
            storage.close()
            assert caller.submit(link).status_code == 500
            assert emulator.billing() == []
            caller.session.close()
    finally:
        storage.close()


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "http_proxy"])
def test_requests_to_a_bucket_on_loopback_ignore_proxies(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    # Nothing listens on this port.
    monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    with quick() as emulator:
        caller = Caller(emulator)
        assert caller.submit(emulator.put("a.ogg", OGG_HEAD, transcript_of("hello"))).status_code == 200
        caller.session.close()


def test_only_the_owner_can_read_the_state(tmp_path: Path) -> None:
    state, key = tmp_path / "new" / "state", tmp_path / "key.json"
    with quick(f"--authorized-key={key}", state=state) as emulator:
        emulator.kill()
        # An older emulator could have left files with this mode.
        for file in state.iterdir():
            file.chmod(0o644)
        emulator.start()
        emulator.put("a.ogg", OGG_HEAD)
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in state.iterdir()}
        assert set(modes) == {"emulator.sqlite", "emulator.sqlite-shm", "emulator.sqlite-wal"}
        assert set(modes.values()) == {"0o600"}
    assert (state.stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o700, 0o600)
