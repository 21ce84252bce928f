"""The shapes that cross rooms: a recording, its submission, the answer; and operation ids."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - the archive's codec resolves the annotations of a Submission
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_speechkit.errors import RecordingError, SettingsError
from airflow_speechkit.settings import ApiVersion, RecognitionSettings

if TYPE_CHECKING:
    from airflow_speechkit.errors import SpeechKitError

#: The service's ids have 20 characters, synthetic ones (`archive.layout`) 73 at most. Safe in paths and URLs.
OPERATION_ID = r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"

#: The recognition id of a recording that was submitted in parts is this and a hash.
PARTS_PREFIX = "parts-"


def is_operation_id(text: object) -> bool:
    """Tell whether this has the form of an operation id."""
    return isinstance(text, str) and re.fullmatch(OPERATION_ID, text) is not None


def operation_ids(given: Any) -> list[str]:
    """Return an upstream task's output as a list, each id once, in the order given.

    A mapped task that was given lists returns a sequence of lists: one level is flattened.

    :param given: an id, a list of ids, a lazy sequence, or a sequence of lists
    :return: at least one id
    :raises SettingsError: there is no id, or something else
    """
    found: dict[str, None] = {}
    for one in _items(given):
        for each in _items(one):
            operation_id = each.strip() if isinstance(each, str) else None
            if operation_id == "None" or not is_operation_id(operation_id):
                what = f"a {type(each).__name__}" if operation_id is None else repr(operation_id[:100])
                raise SettingsError(
                    f"`operation_id` has {what} in place of an operation id",
                    hint="Give it `submit.output`, an id such as e03sncdp55uvg2tfpso1, or a list of ids. None means "
                    "that the upstream task returned nothing",
                )
            found[str(operation_id)] = None
    if not found:
        raise SettingsError("`operation_id` is an empty list", hint="Give it at least one operation id")
    return list(found)


def _items(given: Any) -> Iterable[Any]:
    return (given,) if isinstance(given, str) or not isinstance(given, Iterable) else given


def version_of(operation: Mapping[str, Any], *, finished: bool) -> ApiVersion:
    """Return the API that an Operation came from.

    :param operation: its JSON, with the ``id``
    :param finished: whether it is done without an error
    """
    # v2 has its result inside and no description, v3 the other way round (speechkit-api §1.4, §2.3).
    response = operation.get("response")
    if isinstance(response, dict) and "stt.v2" in str(response.get("@type")):
        return ApiVersion.V2
    description = operation.get("description")
    if isinstance(description, str) and "v3" in description.lower():
        return ApiVersion.V3
    if str(operation["id"]).startswith("f8d") or (finished and response is None):
        return ApiVersion.V3
    return ApiVersion.V2


@dataclass(frozen=True)
class RecordingAddress:
    """Where an object is in Object Storage. `recordings.address` checks that such an object can exist.

    :param bucket: the bucket's name
    :param key: the object's key as it is, not percent-encoded
    :param conn_id: the Airflow connection to read the bucket with, where the address names one
    """

    bucket: str
    key: str
    conn_id: str | None = None

    @property
    def uri(self) -> str:
        """``s3://bucket/key`` with the key as it is: for messages, the archive and tables."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def text(self) -> str:
        """``s3://bucket/key`` or ``s3://conn_id@bucket/key``: `parse_address` reads it back."""
        return f"s3://{self.conn_id + '@' if self.conn_id else ''}{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rstrip("/").rpartition("/")[2]

    def link(self, storage_endpoint: str) -> str:
        """Return the https link that the service takes: path-style, the key percent-encoded.

        Path-style, because a bucket whose name has dots breaks TLS in the virtual-host form. Without any query: the
        service ignores it, and a presigned link's query is a credential.

        :param storage_endpoint: URL of the storage that the service reads from
        :raises RecordingError: the key has ``.`` or ``..`` as a part, which HTTP clients resolve as in a path
        """
        if {".", ".."} & set(self.key.split("/")):
            raise RecordingError(
                "A key with '.' or '..' between slashes can't be written as a link: HTTP clients would resolve it",
                recording=self.uri,
                hint="Copy the object to another key",
            )
        return f"{storage_endpoint.rstrip('/')}/{quote(self.bucket)}/{quote(self.key, safe='/')}"


@dataclass(frozen=True)
class ObjectVersion:
    """An object in Object Storage, in one version.

    :param address: where it is
    :param etag: its ETag, if the bucket gives one
    """

    address: RecordingAddress
    etag: str | None


class FilterReason(StrEnum):
    """Why a recording is left out."""

    TOO_SHORT = "too_short"  #: shorter than `min_duration_s`
    TOO_LONG = "too_long"  #: longer than `max_duration_s`
    SILENT = "silent"  #: no sample of any channel is louder than the noise of an idle line


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the parts that a recording is submitted in which is longer than the service takes.

    :param number: which, counted from 1
    :param starts_ms: where each part begins in the recording
    :param whole_variant: the variant of the whole recording
    :param fingerprints: those of all parts, in order; empty until they are submitted
    """

    number: int
    starts_ms: tuple[int, ...]
    whole_variant: str = ""
    fingerprints: tuple[str, ...] = ()

    @property
    def of(self) -> int:
        """How many parts there are."""
        return len(self.starts_ms)

    @property
    def start_ms(self) -> int:
        """Where it begins in the recording."""
        return self.starts_ms[self.number - 1]

    @property
    def variant(self) -> str:
        """What tells it from other parts, and from those of another cut."""
        return f"{self.whole_variant} part {self.number} of {self.of} from {self.start_ms} ms".lstrip()

    @property
    def recognition_id(self) -> str:
        """The id of the whole recording in the tables. It stays when a part is submitted again."""
        return f"{PARTS_PREFIX}{hashlib.sha256(' '.join(self.fingerprints).encode()).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording, as it was found; or a pair, whose address, version and size are those of its first side.

    :param audio_uri: ``s3://bucket/key`` without a connection id, or the ``file://`` URL of a local file
    :param version: its ETag; of a local file a hash of its bytes
    :param settings: what is asked for. Probing fills in what is read from the recording
    :param variant: what of it is submitted, if not all, or with what; the ledger keeps a recording's variants apart
    :param content_hash: a hash of its bytes, if the ledger identifies it by them instead of by address and version
    :param address: the object to read; None for a local file, which is sent along with the request
    :param other: the second side of a pair: the other side of the call
    :param part: which part of the recording this is, if it is submitted in several
    :param starts_ms: where its parts begin, if an earlier run has cut it
    :param parts: those that it has to be submitted in, if it is too long; probing fills this in
    :param copy: the object that the service reads in its place, if it had to be converted
    :param link: the https link that the service gets
    :param checked_at: when `version` was last read, UTC
    :param size_bytes: its size
    :param duration_ms: its length, where it is known
    :param channels: its channels; None until it is probed
    :param billed_seconds: what the service will charge for, where the length is known
    :param side_ms: of a pair: how long each side is, once that is known
    :param labels: the user's own
    :param filter_reason: why it is left out if it has to be sent
    :param error: why it can't be submitted, where that is known already
    """

    audio_uri: str
    version: str | None
    settings: RecognitionSettings
    variant: str = ""
    content_hash: str | None = None
    address: RecordingAddress | None = None
    other: ObjectVersion | None = None
    part: Part | None = None
    starts_ms: tuple[int, ...] = ()
    parts: tuple[Recording, ...] = ()
    copy: ObjectVersion | None = None
    link: str = ""
    checked_at: datetime | None = None
    size_bytes: int | None = None
    duration_ms: int | None = None
    channels: int | None = None
    billed_seconds: int | None = None
    side_ms: Sequence[int] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    filter_reason: FilterReason | None = None
    error: SpeechKitError | None = None

    @property
    def submitted_uri(self) -> str | None:
        """``s3://bucket/key`` of what the service reads, where it isn't the recording itself."""
        return self.copy.address.uri if self.copy else None

    @property
    def paired_uri(self) -> str | None:
        """``s3://bucket/key`` of the second side of a pair."""
        return self.other.address.uri if self.other else None

    @property
    def own_variant(self) -> str:
        """The variant, without the other side of a pair."""
        return self.variant if self.other is None else self.variant.partition("pair=")[0].strip()

    @property
    def is_versioned(self) -> bool:
        """Whether a replacement would be detected, of either side of a pair."""
        return bool(self.version) and (self.other is None or bool(self.other.etag))


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One recording as it was submitted.

    :param operation_id: the service's id of the operation
    :param fingerprint: identifies address and version, or the content, and settings in the ledger
    :param audio_uri: ``s3://bucket/key`` of the recording, without any connection id or query
    :param submitted_uri: the converted copy that the service reads in its place, if there is one
    :param paired_uri: ``s3://bucket/key`` of the recording that became its second channel, if it is a pair
    :param part: which part of the recording it is, if that was submitted in several
    :param etag: the recording's ETag or version id when it was submitted
    :param size_bytes: its size
    :param duration_ms: its length, if it is known
    :param channels: its channels, if they are known
    :param billed_seconds: what the service will charge for, if the length is known
    :param settings: including what was read from the recording
    :param labels: the user's own: a call id, a direction, channel roles
    :param submitted_at: UTC
    :param filter_reason: why it was left out, and not submitted
    :param speechkit_conn_id: the connection it went through
    :param dag_id: this and the next three: the task instance that submitted it
    :param content_hash: a hash of its bytes, if it was submitted with ``identity="content"``
    :param recognition_id: its id in the tables, if that isn't the operation's: the operation is another recording's
        with the same bytes
    """

    operation_id: str
    fingerprint: str
    audio_uri: str
    settings: RecognitionSettings
    submitted_at: datetime
    submitted_uri: str | None = None
    paired_uri: str | None = None
    part: Part | None = None
    etag: str | None = None
    size_bytes: int | None = None
    duration_ms: int | None = None
    channels: int | None = None
    billed_seconds: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    filter_reason: FilterReason | None = None
    speechkit_conn_id: str | None = None
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None
    content_hash: str | None = None
    recognition_id: str | None = None


@dataclass(frozen=True)
class Answer:
    """The service's answer about one ended operation, byte for byte.

    :param operation_id: the operation
    :param api_version: the API that it came from
    :param operation: body of the Operation; with v2 the result is inside
    :param recognition: v3: body of ``getRecognition``, concatenated JSON objects; None if the operation failed
    """

    operation_id: str
    api_version: ApiVersion
    # Transcripts: a repr ends up in logs and exceptions.
    operation: bytes = field(repr=False)
    recognition: bytes | None = field(default=None, repr=False)
