"""A local recording on its way into a bucket: unwrapped for the API that takes no WAV, its key named by its content."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat as file_kinds
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.address import check_bucket, object_address, split_s3
from airflow_speechkit.recordings.audio import AudioFacts, read_audio, samples_to_ms, settle
from airflow_speechkit.recordings.bucket import Probe
from airflow_speechkit.recordings.pattern import has_magic
from airflow_speechkit.settings import SAMPLE_RATES_HERTZ, ApiVersion, AudioEncoding, RecognitionSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_speechkit.models import RecordingAddress
    from airflow_speechkit.recordings.bucket import Bucket

log = logging.getLogger(__name__)

_HASHED_AT_ONCE = 1024 * 1024
#: 128 bits tell any two recordings apart.
_DIGITS_IN_KEY = 32
_SUFFIX = {AudioEncoding.LINEAR16_PCM: ".lpcm"}


@dataclass(frozen=True)
class UploadFolder:
    """Where local recordings are put.

    :param bucket: the bucket's name
    :param prefix: what their keys begin with; empty, or with a slash at its end
    :param conn_id: the Airflow connection to write with, where it names one
    """

    bucket: str
    prefix: str
    conn_id: str | None = None


def parse_upload_to(text: str) -> UploadFolder:
    """Read ``s3://bucket/prefix`` or ``s3://conn_id@bucket/prefix``, with or without a slash at its end.

    :raises RecordingError: it isn't one
    """
    scheme, separator, rest = text.partition("://")
    conn_id, bucket, prefix = split_s3(rest, text) if separator and scheme.lower() == "s3" else (None, "", "")
    if not bucket or has_magic(prefix):
        raise RecordingError(
            "`upload_to` isn't a folder in a bucket",
            recording=text.partition("?")[0] if "@" not in text else None,
            hint="Write it as s3://bucket/prefix/",
        )
    check_bucket(bucket, text)
    return UploadFolder(bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/", conn_id)


def read_local(path: Path, settings: RecognitionSettings) -> AudioFacts:
    """Read what a local recording is.

    :raises RecordingError: it isn't there, can't be read, or isn't taken
    """
    with _opened(path) as file:
        return _read(file, path, settings)


def read_whole(path: Path) -> bytes:
    """Return a local recording's bytes.

    :raises RecordingError: it isn't there, or can't be read
    """
    with _opened(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(path, error) from None


def upload_local(bucket: Bucket, path: Path, folder: UploadFolder, settings: RecognitionSettings) -> Probe:
    """Put a local recording into a bucket, and settle its settings.

    For API v2 a 16-bit PCM WAV at 8, 16 or 48 kHz goes without its header, as LPCM. The key holds a hash of what is put
    there, so the same file always gets the same key, and one that is there already isn't written again: its ETag stays,
    and with it what the ledger knows about it. Memory: ten parts of 8 MB at most, however long the recording.

    :param bucket: the bucket's client
    :param path: the local file
    :param folder: where to put it
    :param settings: what to recognise and how
    :return: the recording in the bucket
    :raises RecordingError: it isn't there, can't be read, isn't taken, or changed while it was read
    :raises StorageError: the storage can't be reached, or is in trouble
    """
    with _opened(path) as file:
        facts = _read(file, path, settings)
        offset = 0
        if facts.encoding is AudioEncoding.WAV and settings.api_version is ApiVersion.V2:
            offset, facts = facts.data_offset, _unwrapped(facts, path)
        try:
            settled = settle(settings, facts)
        except RecordingError as error:
            error.about_recording(str(path))
            raise
        piece = Piece(file, offset, facts.size_bytes)
        before = _identity(file)
        address = object_address(folder.bucket, _key(folder, path, facts, _digest(piece)), folder.conn_id)
        stat = bucket.stat_if_there(address)
        if stat is None or stat.size != facts.size_bytes:
            stat = bucket.put(piece, address)
            if _identity(file) != before:
                _take_back(bucket, address)
                raise RecordingError(
                    "The file was changed while it was uploaded",
                    recording=str(path),
                    retry="uploads it anew",
                    retry_can_help=True,
                )
    return Probe(address, stat, facts, settled)


class Piece(io.RawIOBase):
    """A part of a file, as a file of its own.

    :param file: the whole file
    :param offset: where the part begins
    :param length: how long it is, in bytes
    """

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self._file = file
        self._offset = offset
        self._length = length
        self._place = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from any place on."""
        return True

    def tell(self) -> int:
        """Return the place that is read next."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._length}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return the bytes from the place on.

        :raises RecordingError: the file can't be read
        """
        left = max(0, self._length - self._place)
        wanted = left if size is None or size < 0 else min(size, left)
        try:
            self._file.seek(self._offset + self._place)
            data = self._file.read(wanted)
        except OSError as error:
            raise _unreadable(self._file.name, error) from None
        self._place += len(data)
        return data


class _LocalRecording:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        return self._file.read(length)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from None
    with file:
        if not file_kinds.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise RecordingError("This is no regular file", recording=str(path))
        yield file


def _take_back(bucket: Bucket, address: RecordingAddress) -> None:
    """Leave nothing that the next upload would take for the recording whose hash its key has."""
    try:
        bucket.remove(address)
    except RecordingError:
        # Whoever may upload need not be allowed to delete: an empty object has another size than any recording.
        bucket.put(io.BytesIO(), address)


def _unreadable(path: Path | str, error: OSError) -> RecordingError:
    return RecordingError(
        f"The file can't be read ({error.strerror})", recording=str(path), hint="Is it there, on this worker?"
    )


def _read(file: BinaryIO, path: Path, settings: RecognitionSettings) -> AudioFacts:
    try:
        facts = read_audio(_LocalRecording(file), os.fstat(file.fileno()).st_size, settings, name=path.name, exact=True)
    except RecordingError as error:
        error.about_recording(str(path))
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    for note in facts.notes:
        log.warning("%s: %s", path, note)
    return facts


def _unwrapped(facts: AudioFacts, path: Path) -> AudioFacts:
    if facts.sample_rate_hertz not in SAMPLE_RATES_HERTZ:
        raise RecordingError(
            f"The WAV has {facts.sample_rate_hertz} Hz, and API v2 takes samples at 8000, 16000 or 48000 Hz only",
            recording=str(path),
            hint="Resample it (ffmpeg -i IN -ar 16000 OUT.wav), encode it as OggOpus, or use api_version='v3'",
        )
    length = facts.data_bytes or 0
    return replace(
        facts,
        encoding=AudioEncoding.LINEAR16_PCM,
        # Whatever its header got wrong: the service is told this rate and these channels.
        duration_ms=samples_to_ms(length // (2 * facts.channels), facts.sample_rate_hertz),
        longest_ms=None,
        size_bytes=length,
        data_offset=0,
        data_bytes=length,
    )


def _digest(piece: Piece) -> str:
    digest = hashlib.sha256()
    while block := piece.read(_HASHED_AT_ONCE):
        digest.update(block)
    piece.seek(0)
    return digest.hexdigest()


def _key(folder: UploadFolder, path: Path, facts: AudioFacts, digest: str) -> str:
    suffix = _SUFFIX.get(facts.encoding, path.suffix)
    return f"{folder.prefix}{path.stem}-{digest[:_DIGITS_IN_KEY]}{suffix}"


def _identity(file: BinaryIO) -> tuple[int, int]:
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns
