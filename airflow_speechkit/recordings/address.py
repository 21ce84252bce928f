"""Where a recording is: bucket and key, as people write them and as the service wants them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.models import RecordingAddress
from airflow_speechkit.redaction import CUT, clean_address

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORMS = "Write it as s3://bucket/key, s3://conn_id@bucket/key, or as the object's https link in Object Storage"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DEFAULT_PORTS = {"https": 443, "http": 80}


def object_address(bucket: str, key: str, conn_id: str | None = None) -> RecordingAddress:
    """Return the address of an object.

    :param bucket: the bucket's name
    :param key: the object's key as it is, not percent-encoded
    :param conn_id: the Airflow connection to read the bucket with
    :raises RecordingError: no such object can exist
    """
    address = RecordingAddress(bucket, key, conn_id)
    check_bucket(bucket, address.uri)
    check_key(key, address.uri)
    if not key:
        raise RecordingError("There is no key in this address", recording=address.uri, hint=_FORMS)
    return address


def parse_s3(text: str) -> RecordingAddress:
    """Read ``s3://bucket/key`` or ``s3://conn_id@bucket/key``.

    :raises RecordingError: no such object can exist
    """
    conn_id, bucket, key = split_s3(text.partition("://")[2], text)
    return object_address(bucket, key, conn_id)


def parse_address(text: str, storage_endpoints: Iterable[str]) -> RecordingAddress:
    """Read the address of one recording.

    ``s3://`` addresses are taken literally (``%20`` in them is a percent sign, a two and a zero); https links are
    decoded once, and their query and fragment are dropped.

    :param text: ``s3://bucket/key``, ``s3://conn_id@bucket/key``, or a path-style or virtual-host https link
    :param storage_endpoints: URLs or hosts of the storage that the service reads from; a link to another is refused
    :raises RecordingError: it is none of these
    """
    text = clean_address(text)
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() == "s3":
        return parse_s3(text)
    if separator and scheme.lower() in _DEFAULT_PORTS:
        return _parse_link(text, storage_endpoints)
    raise RecordingError(
        "This isn't the address of a recording in Object Storage",
        recording=text,
        hint=f"{_FORMS}. A local file needs `upload_to`",
    )


def split_s3(rest: str, text: str) -> tuple[str | None, str, str]:
    """Split what follows ``s3://`` into connection id, bucket and key.

    :raises RecordingError: the connection id is empty, or is credentials
    """
    authority, _, key = rest.partition("/")
    conn_id, has_conn_id, bucket = authority.rpartition("@")
    if (has_conn_id and conn_id in ("", CUT)) or ":" in authority:
        # s3://key:secret@bucket is how some tools write credentials: these must not get any further.
        raise RecordingError("The part before the '@' isn't a connection id", recording=text, hint=_FORMS)
    return conn_id or None, bucket, key


def check_bucket(bucket: str, text: str) -> None:
    """Check a bucket's name.

    :raises RecordingError: no bucket can be called that
    """
    if not _BUCKET.fullmatch(bucket):
        raise RecordingError(f"{bucket!r} can't be the name of a bucket", recording=text, hint=_FORMS)


def check_key(path: str, text: str) -> None:
    """Check that a key or a file's path has nothing in it that no key can have.

    :raises RecordingError: it has a NUL, or a character that UTF-8 can't hold
    """
    if re.search(r"[\0\ud800-\udfff]", path):
        raise RecordingError(
            "There is a NUL, or a character that UTF-8 can't hold, in this address: no object and no file can be "
            "called that",
            recording=text.replace("\0", "\\0"),
            hint="Check where the address comes from: it looks like binary data",
        )


def local_path(text: str) -> Path | None:
    """Return the path of a local file (``/calls/1.wav``, ``file:///calls/1.wav``), None for any other address.

    :raises RecordingError: no file can be called that
    """
    if text.lower().startswith("file://"):
        # Not by urlsplit, here and for links: it drops tabs, line ends and outer blanks, which a key may have.
        path = unquote(f"/{text[len('file://') :].partition('/')[2]}")
    elif "://" in text:
        return None
    else:
        path = text
    check_key(path, text)
    return Path(path)


def uri_on_record(text: str, storage_endpoints: Iterable[str]) -> str:
    """Return a recording's address as archives and tables have it, however it is written.

    :param text: as `parse_address` takes it, or a local file's path or URL
    :raises RecordingError: it is none of these
    """
    path = local_path(text)
    return parse_address(text, storage_endpoints).uri if path is None else path.absolute().as_uri()


def _parse_link(text: str, storage_endpoints: Iterable[str]) -> RecordingAddress:
    scheme, _, rest = text.partition("://")
    authority, _, path = rest.partition("/")
    if "@" in authority:
        raise RecordingError("The link has a user name or password in it", recording=text, hint=_FORMS)
    try:
        host, port = _host_and_port(f"{scheme}://{authority}")
        path = unquote(path, errors="strict")
    except ValueError:
        raise RecordingError(
            "This link isn't a valid URL, or its percent-encoding isn't UTF-8", recording=text, hint=_FORMS
        ) from None
    storages = dict.fromkeys(map(_host_and_port, storage_endpoints))
    for storage, storage_port in storages:
        if port != storage_port:
            continue
        if host == storage:
            bucket, _, key = path.partition("/")
            return object_address(bucket, key)
        if host.endswith(f".{storage}"):
            return object_address(host.removesuffix(f".{storage}"), path)
    raise RecordingError(
        "The service reads recordings from its Object Storage only "
        f"({', '.join(storage for storage, _ in storages)}), and this link leads elsewhere",
        recording=text,
        hint="Copy the recording into a bucket there, or set the connection's `storage_host` if that is the right host",
    )


def _host_and_port(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url if "://" in url else f"//{url}")
    # http and https lead to the same objects: a scheme's own port counts as none.
    port = None if parts.port == _DEFAULT_PORTS.get(parts.scheme.lower()) else parts.port
    return parts.hostname or "", port
