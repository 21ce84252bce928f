"""A local recording on its way into a bucket: unwrapped for the API that takes no WAV, its key named by its content."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from airflow_speechkit.api.submission import check_inline
from airflow_speechkit.errors import InvalidRequestError, RecordingError, UnsupportedFormatError
from airflow_speechkit.models import RecordingAddress
from airflow_speechkit.recordings.address import object_address
from airflow_speechkit.recordings.audio.facts import AudioFacts, samples_to_ms, settle
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.recordings.bucket import Probe
from airflow_speechkit.recordings.conversion.convert import temporary_file
from airflow_speechkit.recordings.conversion.copies import CopyFolder, Original
from airflow_speechkit.recordings.conversion.plan import check_audio_stream
from airflow_speechkit.recordings.conversion.silence import check_sound
from airflow_speechkit.recordings.pattern import has_magic, is_pattern, parse_pattern
from airflow_speechkit.settings import SAMPLE_RATES_HERTZ, ApiVersion, AudioEncoding, RecognitionSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from airflow_speechkit.recordings.filters import Filters
    from airflow_speechkit.recordings.places import StoredObject

log = logging.getLogger(__name__)

_COPIED_AT_ONCE = 1024 * 1024
#: 128 bits: no two recordings have the same.
_DIGITS_IN_KEY = 32


def parse_upload_to(text: str) -> RecordingAddress:
    """Read ``s3://bucket/prefix`` or ``s3://conn_id@bucket/prefix``, with or without a slash at its end.

    :return: the folder where local recordings are put: its key is empty, or has a slash at its end
    :raises RecordingError: it isn't one
    """
    folder = text if text.endswith("/") else f"{text}/"
    if not is_pattern(folder) or has_magic(folder.partition("://")[2]):
        raise RecordingError(
            "`upload_to` isn't a folder in a bucket", recording=text, hint="Write it as s3://bucket/prefix/"
        )
    pattern = parse_pattern(folder)
    return RecordingAddress(pattern.bucket, pattern.glob, pattern.conn_id)


def read_local(path: Path, settings: RecognitionSettings, filters: Filters) -> AudioFacts:
    """Return what a local recording is, which is sent along with the request.

    :param filters: which recordings are left out
    :raises FilteredError: it is left out
    :raises RecordingError: it isn't there, can't be read, or isn't taken
    """
    with opened(path) as file:
        facts = read_as_uploaded(file, path, settings)
        filters.check(facts.duration_ms, facts.channels)
        check_inline(facts.size_bytes)
        if filters.skip_silent:
            check_sound(facts, _pieces(file))
        return facts


def read_whole(path: Path, most: int = -1) -> bytes:
    """Return a local file's bytes.

    :param most: how many of them, if not all
    :raises RecordingError: it isn't there, or can't be read
    """
    with opened(path) as file:
        return file.read(most)


def hash_of_file(path: Path) -> str:
    """Return a hash of a local file's bytes, in hexadecimal.

    :raises RecordingError: it isn't there, or can't be read
    """
    with opened(path) as file:
        return _digest(file)


def upload_local(folder: CopyFolder, path: Path) -> Probe:
    """Put a local recording into a bucket.

    For API v2 a 16-bit PCM WAV at 8, 16 or 48 kHz goes without its header, as LPCM. What the API doesn't take is
    converted. The key holds a hash of what is put there, or of what is converted, so the same file always gets the same
    key, and one that is there already isn't written again: its ETag stays, so the ledger finds it again.
    Memory: ten parts of 8 MB at most, however long the recording. To unwrap or convert takes disk space for temporary
    files.

    :param folder: where to put it, and what to convert and to leave out
    :param path: the local file
    :return: the recording in the bucket
    :raises RecordingError: it isn't there, can't be read, isn't taken, or changed while it was read
    :raises FilteredError: it is left out
    :raises StorageError: the storage can't be reached, or is in trouble
    """
    with opened(path) as file, ExitStack() as stack:
        content = file
        before = _state(path)
        try:
            facts = read_as_uploaded(file, path, folder.settings)
            folder.filters.check(facts.duration_ms, facts.channels)
            settle(folder.settings, facts)
        except UnsupportedFormatError as error:
            if not folder.takes(error):
                raise
            return _upload_converted(folder, path, file, error)
        check_audio_stream(folder.audio_stream, 1)
        if is_unwrapped(facts):
            content = stack.enter_context(samples(file, facts, str(path)))
            facts = replace(facts, data_offset=0)
        if folder.filters.skip_silent:
            check_sound(facts, _pieces(content))
        suffix = ".lpcm" if facts.encoding is AudioEncoding.LINEAR16_PCM else path.suffix
        return Probe(_put(folder, path, before, content, suffix), facts)


def upload_as_it_is(folder: CopyFolder, path: Path) -> StoredObject:
    """Put a local file into a bucket that is only read to make a copy. Its key is named as in `upload_local`.

    :param folder: where to put it
    :param path: the local file
    :raises RecordingError: it isn't there, can't be read, or changed while it was read
    :raises StorageError: the storage can't be reached, or is in trouble
    """
    with opened(path) as file:
        return _put(folder, path, _state(path), file, path.suffix)


def _put(
    folder: CopyFolder, path: Path, before: tuple[int, int] | None, content: BinaryIO, suffix: str
) -> StoredObject:
    """Put what is uploaded of a file into a bucket, unless it is there already."""
    where = folder.folder
    key = f"{where.key}{path.stem}-{_digest(content)[:_DIGITS_IN_KEY]}{suffix}"
    size_bytes = content.tell()
    content.seek(0)
    address = object_address(where.bucket, key, where.conn_id)
    stored = folder.bucket.stat_if_there(address)
    if stored is None or stored.size_bytes != size_bytes:
        stored = folder.bucket.put(content, address)
        _check_unchanged(folder, path, before, stored)
    return stored


def _upload_converted(folder: CopyFolder, path: Path, file: BinaryIO, reason: UnsupportedFormatError) -> Probe:
    before = _state(path)
    original = Original(path.stem, _digest(file), str(path))
    made = folder.find(original)
    if made is None:
        made = folder.make(original, path, reason)
        _check_unchanged(folder, path, before, made.stored)
    return Probe(made.stored, made.facts)


def _check_unchanged(folder: CopyFolder, path: Path, before: tuple[int, int] | None, stored: StoredObject) -> None:
    if _state(path) != before:
        # The next upload replaces an empty object. Deleting may not be permitted.
        folder.bucket.put(io.BytesIO(), stored.address)
        raise RecordingError(
            "The file was changed while it was uploaded",
            recording=str(path),
            retry="uploads the new content",
            retry_can_help=True,
        )


def _state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _pieces(file: BinaryIO) -> Generator[bytes, None, None]:
    file.seek(0)
    while piece := file.read(_COPIED_AT_ONCE):
        yield piece


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a local recording. Errors that are raised while it is open name it.

    :raises RecordingError: it isn't there, can't be read, or isn't a regular file
    """
    try:
        # To open a pipe would block.
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecordingError("This isn't a regular file")
        with path.open("rb") as file:
            yield file
    except InvalidRequestError as error:
        error.about_recording(str(path))
        raise
    except OSError as error:
        raise RecordingError(
            f"The file can't be read ({error.strerror})",
            recording=str(path),
            hint="Check that the file exists on this worker and can be read",
        ) from None


@contextmanager
def samples(file: BinaryIO, facts: AudioFacts, name: str) -> Iterator[BinaryIO]:
    """Copy the samples of a WAV, without its header and what follows them, into a temporary file.

    :param file: the WAV
    :param facts: what `read_as_uploaded` returned
    :param name: its name in messages
    :raises StorageError: the disk is full
    """
    with temporary_file(name) as copy:
        file.seek(facts.data_offset)
        shutil.copyfileobj(file, copy, _COPIED_AT_ONCE)
        copy.truncate(facts.data_bytes)
        yield copy


def read_as_uploaded(file: BinaryIO, path: Path, settings: RecognitionSettings) -> AudioFacts:
    """Return what is uploaded of a local recording that isn't converted.

    :raises RecordingError: it is empty, cut off, or nothing that the API takes
    """

    def read(start: int, length: int) -> bytes:
        file.seek(start)
        return file.read(length)

    facts = read_audio(read, os.fstat(file.fileno()).st_size, settings, exact=True)
    for note in facts.notes:
        log.warning("%s: %s", path, note)
    if facts.encoding is AudioEncoding.WAV and settings.api_version is ApiVersion.V2:
        return _unwrapped(facts)
    return facts


def is_unwrapped(facts: AudioFacts) -> bool:
    """Return whether only the samples of a WAV are uploaded, by what `read_as_uploaded` returned."""
    return facts.encoding is AudioEncoding.LINEAR16_PCM and facts.data_offset > 0


def _unwrapped(facts: AudioFacts) -> AudioFacts:
    if facts.sample_rate_hertz not in SAMPLE_RATES_HERTZ:
        raise UnsupportedFormatError(
            f"The WAV has {facts.sample_rate_hertz} Hz, and API v2 takes samples at 8000, 16000 or 48000 Hz only",
            hint="Install the extra `audio`, and it is converted; or use api_version='v3'",
        )
    length = facts.data_bytes
    return replace(
        facts,
        encoding=AudioEncoding.LINEAR16_PCM,
        # The service gets this rate and these channels, even if the header contradicts itself.
        duration_ms=samples_to_ms(length // (2 * facts.channels), facts.sample_rate_hertz),
        longest_ms=None,
        size_bytes=length,
        data_bytes=length,
    )
