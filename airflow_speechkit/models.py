"""The shapes that cross rooms: a recording, its submission, the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003 - the archive's codec resolves the annotations of a Submission
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003
from typing import TYPE_CHECKING, Any

from airflow_speechkit.settings import ApiVersion, RecognitionSettings

if TYPE_CHECKING:
    from airflow_speechkit.errors import SpeechKitError

#: The service's ids have 20 characters, those that stand for refused recordings 72. Safe in paths and URLs.
_OPERATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", re.ASCII)


def is_operation_id(text: object) -> bool:
    """Tell whether this can be the id of an operation."""
    return isinstance(text, str) and _OPERATION_ID.fullmatch(text) is not None


def version_of(operation: Mapping[str, Any], *, finished: bool) -> ApiVersion:
    """Tell which API an Operation came from.

    :param operation: what it says, with its ``id``
    :param finished: whether it is done, and not with an error
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


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording that somebody wants to have recognised.

    :param audio_uri: ``s3://bucket/key``, without a connection id
    :param version: its ETag or version id
    :param settings: what is asked for. What has to be read from the recording may still be open: see
        `Submitter`'s `prepare`
    :param link: the https link that the service gets
    :param size_bytes: its size
    :param duration_ms: its length, where it can be told
    :param channels: its channels, where they can be told
    :param billed_seconds: what the service will charge for, where it can be told
    :param labels: the user's own
    :param error: why it can't be submitted, where that is known already
    :param address: where a later visit finds it again: its address with the storage's connection
    """

    audio_uri: str
    version: str | None
    settings: RecognitionSettings
    link: str = ""
    size_bytes: int | None = None
    duration_ms: int | None = None
    channels: int | None = None
    billed_seconds: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    error: SpeechKitError | None = None
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One recording as it was handed to the service.

    :param operation_id: what the service called it
    :param fingerprint: of (recording's address, version, settings): what the ledger keys on
    :param audio_uri: ``s3://bucket/key`` of the recording, without any connection id or query
    :param etag: the recording's ETag or version id when it was submitted
    :param size_bytes: its size
    :param duration_ms: its length, where it can be told
    :param channels: its channels, where they can be told
    :param billed_seconds: what the service will charge for, where the length can be told
    :param settings: what was asked for, with what was read from the recording filled in
    :param labels: the user's own: a call id, a direction, channel roles
    :param submitted_at: UTC
    :param speechkit_conn_id: the connection it went through
    :param dag_id: and so on: the task instance that submitted it
    """

    operation_id: str
    fingerprint: str
    audio_uri: str
    settings: RecognitionSettings
    submitted_at: datetime
    etag: str | None = None
    size_bytes: int | None = None
    duration_ms: int | None = None
    channels: int | None = None
    billed_seconds: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    speechkit_conn_id: str | None = None
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None


@dataclass(frozen=True)
class Answer:
    """What the service said about one finished operation, as it said it.

    :param operation_id: the operation
    :param api_version: the API it came from: downstream of here nobody has to be told
    :param operation: body of the Operation; with v2 the result is inside
    :param recognition: v3: body of ``getRecognition``, concatenated JSON objects; None where the operation failed
    """

    operation_id: str
    api_version: ApiVersion
    # Transcripts: a repr ends up in logs and exceptions.
    operation: bytes = field(repr=False)
    recognition: bytes | None = field(default=None, repr=False)
