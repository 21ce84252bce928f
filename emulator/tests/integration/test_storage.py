"""The storage server, where moto's S3 differs from the real Object Storage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import boto3
import pytest
import requests
from botocore.config import Config

from speechkit_emulator.storage import StorageServer, s3_client

BUCKET = "recordings"
KEYS = ("dir/a b+c.ogg", "slash//es.ogg/", "storage", "записи/%41.ogg", "?#.ogg")


@pytest.fixture(scope="module")
def server() -> Iterator[StorageServer]:
    with StorageServer() as server:
        yield server


@pytest.fixture
def s3(server: StorageServer) -> Iterator[Any]:
    client = s3_client(server.url, "key", "secret")
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=key/20260101/ru-central1/s3/aws4_request"
        yield session


@pytest.mark.parametrize("key", [*KEYS, "/slash//es.ogg"])
@pytest.mark.parametrize(
    "host",
    [
        "storage.yandexcloud.net",
        "storage.yandexcloud.net:443",
        "STORAGE.yandexcloud.kz",
        "s3.example.com",
        "speechkit",
        "127.0.0.1:80",
        "[::1]:80",
    ],
)
def test_requests_to_other_hosts_are_path_style(
    server: StorageServer, s3: Any, session: requests.Session, host: str, key: str
) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    path = quote(key)
    answer = session.get(f"{server.url}/{BUCKET}/{path}", headers={"Host": host}, timeout=60)
    assert (answer.status_code, answer.content) == (200, key.encode())
    answer = session.put(f"{server.url}/{BUCKET}/{path}", b"new", headers={"Host": host}, timeout=60)
    assert answer.status_code == 200
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"new"
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [BUCKET]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "host", [f"{BUCKET}.storage.yandexcloud.net", f"{BUCKET}.storage.yandexcloud.kz:443", f"{BUCKET}.localhost:9000"]
)
def test_requests_to_a_buckets_host_are_virtual_host_style(
    server: StorageServer, s3: Any, session: requests.Session, host: str, key: str
) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    path = quote(key)
    answer = session.get(f"{server.url}/{path}", headers={"Host": host}, timeout=60)
    assert (answer.status_code, answer.content) == (200, key.encode())
    listed = session.get(f"{server.url}/", params={"list-type": "2"}, headers={"Host": host}, timeout=60)
    assert f"<Name>{BUCKET}</Name>" in listed.text


@pytest.mark.parametrize("versioned", [False, True])
def test_the_version_of_a_completed_upload_can_be_read(s3: Any, versioned: bool) -> None:
    bucket = "versioned" if versioned else BUCKET
    s3.create_bucket(Bucket=bucket)
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    upload = {"Bucket": bucket, "Key": "parts.ogg"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"all of it")["ETag"]}
    done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
    assert ("VersionId" in done) == versioned
    version = {"VersionId": done["VersionId"]} if versioned else {}
    assert s3.head_object(Bucket=bucket, Key="parts.ogg", **version)["ContentLength"] == 9


@pytest.mark.parametrize("signature", ["s3v4", "s3"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_presigned_link_is_valid_until_it_expires(
    server: StorageServer, s3: Any, session: requests.Session, signature: str, method: str
) -> None:
    s3.put_object(Bucket=BUCKET, Key="a.ogg", Body=b"old")
    signing = s3.meta.config.merge(Config(signature_version=signature))
    signer = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="ru-central1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=signing,
    )
    operation = {"GET": "get_object", "HEAD": "head_object", "PUT": "put_object"}[method]
    link = signer.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": "a.ogg"}, ExpiresIn=3600)
    signer.close()
    body = b"new" if method == "PUT" else None
    # Links that were made long ago, or that have an invalid time.
    for before, after in (
        (r"X-Amz-Date=\d{8}", "X-Amz-Date=20260101"),
        (r"X-Amz-Expires=\d+", "X-Amz-Expires=soon"),
        (r"X-Amz-Expires=\d+", "X-Amz-Expires=" + 400 * "9"),
        (r"(?<!-)Expires=\d+", "Expires=1767225600"),
        (r"(?<!-)Expires=\d+", "Expires=soon"),
    ):
        expired = re.sub(before, after, link)
        if expired == link:
            continue
        answer = session.request(method, expired, data=body, timeout=60)
        assert answer.status_code == 403, expired
        assert method == "HEAD" or "<Code>AccessDenied</Code>" in answer.text
    assert s3.get_object(Bucket=BUCKET, Key="a.ogg")["Body"].read() == b"old"
    assert session.request(method, link, data=body, timeout=60).status_code == 200
