"""Recordings in a bucket: read in pieces, listed, written; and what the storage's refusals mean for each.

A thin shell over a boto3 S3 client.
"""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_speechkit.errors import (
    ConnectionSettingsError,
    RecordingError,
    RecordingNotFoundError,
    SpeechKitError,
    StorageError,
)
from airflow_speechkit.models import RecordingAddress
from airflow_speechkit.recordings.audio.facts import AudioFacts, settle
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.recordings.filters import NO_FILTERS, Filters
from airflow_speechkit.recordings.places import StoredObject

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from botocore.exceptions import ClientError

    from airflow_speechkit.recordings.pattern import RecordingPattern
    from airflow_speechkit.settings import RecognitionSettings

log = logging.getLogger(__name__)

#: What the first request brings: every header there is, and small recordings whole.
_HEAD_BYTES = 64 * 1024
#: A request costs more than a few kilobytes.
_LEAST_BYTES = 16 * 1024
#: Pieces up to this long are kept for as long as the recording is read; longer ones are read once, front to back.
_KEPT_BYTES = 128 * 1024

_COPIED_AT_ONCE = 1024 * 1024
_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 4

_WRONG_KEY = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed",
    "PermanentRedirect",
}  # fmt: skip
_STORAGE_CONNECTION = (
    "Check the connection of the bucket (amazon provider): the static key, `endpoint_url` and `region_name` in its "
    "extra"
)
_WRITER = "Give the role `storage.uploader` on the bucket to the service account whose static key the connection has"
_READER = (
    "Give the role `storage.viewer` on the bucket to the service account whose static key the connection has, and to "
    "the one that SpeechKit is called with (for an encrypted bucket `kms.keys.encrypterDecrypter` too)"
)


@dataclass(frozen=True)
class Probe:
    """What a recording turned out to be.

    :param stored: what the storage says about it
    :param facts: what its own bytes say
    """

    stored: StoredObject
    facts: AudioFacts


class Bucket:
    """Recordings that one S3 client reaches.

    :param client: a boto3 S3 client; it may be used by several threads
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def stat(self, address: RecordingAddress, etag: str | None = None) -> StoredObject:
        """Return what the storage says about a recording; one request.

        :param etag: of the version that has to be there; None for any
        :raises RecordingError: it isn't there, was replaced, or may not be read
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        with storage_errors(address.uri):
            answer = self._client.head_object(Bucket=address.bucket, Key=address.key)
        return _stored(address, answer, answer.get("ContentLength"), etag)

    def probe(
        self,
        address: RecordingAddress,
        settings: RecognitionSettings,
        *,
        etag: str | None = None,
        exact: bool = False,
        filters: Filters = NO_FILTERS,
    ) -> Probe:
        """Read what a recording is; one or two requests, unless all of it is read.

        :param settings: what the user says about it
        :param etag: of the version that has to be there; None for any
        :param exact: whether to read all of it where its head doesn't prove its length
        :param filters: which recordings are left out; what would be left out by its length is read as with `exact`
        :raises FilteredError: it is left out by its length
        :raises RecordingError: it isn't there, was replaced, may not be read, isn't what the settings say, or isn't
            taken
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        recording = _Recording(self._client, address, etag)
        try:
            facts = read_audio(recording.read, recording.stored.size_bytes, settings, exact=exact)
            if not exact and filters.needs_proof(facts.duration_ms):
                facts = read_audio(recording.read, recording.stored.size_bytes, settings, exact=True)
            for note in facts.notes:
                log.warning("%s: %s", address.uri, note)
            filters.check(facts.duration_ms, facts.channels)
            settle(settings, facts)
            return Probe(recording.stored, facts)
        except RecordingError as error:
            error.about_recording(address.uri)
            raise

    def find(self, pattern: RecordingPattern) -> Iterator[StoredObject]:
        """List the objects that a prefix or a glob matches, by key; one request for each thousand keys listed.

        :raises RecordingError: the bucket isn't there, or may not be listed
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        with storage_errors(pattern.uri):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=pattern.bucket, Prefix=pattern.prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    if pattern.matches(entry["Key"]):
                        address = RecordingAddress(pattern.bucket, entry["Key"], pattern.conn_id)
                        yield _stored(address, entry, entry["Size"])

    def stat_if_there(self, address: RecordingAddress) -> StoredObject | None:
        """Return what the storage says about an object, None where there is none; one request.

        :raises RecordingError: it may not be read
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        try:
            return self.stat(address)
        except RecordingNotFoundError:
            return None

    def first_bytes(self, address: RecordingAddress, length: int) -> bytes:
        """Return what an object begins with; one request.

        :raises RecordingError: it isn't there, is empty, or may not be read
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        return _get(self._client, address, 0, length)[1]

    def content(self, stored: StoredObject) -> Generator[bytes, None, None]:
        """Read an object from front to back; one request.

        :param stored: the version to read
        :raises RecordingError: it was replaced or removed, or may not be read
        :raises StorageError: the storage can't be reached, is in trouble, or returns less than the whole
        """
        address, left = stored.address, stored.size_bytes
        with storage_errors(address.uri):
            answer = self._client.get_object(Bucket=address.bucket, Key=address.key, **_same(stored))
            _stored(address, answer, left, stored.etag)
            with closing(answer["Body"]) as body:
                while piece := body.read(_COPIED_AT_ONCE):
                    left -= len(piece)
                    yield piece
        if left:
            raise _too_little(stored.size_bytes - left, stored.size_bytes, address)

    def put(
        self, content: BinaryIO, address: RecordingAddress, metadata: Mapping[str, str] | None = None
    ) -> StoredObject:
        """Write an object, in parts where it is long; a few of them are in memory at a time.

        :param content: what to write, from its current place on; it has to be seekable
        :param metadata: what to put beside it, in ASCII
        :raises RecordingError: the bucket isn't there, or may not be written
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
        )
        with storage_errors(address.uri, writing=True):
            self._client.upload_fileobj(
                content, address.bucket, address.key, ExtraArgs={"Metadata": dict(metadata or {})}, Config=config
            )
        return self.stat(address)


def _stored(
    address: RecordingAddress, answer: Mapping[str, Any], size_bytes: int | None, wanted_etag: str | None = None
) -> StoredObject:
    etag = (answer.get("ETag") or "").strip('"') or None
    if wanted_etag not in (None, etag):
        raise replaced(address.uri)
    if size_bytes is None:
        raise RecordingError("The storage gives no size for this object", recording=address.uri)
    return StoredObject(address=address, etag=etag, size_bytes=size_bytes, metadata=answer.get("Metadata") or {})


def _same(stored: StoredObject) -> dict[str, str]:
    # A weak ETag never matches in If-Match.
    return {"IfMatch": f'"{stored.etag}"'} if stored.etag and not stored.etag.startswith("W/") else {}


def _too_little(found: int, wanted: int, address: RecordingAddress) -> StorageError:
    return StorageError(
        f"The storage returned {found:,} of {wanted:,} requested bytes",
        recording=address.uri,
        retry="reads them again",
    )


def _total(answer: Mapping[str, Any]) -> int | None:
    """Return the object's size as the answer to a ranged request states it, None where it doesn't."""
    if answer["ResponseMetadata"]["HTTPStatusCode"] == 200:
        # The storage has ignored the range: this is the whole object.
        return answer.get("ContentLength")
    total = answer.get("ContentRange", "").rpartition("/")[2]
    return int(total) if total.isascii() and total.isdigit() else None


class _Recording:
    """A recording that is read in pieces, all of them of the same version."""

    def __init__(self, client: Any, address: RecordingAddress, etag: str | None) -> None:
        self._client = client
        self._address = address
        # One ranged GET brings the size, the ETag and the head at once; of an empty object there is no range (416).
        answer, piece = _get(client, address, 0, _HEAD_BYTES)
        self._pieces = [(0, piece)]
        self.stored = _stored(address, answer, _total(answer), etag)

    def read(self, start: int, length: int) -> bytes:
        end = min(start + length, self.stored.size_bytes)
        if end <= start:
            return b""
        known = b""
        for begin, piece in self._pieces:
            if begin <= start < begin + len(piece):
                known += (part := piece[start - begin : end - begin])
                start += len(part)
        if start == end:
            return known
        return known + self._fetch(start, max(end, min(start + _LEAST_BYTES, self.stored.size_bytes)))[: end - start]

    def _fetch(self, start: int, end: int) -> bytes:
        answer, piece = _get(self._client, self._address, start, end - start, **_same(self.stored))
        _stored(self._address, answer, 0, self.stored.etag)
        if len(piece) != end - start:
            raise _too_little(len(piece), end - start, self._address)
        if len(piece) <= _KEPT_BYTES:
            self._pieces.append((start, piece))
        return piece


def _get(client: Any, address: RecordingAddress, start: int, length: int, **same: str) -> tuple[dict[str, Any], bytes]:
    with storage_errors(address.uri):
        answer = client.get_object(
            Bucket=address.bucket, Key=address.key, Range=f"bytes={start}-{start + length - 1}", **same
        )
        with closing(answer["Body"]) as body:
            if start and answer["ResponseMetadata"]["HTTPStatusCode"] == 200:
                raise RecordingError(
                    "The storage ignores Range requests, so this recording can't be read in parts",
                    recording=address.uri,
                    hint="Check `endpoint_url` in the connection's extra: the storage must support Range requests",
                )
            # Not every storage keeps to the range.
            return answer, bytes(body.read(length))


@contextmanager
def storage_errors(uri: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what boto3 raises into errors that say what to do.

    :param uri: the recording (or the pattern) that it is about
    :param writing: whether it is about writing it
    :raises RecordingError: the object or its bucket isn't there, or may not be read
    :raises ConnectionSettingsError: the storage refuses the key
    :raises StorageError: the storage can't be reached, or is in trouble
    """
    from botocore import exceptions
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except SpeechKitError:
        raise
    except exceptions.ClientError as error:
        raise _refusal(error, uri, writing) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise ConnectionSettingsError(
            "The connection has no key for the bucket", recording=uri, hint=_STORAGE_CONNECTION
        ) from None
    except (exceptions.BotoCoreError, HTTPError, OSError, ResponseParserError, ValueError) as error:
        # The exception's own text may hold the link that was asked for, with its signature.
        raise StorageError(
            f"The bucket can't be reached, or its answer can't be read ({type(error).__name__})",
            recording=uri,
            hint="If this lasts, check `endpoint_url` in the connection's extra",
            retry="reads the bucket again",
        ) from None


def replaced(uri: str) -> RecordingError:
    """Return the error about a recording that has another version now."""
    return RecordingError(
        "The recording was replaced after it was found", recording=uri, retry="submits the new one", retry_can_help=True
    )


def _refusal(error: ClientError, uri: str, writing: bool) -> SpeechKitError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return RecordingError("There is no such bucket", recording=uri, hint=f"Check its name. {_STORAGE_CONNECTION}")
    if code in ("NoSuchKey", "NoSuchVersion", "NotFound", "404"):
        # The answer to HEAD has no body, and doesn't say which of the two is missing.
        what = "There is no such object" if code.startswith("NoSuch") else "There is no such object, or no such bucket"
        return RecordingNotFoundError(
            what, recording=uri, hint="Check the bucket and the key; blanks at its ends are part of it"
        )
    if code in _WRONG_KEY or status in (301, 307, 401):
        return ConnectionSettingsError(
            f"The storage refuses the key or the region ({code})", recording=uri, hint=_STORAGE_CONNECTION
        )
    if status == 403:
        what = "Writing is not permitted (HTTP 403)" if writing else "Reading is not permitted (HTTP 403)"
        return RecordingError(what, recording=uri, hint=_WRITER if writing else _READER)
    if status == 416:
        return RecordingError("The object is empty (0 bytes)", recording=uri, hint="Upload the recording again")
    if status == 412:
        return replaced(uri)
    if status and status < 500 and status != 429:
        return RecordingError(f"The storage refused the recording ({code}, HTTP {status})", recording=uri)
    return StorageError(
        f"The storage fails ({code or 'no code'}, HTTP {status})", recording=uri, retry="reads the bucket again"
    )
