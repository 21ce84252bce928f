"""Requirements on storages that answer ranged requests otherwise than Object Storage does."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.config import Config

from airflow_speechkit.errors import RecordingError, StorageError
from airflow_speechkit.recordings.address import RecordingAddress
from airflow_speechkit.recordings.bucket import Bucket
from airflow_speechkit.settings import RecognitionSettings
from tests.unit.recordings.sounds import ogg

CALL = RecordingAddress("calls", "1.ogg")
LONG = ogg(seconds=40, bit_rate=64_000)


@dataclass
class OddStorage:
    """A storage with one object.

    :param headers: changes the headers of an answer; a value of None removes one
    :param ranges: whether it honours Range
    :param cut: how many bytes short pieces from the middle are
    """

    data: bytes = LONG
    headers: Callable[[str, int, Mapping[str, str]], Mapping[str, str | None]] = lambda method, start, given: {}
    ranges: bool = True
    cut: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    @contextmanager
    def client(self) -> Iterator[Any]:
        storage = self

        class Answer(BaseHTTPRequestHandler):
            def answer(self) -> None:
                storage.asked.append((self.command, self.headers.get("If-Match")))
                start, body, status = 0, storage.data, 200
                if storage.ranges and (asked := self.headers.get("Range")):
                    start, end = (int(one) for one in asked.removeprefix("bytes=").split("-"))
                    body, status = storage.data[start : end + 1 - (storage.cut if start else 0)], 206
                given = {"ETag": '"one"', "Content-Length": str(len(body))}
                if status == 206:
                    given["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(storage.data)}"
                self.send_response(status)
                for name, value in {**given, **storage.headers(self.command, start, given)}.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        thread = Thread(target=server.serve_forever)
        thread.start()
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{server.server_port}",
            region_name="ru-central1",
            aws_access_key_id="id",
            aws_secret_access_key="Secret-Key",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=10),
        )
        try:
            yield client
        finally:
            client.close()
            server.shutdown()
            server.server_close()
            thread.join()


def only_for(method: str, **headers: str | None) -> Callable[[str, int, Mapping[str, str]], Mapping[str, str | None]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked, start, given: named if asked == method else {}


@pytest.mark.parametrize("answered", [None, "bytes 0-65535/*", "bytes 0-65535/many", ""])
def test_a_storage_that_gives_no_size_is_refused(answered: str | None) -> None:
    storage = OddStorage(headers=only_for("GET", Content_Range=answered))
    refused = pytest.raises(RecordingError, match=r"gives no size for this object.*\[recording s3://calls/1.ogg\]")
    with storage.client() as client, refused:
        Bucket(client).probe(CALL, RecognitionSettings())
    storage = OddStorage(headers=only_for("HEAD", Content_Length=None))
    with storage.client() as client, pytest.raises(RecordingError, match="gives no size"):
        Bucket(client).stat(CALL)


def test_a_weak_etag_is_compared_but_not_sent_in_if_match() -> None:
    storage = OddStorage(headers=lambda method, start, given: {"ETag": 'W/"one"'})
    with storage.client() as client:
        assert Bucket(client).probe(CALL, RecognitionSettings()).facts.duration_ms == 40_000
    assert [asked for _, asked in storage.asked] == [None, None]

    changing = OddStorage(headers=lambda method, start, given: {"ETag": f'W/"{start}"'})
    with changing.client() as client, pytest.raises(RecordingError, match="replaced after it was found"):
        Bucket(client).probe(CALL, RecognitionSettings())

    strong = OddStorage()
    with strong.client() as client:
        Bucket(client).probe(CALL, RecognitionSettings())
    assert [asked for _, asked in strong.asked] == [None, '"one"']


def test_a_storage_that_ignores_ranges_is_refused_unless_one_request_is_enough() -> None:
    with (
        OddStorage(ranges=False).client() as client,
        pytest.raises(RecordingError, match="ignores Range requests"),
    ):
        Bucket(client).probe(CALL, RecognitionSettings())

    with OddStorage(data=ogg(seconds=2), ranges=False).client() as client:
        assert Bucket(client).probe(CALL, RecognitionSettings()).facts.duration_ms == 2000


def test_a_piece_shorter_than_requested_is_a_storage_error() -> None:
    storage = OddStorage(cut=1000)
    with storage.client() as client, pytest.raises(StorageError, match=r"returned [\d,]+ of [\d,]+ requested bytes"):
        Bucket(client).probe(CALL, RecognitionSettings())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "headers",
    [{"Content_Length": "many"}, {"Last_Modified": "never"}, {"x_amz_missing_meta": "many"}],
    ids=str,
)
def test_unreadable_headers_are_a_storage_error(headers: dict[str, str]) -> None:
    with OddStorage(headers=only_for("GET", **headers)).client() as client, pytest.raises(StorageError) as refused:
        Bucket(client).probe(CALL, RecognitionSettings())
    assert refused.value.recording == CALL.uri
    # botocore leaves the connection of an answer that it can't parse to the garbage collector.
    gc.collect()
