"""Requirements on the addresses of recordings."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.address import RecordingAddress, local_path, parse_address

ENDPOINT = "https://storage.yandexcloud.net"
EMULATOR = "http://127.0.0.1:4566"

keys = (
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=60)
    .filter(lambda key: not {".", ".."} & set(key.split("/")))
    .filter(lambda key: len(key.encode()) <= 1024)
)
buckets = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,30}[a-z0-9]", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("s3://calls/2026/1.ogg", "2026/1.ogg"),
        ("s3://calls/with space & plus+.ogg", "with space & plus+.ogg"),
        ("s3://calls/звонок №1.ogg", "звонок №1.ogg"),
        ("s3://calls/100%25.ogg", "100%25.ogg"),
        ("s3://calls/what?#.ogg", "what?#.ogg"),
        ("s3://calls//double//slash", "/double//slash"),
        ("s3://calls/a@b.ogg", "a@b.ogg"),
        (f"{ENDPOINT}/calls/2026/1.ogg", "2026/1.ogg"),
        (f"{ENDPOINT}:443/calls/1.ogg", "1.ogg"),
        ("http://storage.yandexcloud.net/calls/1.ogg", "1.ogg"),
        ("HTTPS://STORAGE.yandexcloud.NET/calls/Call.OGG", "Call.OGG"),
        (f"{ENDPOINT}/calls/%D0%B7%D0%B2%20%2B.ogg?X-Amz-Signature=secret", "зв +.ogg"),
        (f"{ENDPOINT}/calls/100%2525.ogg", "100%25.ogg"),
        (f"{ENDPOINT}/calls/plus+stays.ogg#fragment", "plus+stays.ogg"),
        (f"{ENDPOINT}/calls/not encoded.ogg", "not encoded.ogg"),
        ("https://calls.storage.yandexcloud.net/2026/1.ogg?versionId=3", "2026/1.ogg"),
        (f"{ENDPOINT}/calls/glob*[1].ogg", "glob*[1].ogg"),
        (f"{ENDPOINT}/calls/blank.ogg%20", "blank.ogg "),
        (f"{ENDPOINT}/calls/not encoded.ogg ", "not encoded.ogg "),
        (f"{ENDPOINT}/calls/ a\tb%0A.ogg", " a\tb\n.ogg"),
        ("s3://calls/ 1.ogg ", " 1.ogg "),
    ],
)
def test_every_form_of_an_address_parses_to_the_same_object(text: str, key: str) -> None:
    address = parse_address(text, [ENDPOINT])

    assert address == RecordingAddress("calls", key)
    assert parse_address(address.uri, [ENDPOINT]) == address


def test_a_bucket_with_dots_is_accepted_in_both_kinds_of_link() -> None:
    address = parse_address("https://my.own.calls.storage.yandexcloud.net/a/1.ogg", [ENDPOINT])

    assert address == RecordingAddress("my.own.calls", "a/1.ogg")
    assert address.link(ENDPOINT) == "https://storage.yandexcloud.net/my.own.calls/a/1.ogg"


def test_a_connection_id_in_the_address_is_not_part_of_the_uri() -> None:
    address = parse_address("s3://yandex_storage@calls/1.ogg", [ENDPOINT])

    assert address == RecordingAddress("calls", "1.ogg", "yandex_storage")
    assert address.uri == "s3://calls/1.ogg"
    assert address.link(ENDPOINT) == f"{ENDPOINT}/calls/1.ogg"


def test_links_to_the_storage_of_the_connection_are_accepted() -> None:
    kazakhstan = "https://storage.yandexcloud.kz"

    assert parse_address(f"{kazakhstan}/calls/1.ogg", [kazakhstan]).link(kazakhstan) == f"{kazakhstan}/calls/1.ogg"
    assert parse_address(f"{EMULATOR}/calls/1%202.ogg", [EMULATOR]) == RecordingAddress("calls", "1 2.ogg")
    assert parse_address(f"{ENDPOINT}/calls/1.ogg", [EMULATOR, ENDPOINT]).link(EMULATOR) == f"{EMULATOR}/calls/1.ogg"
    assert parse_address("http://calls.localhost:9000/1.ogg", ["http://localhost:9000"]).bucket == "calls"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("https://example.com/calls/1.ogg?sig=SECRET", "leads elsewhere"),
        ("https://storage.yandexcloud.net.example.com/calls/1.ogg", "leads elsewhere"),
        ("https://evilstorage.yandexcloud.net/calls/1.ogg", "leads elsewhere"),
        ("https://storage.yandexcloud.net:8443/calls/1.ogg", "leads elsewhere"),
        ("http://127.0.0.1:1/calls/1.ogg", "leads elsewhere"),
        ("https://user:SECRET@storage.yandexcloud.net/calls/1.ogg", "user name or password"),
        ("s3://AKIA:SECRET@calls/1.ogg", "isn't a connection id"),
        ("s3://AKIA:SEC/RET+SECRET@calls/1.ogg", "isn't a connection id"),
        ("gs://AKIA:SEC/RET+SECRET@calls/1.ogg", "isn't the address"),
        ("https://AKIA:SEC/RET+SECRET@storage.yandexcloud.net/calls/1.ogg", "user name or password"),
        ("s3://@calls/1.ogg", "isn't a connection id"),
        ("s3://calls", "no key"),
        ("s3://calls/", "no key"),
        (f"{ENDPOINT}/calls", "no key"),
        (f"{ENDPOINT}/", "name of a bucket"),
        ("s3:///1.ogg", "name of a bucket"),
        ("s3://in valid/1.ogg", "name of a bucket"),
        ("ftp://user:SECRET@host/1.ogg", "isn't the address"),
        ("/calls/1.ogg", "isn't the address"),
        ("", "isn't the address"),
        (f"{ENDPOINT}/calls/%FF.ogg", "percent-encoding isn't UTF-8"),
        ("https://[broken/calls/1.ogg", "isn't a valid URL"),
        ("https://storage.yandexcloud.net:port/calls/1.ogg", "isn't a valid URL"),
        ("s3://calls/\ud800", "UTF-8"),
        ("s3://calls/1\0.ogg", "NUL"),
        (f"{ENDPOINT}/calls/1%00.ogg", "NUL"),
    ],
)
def test_an_invalid_address_is_refused_without_its_secret(text: str, what: str) -> None:
    with pytest.raises(RecordingError, match=what) as refused:
        parse_address(text, [ENDPOINT])

    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize("key", ["../1.ogg", "a/./b", "a/.."])
def test_a_key_with_dot_segments_has_no_link(key: str) -> None:
    with pytest.raises(RecordingError, match="can't be written as a link"):
        RecordingAddress("calls", key).link(ENDPOINT)


@settings(derandomize=True, deadline=None)
@given(bucket=buckets, key=keys, endpoint=st.sampled_from([ENDPOINT, EMULATOR, "https://storage.yandexcloud.kz/"]))
def test_a_link_parses_back_to_its_address(bucket: str, key: str, endpoint: str) -> None:
    address = RecordingAddress(bucket, key)
    link = address.link(endpoint)

    assert parse_address(link, [endpoint]) == address
    assert parse_address(link, [endpoint]).link(endpoint) == link
    assert parse_address(address.uri, [endpoint]) == address
    assert link.isascii()
    assert not urlsplit(link).query


@settings(derandomize=True, deadline=None)
@given(bucket=buckets, key=keys)
def test_a_virtual_host_link_parses_to_the_address(bucket: str, key: str) -> None:
    link = f"https://{bucket}.storage.yandexcloud.net/{quote(key)}?X-Amz-Signature=1"

    assert parse_address(link, [ENDPOINT]) == RecordingAddress(bucket, key)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(text=st.text(max_size=80) | st.text(max_size=40).map(lambda rest: f"https://{rest}"))
def test_any_text_gives_an_address_or_a_recording_error(text: str) -> None:
    with suppress(RecordingError):
        assert parse_address(text, [ENDPOINT]).key


@pytest.mark.parametrize("text", ["/calls/1\0.wav", "file:///calls/1%00.wav"])
def test_a_path_with_a_nul_is_refused(text: str) -> None:
    with pytest.raises(RecordingError, match="NUL") as refused:
        local_path(text)

    assert "\0" not in str(refused.value)


def test_local_files_are_distinguished_from_addresses_in_a_bucket() -> None:
    assert local_path("/calls/1 2.wav") == Path("/calls/1 2.wav")
    assert local_path("calls/1.wav") == Path("calls/1.wav")
    assert local_path("file:///calls/1%202.wav") == Path("/calls/1 2.wav")
    assert local_path("file:///calls/what?#1.wav") == Path("/calls/what?#1.wav")
    assert local_path("s3://calls/1.wav") is None
    assert local_path(f"{ENDPOINT}/calls/1.wav") is None
