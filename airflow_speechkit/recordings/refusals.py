"""What the storage's refusals mean for a recording, and what a person can do about each."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_speechkit.errors import (
    ConnectionSettingsError,
    RecordingError,
    RecordingNotFoundError,
    SpeechKitError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.exceptions import ClientError

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


@contextmanager
def storage_errors(uri: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what boto3 raises into errors that say what to do.

    :param uri: the recording (or the pattern) that it is about
    :param writing: whether it is about writing it
    :raises RecordingError: the object or its bucket isn't there, or may not be read
    :raises ConnectionSettingsError: the storage doesn't know the key
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
    except exceptions.ParamValidationError:
        raise RecordingError("Object Storage doesn't allow such a bucket or key", recording=uri) from None
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
        "The recording was replaced after it was found",
        recording=uri,
        retry="submits the new one",
        retry_can_help=True,
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
        return RecordingError("The recording is empty (0 bytes)", recording=uri, hint="Upload the recording again")
    if status == 412:
        return replaced(uri)
    if status and status < 500 and status != 429:
        return RecordingError(f"The storage refused the recording ({code}, HTTP {status})", recording=uri)
    return StorageError(
        f"The storage fails ({code or 'no code'}, HTTP {status})", recording=uri, retry="reads the bucket again"
    )
