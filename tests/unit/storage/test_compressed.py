"""What is compressed is inflated only as far as it may be held: of a response, an archive's file, a saved answer."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import tracemalloc
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.cli import main
from airflow_speechkit.errors import AnswerUnreadableError, SpeechKitError
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.results.saved import read_saved
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.storage.compressed import LARGEST_ANSWER_BYTES, Body, BrokenBodyError, Packed, inflated
from tests.fixtures.direct import wait_for
from tests.fixtures.manifests import paths_of
from tests.unit.api.loopback import Carrier, Handler, ScriptedServer, answer, scripted_server, service_at

MIB = 1 << 20
OPERATION_ID = "e03sncdp55uvg2tfpso1"
AT = {"createdAt": "2026-11-22T12:00:00Z", "createdBy": "aje", "modifiedAt": "2026-11-22T12:01:00Z"}
WORD = {"startTime": "0.100s", "endTime": "0.900s", "word": "да", "confidence": 1}
CHUNK = {"alternatives": [{"words": [WORD], "text": "да", "confidence": 1}], "channelTag": "1"}
TYPE = "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"


@cache
def packed_operation(padding_mib: int) -> bytes:
    """A finished operation of API v2 that says one word, with so much of something else in it, as gzip."""
    response = {"@type": TYPE, "chunks": [CHUNK], "padding": "PADDING"}
    operation = {"done": True, "response": response, "id": OPERATION_ID, **AT}
    head, _, tail = json.dumps(operation, ensure_ascii=False).partition("PADDING")
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [packer.compress(head.encode()), *(packer.compress(b"a" * MIB) for _ in range(padding_mib))]
    return b"".join([*pieces, packer.compress(tail.encode()), packer.flush()])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as told:
        yield told


@pytest.fixture(params=["requests", "aiohttp"])
def carry(request: pytest.FixtureRequest) -> Carrier:
    return Carrier(request.param)


def endless(pieces: Callable[[], Iterator[bytes]], **headers: str) -> Callable[[Handler], None]:
    """Answer with bytes that go on until the other side has had enough."""

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("connection", "close")
        handler.end_headers()
        handler.close_connection = True
        try:
            for piece in pieces():
                handler.wfile.write(piece)
        except OSError:
            return

    return behave


def zeros_without_end() -> Iterator[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    yield packer.compress(b'{"done":true,"response":{"x":"') + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(b"0" * (64 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    while True:
        yield piece


def letters_without_end() -> Iterator[bytes]:
    yield b'{"done":true,"response":{"x":"'
    while True:
        yield b"a" * MIB


class TestResponses:
    @pytest.mark.parametrize("encoding", ["gzip", "x-gzip", None])
    def test_an_answer_is_the_same_compressed_or_not(
        self, server: ScriptedServer, carry: Carrier, encoding: str | None
    ) -> None:
        plain = os.urandom(3 * MIB).hex().encode()
        body = plain if encoding is None else gzip.compress(plain[:MIB]) + gzip.compress(plain[MIB:]) + b"\0" * 8
        server.script = [answer(200, body, **({} if encoding is None else {"content_encoding": encoding}))]
        response = carry(service_at(server.url).operation(OPERATION_ID))
        assert response.body == plain
        assert server.received[0].headers["accept-encoding"] == "gzip"

    def test_a_too_large_answer_stays_compressed(self, server: ScriptedServer, carry: Carrier) -> None:
        packed = packed_operation(LARGEST_ANSWER_BYTES // MIB)
        server.script = [answer(200, packed, content_encoding="gzip")]
        response = carry(service_at(server.url).operation(OPERATION_ID))
        assert isinstance(response.body, Packed)
        assert response.body == packed

    @pytest.mark.parametrize(
        "behaviour",
        [
            endless(zeros_without_end, content_encoding="gzip"),
            answer(200, gzip.compress(b"{}" * 100)[:-9], content_encoding="gzip"),
            answer(200, b'{"done":true}', content_encoding="gzip"),
            answer(200, zlib.compress(b"{}"), content_encoding="br"),
        ],
        ids=["endless", "cut off", "not gzip", "something else"],
    )
    def test_an_unusable_body_is_a_typed_error(
        self, server: ScriptedServer, carry: Carrier, behaviour: Callable[[Handler], None]
    ) -> None:
        server.script = [behaviour]
        with pytest.raises(AnswerUnreadableError):
            carry(service_at(server.url, attempts=1).operation(OPERATION_ID))

    def test_a_too_large_error_response_is_a_typed_error(self, server: ScriptedServer, carry: Carrier) -> None:
        server.script = [answer(400, packed_operation(LARGEST_ANSWER_BYTES // MIB), content_encoding="gzip")]
        with pytest.raises(SpeechKitError, match="400"):
            carry(service_at(server.url, attempts=1).operation(OPERATION_ID))

    @pytest.mark.parametrize("encoding", ["gzip", None])
    def test_a_body_holds_no_more_than_the_limit(self, encoding: str | None) -> None:
        first, *others = itertools.islice(zeros_without_end() if encoding else letters_without_end(), 2)
        body = Body(encoding, largest_bytes=4 * MIB)
        tracemalloc.start()
        try:
            body.feed(first)
            with pytest.raises(BrokenBodyError):
                deque((body.feed(piece[: 64 << 10]) for piece in itertools.cycle(others)), maxlen=0)
            assert tracemalloc.get_traced_memory()[1] < 16 * MIB
        finally:
            tracemalloc.stop()

    def test_a_too_large_plain_body_is_compressed_while_it_arrives(self) -> None:
        body = Body(None, largest_bytes=MIB)
        for _ in range(40):
            body.feed(b'{"done":true}' * 10_000)
        packed = body.whole()
        assert isinstance(packed, Packed)
        assert len(packed) < MIB
        assert gzip.decompress(packed) == b'{"done":true}' * 400_000


class TestInflated:
    @pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
    def test_an_answer_within_the_limit_is_returned_whole(self, size: int) -> None:
        for plain in (b"a" * size, os.urandom(size)):
            assert inflated(gzip.compress(plain), size) == plain
            if size:
                with pytest.raises(AnswerUnreadableError, match="memory_mib"):
                    inflated(gzip.compress(plain), size - 1)

    def test_several_streams_are_read_as_one(self) -> None:
        assert inflated(gzip.compress(b"a") + gzip.compress(b"b") + b"\0\0", 2) == b"ab"
        with pytest.raises(AnswerUnreadableError):
            inflated(gzip.compress(b"a") + gzip.compress(b"b"), 1)

    def test_a_cut_off_or_damaged_stream_is_not_reported_as_too_large(self) -> None:
        packed = gzip.compress(os.urandom(MIB))
        for cut in range(1, len(packed), 49_999):
            with pytest.raises(ValueError, match="cut off or damaged"):
                inflated(packed[:cut], MIB)
        damaged = bytearray(packed)
        damaged[1000] ^= 0xFF
        with pytest.raises(ValueError, match="cut off or damaged"):
            inflated(bytes(damaged), MIB)

    def test_no_more_than_the_limit_is_held(self) -> None:
        packed = packed_operation(300)
        tracemalloc.start()
        try:
            with pytest.raises(AnswerUnreadableError):
                inflated(packed, 8 * MIB)
            assert tracemalloc.get_traced_memory()[1] < 24 * MIB
        finally:
            tracemalloc.stop()


class TestAnAnswerThatIsTooLarge:
    """It was paid for: it is archived, never submitted again, and read once there is memory for it."""

    @pytest.fixture
    def archive(self, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
        extra = {"archive": str(tmp_path / "archive")}
        connection = {"conn_type": "speechkit", "host": server.url, "password": "AQVNtest", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps(connection))
        return Archive.at(tmp_path / "archive")

    @pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])
    def test_of_v2(self, server: ScriptedServer, archive: Archive, tmp_path: Path, deferrable: bool) -> None:
        packed = packed_operation(LARGEST_ANSWER_BYTES // MIB)
        server.script = [answer(200, packed, content_encoding="gzip")]
        sensor = SpeechKitRecognitionSensor(
            task_id="wait", operation_id=OPERATION_ID, poke_interval=0.1, deferrable=deferrable
        )
        assert wait_for(sensor) == OPERATION_ID
        outcome = archive.outcome(OPERATION_ID)
        assert outcome is not None
        assert outcome.state == "finished"
        assert outcome.files["operation.json.gz"].unread
        assert archive.folder.read(f"operations/{OPERATION_ID}/operation.json.gz") == packed

        def rows(**how: Any) -> dict[str, Any]:
            return SpeechKitTransformOperator(
                task_id="rows", operation_id=OPERATION_ID, target=str(tmp_path / "rows"), **how
            ).execute({})

        with pytest.raises(AnswerUnreadableError, match="memory_mib"):
            rows()
        (path,) = paths_of(rows(memory_mib=640), "words")
        assert pq.ParquetFile(path).read()["word"].to_pylist() == ["да"]

    def test_of_v3_is_not_deleted_from_the_service(self, server: ScriptedServer, archive: Archive) -> None:
        operation_id = "f8d2h7m07t4i00000001"
        operation = {"done": True, "id": operation_id, "description": "STT v3 async recognition", **AT}
        server.script = [answer(200, operation)]
        result = gzip.compress(b'{"result":{}}\n' + b" " * (LARGEST_ANSWER_BYTES + 1), 1)
        server.scripts["/stt/v3/getRecognition"] = [answer(200, result, content_encoding="gzip")]
        sensor = SpeechKitRecognitionSensor(
            task_id="wait", operation_id=operation_id, poke_interval=0.1, delete_after_archiving=True
        )
        assert wait_for(sensor) == operation_id
        assert archive.folder.read(f"operations/{operation_id}/recognition.json.gz") == result
        assert {one.method for one in server.received} == {"GET"}

    def test_commands_show_and_export_a_too_large_answer(
        self, server: ScriptedServer, archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.script = [answer(200, packed_operation(LARGEST_ANSWER_BYTES // MIB), content_encoding="gzip")]
        archive.probe(datetime.now(UTC))
        wait_for(SpeechKitRecognitionSensor(task_id="wait", operation_id=OPERATION_ID, poke_interval=0.1))
        at = ["--archive", archive.url]
        assert main(["archive", "show", OPERATION_ID, "--answer", *at]) == 0
        assert len(capsys.readouterr().out) > LARGEST_ANSWER_BYTES
        assert main(["archive", "export", "--answers", "--to", str(tmp_path / "plain"), *at]) == 0
        assert (tmp_path / "plain" / f"{OPERATION_ID}.json").stat().st_size > LARGEST_ANSWER_BYTES
        assert main(["archive", "verify", *at]) == 0

    def test_a_body_that_does_not_begin_as_an_answer_is_not_archived(
        self, server: ScriptedServer, archive: Archive
    ) -> None:
        server.script = [answer(200, gzip.compress(b" " * (LARGEST_ANSWER_BYTES + 1), 1), content_encoding="gzip")]
        with SpeechKitHook() as hook, pytest.raises(AnswerUnreadableError, match="too large"):
            hook.get_operation(OPERATION_ID, attempts=1)


class TestSavedAnswers:
    @pytest.mark.parametrize("packed", [packed_operation(32), gzip.decompress(packed_operation(32))])
    def test_the_limit_is_in_bytes_inflated(self, packed: bytes) -> None:
        size = len(gzip.decompress(packed_operation(32)))
        assert read_saved(packed, "calls", size).operation_id == OPERATION_ID
        with pytest.raises(AnswerUnreadableError, match="memory_mib"):
            read_saved(packed, "calls", size - 1)
