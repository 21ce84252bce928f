"""Requirements on recordings in a bucket, against a real S3 server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.config import Config

from airflow_speechkit.errors import ConnectionSettingsError, RecordingError, RecordingNotFoundError, StorageError
from airflow_speechkit.recordings.address import RecordingAddress
from airflow_speechkit.recordings.bucket import Bucket
from airflow_speechkit.recordings.pattern import parse_pattern
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import mp3, ogg, wav

V2 = RecognitionSettings()


@pytest.fixture
def client(s3_client: Any) -> Any:
    """A client of a storage with one empty bucket."""
    s3_client.create_bucket(Bucket="calls", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
    return s3_client


@pytest.fixture
def requests(client: Any) -> Counter[str]:
    """The requests that the client has made."""
    made: Counter[str] = Counter()
    client.meta.events.register("before-send.s3.*", lambda event_name, **_: made.update([event_name.split(".")[-1]]))
    return made


def calls(key: str) -> RecordingAddress:
    return RecordingAddress("calls", key)


@contextmanager
def answering(status: int, code: str) -> Iterator[Any]:
    """Give a client of a storage that answers everything with one error."""

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>Secret-Message</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command != "HEAD" else b"")

        do_GET = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        client = client_of(f"http://127.0.0.1:{server.server_port}")
        yield client
        client.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client_of(endpoint: str, **about: Any) -> Any:
    about = {"aws_access_key_id": "id", "aws_secret_access_key": "Secret-Key", **about}
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="ru-central1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2),
        **about,
    )


@pytest.mark.parametrize(
    ("key", "data", "encoding", "gets"),
    [
        ("short.ogg", ogg(channels=2), AudioEncoding.OGG_OPUS, 1),
        ("long.ogg", ogg(seconds=40, bit_rate=64_000), AudioEncoding.OGG_OPUS, 2),
        ("counted.mp3", mp3(rate=44_100, seconds=20, bit_rate=64_000), AudioEncoding.MP3, 1),
        ("a key/with ? # % and звонок.mp3", mp3(rate=16_000), AudioEncoding.MP3, 1),
    ],
)
def test_a_probe_takes_one_or_two_requests(
    client: Any, requests: Counter[str], key: str, data: bytes, encoding: AudioEncoding, gets: int
) -> None:
    etag = client.put_object(Bucket="calls", Key=key, Body=data)["ETag"].strip('"')
    requests.clear()
    probe = Bucket(client).probe(calls(key), V2)

    assert requests == {"GetObject": gets}
    assert (probe.stored.address, probe.stored.etag, probe.stored.size_bytes) == (calls(key), etag, len(data))
    assert probe.facts.encoding is encoding
    assert probe.facts.duration_ms in (2000, 20_000, 40_000)


def test_stat_probe_and_listing_agree(client: Any) -> None:
    client.put_object(Bucket="calls", Key="1.ogg", Body=ogg())
    bucket = Bucket(client)
    stat = bucket.stat(calls("1.ogg"))

    assert stat == bucket.probe(calls("1.ogg"), V2).stored
    (found,) = bucket.find(parse_pattern("s3://calls/"))
    assert (found.address, found.etag, found.size_bytes) == (calls("1.ogg"), stat.etag, stat.size_bytes)


@pytest.mark.parametrize(
    ("key", "data", "what"),
    [
        ("wav.ogg", wav(), r"is a WAV, and API v2 takes no WAV.*\[recording s3://calls/wav.ogg\]"),
        ("cut.ogg", ogg()[:5_000], r"truncated.*\[recording s3://calls/cut.ogg\] Upload"),
        ("empty.ogg", b"", r"empty \(0 bytes\)"),
        ("text.mp3", b"not a recording", "a text, which the service"),
    ],
)
def test_a_recording_with_a_wrong_extension_is_refused_before_it_is_sent(
    client: Any, key: str, data: bytes, what: str
) -> None:
    client.put_object(Bucket="calls", Key=key, Body=data)

    with pytest.raises(RecordingError, match=what):
        Bucket(client).probe(calls(key), V2)


def test_a_missing_object_or_bucket_is_a_typed_error(client: Any) -> None:
    bucket = Bucket(client)

    with pytest.raises(RecordingNotFoundError, match="There is no such object"):
        bucket.probe(calls("nothing.ogg"), V2)
    for missing in (
        lambda: bucket.probe(RecordingAddress("nowhere", "1.ogg"), V2),
        lambda: bucket.stat(RecordingAddress("nowhere", "1.ogg")),
        lambda: list(bucket.find(parse_pattern("s3://nowhere/"))),
    ):
        with pytest.raises(RecordingError, match="no such bucket"):
            missing()


def test_one_request_finds_that_a_recording_is_missing(client: Any, requests: Counter[str]) -> None:
    bucket = Bucket(client)
    requests.clear()
    assert bucket.stat_if_there(calls("2.ogg")) is None
    with pytest.raises(RecordingNotFoundError, match="no such object, or no such bucket"):
        bucket.stat(calls("2.ogg"))
    assert requests == {"HeadObject": 2}


def test_a_recording_replaced_while_it_is_read_is_an_error(client: Any) -> None:
    client.put_object(Bucket="calls", Key="1.ogg", Body=ogg(seconds=40, bit_rate=64_000))

    def replaced(**_: object) -> None:
        client.meta.events.unregister("after-call.s3.GetObject", replaced)
        client.put_object(Bucket="calls", Key="1.ogg", Body=ogg(seconds=30, bit_rate=64_000))

    client.meta.events.register("after-call.s3.GetObject", replaced)

    with pytest.raises(RecordingError, match=r"replaced after it was found.*A retry submits the new one") as refused:
        Bucket(client).probe(calls("1.ogg"), V2)
    assert refused.value.retry_can_help


@pytest.mark.parametrize(
    ("status", "code", "kind", "what"),
    [
        (403, "AccessDenied", RecordingError, "not permitted.*storage.viewer"),
        (403, "InvalidAccessKeyId", ConnectionSettingsError, "refuses the key.*InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch", ConnectionSettingsError, "static key"),
        (400, "InvalidRequest", RecordingError, "refused.*HTTP 400"),
        (500, "InternalError", StorageError, "The storage fails.*HTTP 500.*A retry reads the bucket again"),
        (503, "SlowDown", StorageError, "SlowDown"),
        (429, "TooManyRequests", StorageError, "HTTP 429"),
    ],
)
def test_each_refusal_of_the_storage_has_a_hint(status: int, code: str, kind: type[Exception], what: str) -> None:
    with answering(status, code) as client:
        for ask in (
            lambda: Bucket(client).probe(calls("1.ogg"), V2),
            lambda: list(Bucket(client).find(parse_pattern("s3://calls/*.ogg"))),
        ):
            with pytest.raises(kind, match=what) as refused:
                ask()
            assert "Secret" not in str(refused.value)


def test_an_unreachable_storage_is_a_storage_error() -> None:
    client = client_of("http://127.0.0.1:1")

    with pytest.raises(
        StorageError, match=r"can't be reached, or its answer can't be read \(EndpointConnectionError\)"
    ) as refused:
        Bucket(client).probe(calls("1.ogg"), V2)
    assert refused.value.retry_can_help
    client.close()


def test_a_connection_without_a_key_is_an_error_of_the_connection(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    client = client_of(s3_endpoint, aws_access_key_id=None, aws_secret_access_key=None)

    with pytest.raises(ConnectionSettingsError, match="no key for the bucket"):
        Bucket(client).probe(calls("1.ogg"), V2)
    client.close()


def test_a_listing_gives_every_key_that_matches(client: Any) -> None:
    keys = [f"in/{number:04}.ogg" for number in range(25)]
    for key in ["other/1.ogg", *reversed(keys), "in/sub/[1].ogg"]:
        client.put_object(Bucket="calls", Key=key, Body=b"x")
    client.meta.events.register(
        "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=10)
    )
    bucket = Bucket(client)

    def found(text: str) -> list[str]:
        return [one.address.key for one in bucket.find(parse_pattern(text))]

    assert found("s3://calls/in/") == [*keys, "in/sub/[1].ogg"]
    assert found("s3://calls/in/*") == keys
    assert found("s3://calls/**/*1.ogg")[:2] == ["in/0001.ogg", "in/0011.ogg"]
    assert found("s3://calls/in/sub/[[]1].ogg") == ["in/sub/[1].ogg"]
    assert found("s3://calls/nothing/") == []
    (one,) = bucket.find(parse_pattern("s3://own@calls/other/"))
    assert one.address == RecordingAddress("calls", "other/1.ogg", "own")
