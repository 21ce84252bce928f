"""Requirements on what the Test button of a connection says: all that is wrong, and nothing is spent or left behind."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from tests.unit.api.loopback import ScriptedServer, answer, scripted_server
from tests.unit.archive.world import T0

KEY = "AQVNhunter2hunter2hunter2"
NOT_FOUND = answer(404, {"code": 5, "message": "not found"})
ACCEPTED = [NOT_FOUND, answer(400, {"code": 3, "message": "empty uri"})]
Button = Callable[..., tuple[bool, str]]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def press(server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Button:
    """Press the button of a connection that is sound but for what is given; None takes a field away."""

    def tested(extra: dict[str, Any] | None = None, script: list[Any] | None = None, **fields: Any) -> tuple[bool, str]:
        server.script = list(ACCEPTED if script is None else script)
        sound = {"archive": str(tmp_path / "archive"), "storage_host": "http://127.0.0.1:1"}
        known = {name: value for name, value in {**sound, **(extra or {})}.items() if value is not None}
        connection = {"conn_type": "speechkit", "host": server.url, "password": KEY, **fields, "extra": known}
        monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps(connection))
        well, message = SpeechKitHook().test_connection()
        assert KEY not in message
        assert "hunter2" not in message
        return well, message

    return tested


@pytest.fixture
def aws(s3: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set a connection that leads to a bucket."""

    def make(conn_id: str = "aws_default", endpoint: str = s3) -> None:
        extra = {"endpoint_url": endpoint, "region_name": "ru-central1"}
        fields = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return make


@pytest.fixture
def forgetful(s3: str) -> Iterator[str]:
    """The same bucket behind a store that knows no conditional writes."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    from speechkit_emulator.storage_server import with_plain_headers

    store = with_plain_headers(DomainDispatcherApplication(create_backend_app))

    def serve(environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return store(environ, respond)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with make_server("127.0.0.1", 0, serve, threaded=True, request_handler=MotoRequestHandler) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_sound_connection_lists_what_was_tried(press: Button, tmp_path: Path) -> None:
    well, message = press()

    assert well
    assert "lets it recognise speech (API v2)" in message
    assert f"The archive at {tmp_path}/archive can be written" in message
    # No archive is begun by trying one.
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_there_is_left_as_it_was(press: Button, tmp_path: Path) -> None:
    Archive.at(tmp_path / "archive").probe(T0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}

    assert press()[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ([answer(401, {"code": 16, "message": f"Unknown api key '{KEY}'"})], "key or token"),
        ([NOT_FOUND, answer(403, {"code": 7, "message": "denied"})], "ai.speechkit-stt.user"),
    ],
)
def test_each_refusal_of_the_service_has_its_own_message(press: Button, script: list[Any], says: str) -> None:
    well, message = press(script=script)

    assert not well
    assert says in message


def test_a_host_that_does_not_answer(press: Button) -> None:
    well, message = press(host="http://127.0.0.1:1")

    assert not well
    assert "the connection was refused" in message


def test_everything_that_is_wrong_is_listed(press: Button) -> None:
    well, message = press({"archive": None, "achive": "s3://x/y", "team": "speech"}, password="")

    assert not well
    lines = message.splitlines()
    assert len(lines) == 3
    assert "`achive` (did you mean `archive`?), `team`" in lines[0]
    assert "no key and no token" in lines[1]
    assert "There is no archive" in lines[2]
    # While a connection is being edited its id is a made-up one.
    assert "speechkit_default" not in message


def test_the_archive_of_the_configuration_is_tried_too(
    press: Button, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SPEECHKIT__ARCHIVE", str(tmp_path / "configured"))
    well, message = press({"archive": None})

    assert well
    assert f"The archive at {tmp_path}/configured" in message


def test_an_archive_in_a_bucket(press: Button, aws: Callable[..., None], s3_client: Any) -> None:
    aws()
    well, message = press({"archive": "s3://lake/archive"})

    assert well, message
    assert "s3://aws_default@lake/archive" in message
    assert "Contents" not in s3_client.list_objects_v2(Bucket="lake")


def test_a_bucket_that_is_not_there(press: Button, aws: Callable[..., None]) -> None:
    aws()
    well, message = press({"archive": "s3://nosuch/archive"})

    assert not well
    assert "s3://aws_default@nosuch/archive" in message


def test_a_bucket_that_can_not_be_reached(press: Button, aws: Callable[..., None]) -> None:
    aws("aws_away", "http://127.0.0.1:1")
    well, message = press({"archive": "s3://lake/archive", "aws_conn_id": "aws_away"})

    assert not well
    assert "s3://aws_away@lake/archive" in message
    assert "http://127.0.0.1:1" in message


def test_a_bucket_whose_connection_is_not_there(press: Button, s3: str) -> None:
    well, message = press({"archive": "s3://lake/archive", "aws_conn_id": "aws_nowhere"})

    assert not well
    assert "There is no connection `aws_nowhere`" in message


def test_a_bucket_that_does_not_exclude_a_second_writer(
    press: Button, aws: Callable[..., None], forgetful: str, s3_client: Any
) -> None:
    aws("aws_forgetful", forgetful)
    well, message = press({"archive": "s3://lake/archive", "aws_conn_id": "aws_forgetful"})

    assert not well
    assert "lets a second writer overwrite the first" in message
    assert "Contents" not in s3_client.list_objects_v2(Bucket="lake")


def test_an_unknown_field_is_warned_of_once(
    press: Button, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    press({"team": "speech"})
    for _ in range(2):
        assert SpeechKitHook().connection.archive
    [warning] = [one.getMessage() for one in caplog.records if "unknown fields" in one.getMessage()]

    assert warning == "Connection `speechkit_default`: unknown fields in its extra are ignored: `team`"
