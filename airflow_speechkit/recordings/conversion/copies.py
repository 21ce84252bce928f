"""Converted copies in a bucket: each source is converted and uploaded once."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import TooLongError
from airflow_speechkit.models import FilterReason
from airflow_speechkit.recordings.address import object_address
from airflow_speechkit.recordings.audio.facts import AudioFacts
from airflow_speechkit.recordings.conversion.convert import OnTruncated, converted, joined, temporary_file, undecodable
from airflow_speechkit.recordings.conversion.decoding import lpcm_in, open_source
from airflow_speechkit.recordings.conversion.joining import open_pair
from airflow_speechkit.recordings.conversion.plan import EXTENSIONS, WAV_HEADER_BYTES, lossless_encoding
from airflow_speechkit.recordings.conversion.silence import is_silent_content
from airflow_speechkit.recordings.conversion.split import converted_parts
from airflow_speechkit.recordings.filters import NO_FILTERS, FilteredError, Filters
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from airflow_speechkit.errors import UnsupportedFormatError
    from airflow_speechkit.models import RecordingAddress
    from airflow_speechkit.recordings.bucket import Bucket
    from airflow_speechkit.recordings.conversion.decoding import Source
    from airflow_speechkit.recordings.conversion.joining import JoinedSource
    from airflow_speechkit.recordings.conversion.plan import Conversion
    from airflow_speechkit.recordings.places import StoredObject
    from airflow_speechkit.settings import ApiVersion, RecognitionSettings

log = logging.getLogger(__name__)

#: Part of each copy's name. A conversion that gives other sound gets another number.
_CONVERSION = "1"
#: 128 bits tell any two recordings apart.
_DIGITS_IN_KEY = 32
_COPY = re.compile(rf".+-[0-9a-f]{{{_DIGITS_IN_KEY}}}(-part[0-9]+)?\.(lpcm|ogg|wav)", re.DOTALL)
#: A conversion takes all of a core, and disk space.
_SLOTS = BoundedSemaphore(os.cpu_count() or 1)
_FACTS = ("sample_rate_hertz", "channels", "duration_ms")
_SIDES = ("first-ms", "second-ms")


@dataclass(frozen=True)
class Copy:
    """A converted copy of a recording, or of a part of it.

    :param stored: what the storage says about it
    :param facts: what it is
    :param start_ms: where it begins in the recording
    :param of: how many parts there are
    """

    stored: StoredObject
    facts: AudioFacts
    start_ms: int = 0
    of: int = 1


@dataclass(frozen=True)
class CopyFolder:
    """Where the converted copies of recordings are. Safe to share between threads.

    :param bucket: the bucket's client
    :param folder: the folder in the bucket: its key is empty, or has a slash at its end
    :param settings: what the user asks for, of the API that will read the copies
    :param audio_stream: which audio stream of a file to take, counted from 1; by default the one that a player chooses
    :param on_truncated: what to do where a recording is cut off or damaged
    :param filters: which recordings are left out
    :param split: whether to cut what is longer than the service takes
    """

    bucket: Bucket
    folder: RecordingAddress
    settings: RecognitionSettings
    audio_stream: int | None = None
    on_truncated: OnTruncated = OnTruncated.FAIL
    filters: Filters = NO_FILTERS
    split: bool = False

    @property
    def api_version(self) -> ApiVersion:
        """The API that will read the copies."""
        return self.settings.api_version

    def find(self, stem: str, version: str) -> Copy | None:
        """Return the copy that was made of a version of a recording before, if there is one; one or two requests.

        :param stem: the recording's name, without its extension
        :param version: what tells this version of this recording from all others
        :raises RecordingError: the copy may not be read
        :raises FilteredError: the recording is left out
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        for extension in self._extensions:
            stored = self.bucket.stat_if_there(self._address(stem, version, extension))
            facts = None if stored is None else _facts_beside(stored)
            if stored is not None and facts is not None:
                found = Copy(stored, facts)
                self._check_filters([found])
                return found
        return None

    def has(self, address: RecordingAddress) -> bool:
        """Return whether an object is a copy, by its key."""
        name = address.key.removeprefix(self.folder.key)
        is_inside = address.bucket == self.folder.bucket and address.key.startswith(self.folder.key)
        return is_inside and "/" not in name and _COPY.fullmatch(name) is not None

    def takes(self, error: UnsupportedFormatError) -> bool:
        """Return whether a recording that the API doesn't take is to be converted."""
        return self.split if isinstance(error, TooLongError) else self.on_truncated.takes(error)

    def copies_of(
        self, bucket: Bucket, source: StoredObject, reason: UnsupportedFormatError, starts_ms: tuple[int, ...] = ()
    ) -> list[Copy]:
        """Return the copy of a recording in a bucket, or those of its parts. They are made if they aren't there yet.

        :param bucket: where the recording is
        :param source: the version to convert
        :param reason: why it is converted, for the error if nothing decodes it
        :param starts_ms: where its parts begin, if an earlier run has cut it
        :return: one copy, or that of each part in order
        :raises RecordingError: it was replaced, can't be decoded, is cut off, or is longer than the service takes
        :raises FilteredError: it is left out
        :raises SettingsError: it has no such audio stream, or the extra `audio` isn't installed
        :raises StorageError: the disk is full, or a bucket can't be reached
        """
        stem, version = _stem(source.address), f"{source.address.uri}\n{source.etag}"
        is_too_long = isinstance(reason, TooLongError)
        if known := self._find_all(stem, version, starts_ms, is_too_long=is_too_long):
            return known
        name = source.address.uri
        # The slot comes before the download, so that no more sources are on the disk than are converted.
        with _SLOTS, _downloaded(bucket, source) as path:
            try:
                if not is_too_long:
                    return [self._make(stem, version, path, name, reason)]
            except TooLongError:
                if not self.split:
                    raise
            lpcm = lpcm_in(path, self.settings)
            opened = partial(open_source, path, self.audio_stream, lpcm)
            return self._make_parts(stem, version, opened, name, starts_ms)

    def copies_of_pair(
        self, sides: Sequence[tuple[Bucket, StoredObject]], starts_ms: tuple[int, ...] = ()
    ) -> list[Copy]:
        """Return the copy that two mono recordings are joined into, or those of its parts, as `copies_of` does.

        :param sides: both recordings, in the versions to join, and where they are; the first becomes channel 0
        :param starts_ms: where its parts begin, if an earlier run has cut it
        :return: one copy, or that of each part in order
        :raises RecordingError: one was replaced, can't be decoded, is cut off, or isn't mono; or both are longer than
            the service takes
        :raises FilteredError: the pair is left out
        :raises SettingsError: one has no such audio stream, or the extra `audio` isn't installed
        :raises StorageError: the disk is full, or a bucket can't be reached
        """
        stem = _stem(sides[0][1].address)
        version = "\n".join(["pair", *(f"{one.address.uri}\n{one.etag}" for _, one in sides)])
        if known := self._find_all(stem, version, starts_ms):
            return known
        with _SLOTS, ExitStack() as stack:
            paths = [stack.enter_context(_downloaded(bucket, one)) for bucket, one in sides]
            names = [one.address.uri for _, one in sides]
            made = joined(paths, self.api_version, names=names, **self._options)
            try:
                return [self._put(stem, version, made, " and ".join(names))]
            except TooLongError:
                if not self.split:
                    raise
            opened = partial(open_pair, paths, names, self.audio_stream)
            return self._make_parts(stem, version, opened, names[0], starts_ms)

    def _find_all(
        self, stem: str, version: str, starts_ms: tuple[int, ...], *, is_too_long: bool = False
    ) -> list[Copy]:
        whole = None if is_too_long else self.find(stem, version)
        if whole is not None:
            return [whole]
        for extension in self._extensions if self.split else ():
            first = self._find_part(stem, version, extension, 1)
            if first is not None:
                others = (self._find_part(stem, version, extension, number) for number in range(2, first.of + 1))
                found = [one for one in (first, *others) if one is not None]
                starts_found = tuple(one.start_ms for one in found)
                if len(found) < first.of or starts_found != (starts_ms or starts_found):
                    return []
                self._check_filters(found)
                return found
        return []

    def _check_filters(self, found: Sequence[Copy]) -> None:
        """Check whether a recording is to be left out whose copies were made before.

        :param found: its copy, or those of all its parts
        """
        end_ms, channels = found[-1].start_ms + (found[-1].facts.duration_ms or 0), found[-1].facts.channels
        self.filters.check(end_ms, channels)
        if self.filters.skip_silent and all(
            is_silent_content(one.facts, self.bucket.content(one.stored)) for one in found
        ):
            raise FilteredError(FilterReason.SILENT, end_ms, channels)

    def _find_part(self, stem: str, version: str, extension: str, number: int) -> Copy | None:
        stored = self.bucket.stat_if_there(self._address(stem, version, f"-part{number}{extension}"))
        facts = None if stored is None else _facts_beside(stored)
        if stored is None or facts is None:
            return None
        start_ms, of = (_whole_number(stored.metadata, name) for name in ("start_ms", "of"))
        return Copy(stored, facts, start_ms, of) if of else None

    def _make_parts(
        self,
        stem: str,
        version: str,
        opened: Callable[[], AbstractContextManager[Source | JoinedSource]],
        name: str,
        starts_ms: tuple[int, ...],
    ) -> list[Copy]:
        made = []
        parts = converted_parts(
            opened,
            self.api_version,
            name=name,
            on_truncated=self.on_truncated,
            filters=self.filters,
            starts_ms=starts_ms,
        )
        for number, part in enumerate(parts, 1):
            suffix = f"-part{number}{part.conversion.extension}"
            metadata = {**_metadata(part.facts), "start-ms": str(part.start_ms), "of": str(part.of)}
            stored = self.bucket.put(part.content, self._address(stem, version, suffix), metadata)
            made.append(Copy(stored, part.facts, part.start_ms, part.of))
        log.info("%s was cut into %d parts, such as %s", name, len(made), made[0].stored.address.uri)
        return made

    def make(self, stem: str, version: str, path: Path, name: str, reason: UnsupportedFormatError) -> Copy:
        """Convert a recording, and upload the copy. It appears as a whole, or not at all.

        :param stem: the recording's name, without its extension
        :param version: what tells this version of this recording from all others
        :param path: a file with the recording
        :param name: the recording's name in messages
        :param reason: why it is converted, for the error if nothing decodes it
        :raises RecordingError: it can't be decoded, is cut off, or is longer than the service takes
        :raises FilteredError: it is left out
        :raises SettingsError: it has no such audio stream, or the extra `audio` isn't installed
        :raises StorageError: the disk is full, or the bucket can't be written
        """
        with _SLOTS:
            return self._make(stem, version, path, name, reason)

    def _make(self, stem: str, version: str, path: Path, name: str, reason: UnsupportedFormatError) -> Copy:
        with undecodable(reason, name):
            return self._put(stem, version, converted(path, self.api_version, name=name, **self._options), name)

    def _put(
        self,
        stem: str,
        version: str,
        made: AbstractContextManager[tuple[BinaryIO, AudioFacts, Conversion]],
        name: str,
    ) -> Copy:
        with made as (content, facts, conversion):
            stored = self.bucket.put(content, self._address(stem, version, conversion.extension), _metadata(facts))
        log.info("%s was converted to %s, %s", name, facts.encoding, stored.address.uri)
        return Copy(stored, facts)

    @property
    def _extensions(self) -> list[str]:
        return [EXTENSIONS[one] for one in (lossless_encoding(self.api_version), AudioEncoding.OGG_OPUS)]

    @property
    def _options(self) -> dict[str, Any]:
        return {"audio_stream": self.audio_stream, "on_truncated": self.on_truncated, "filters": self.filters}

    def empty(self, stored: StoredObject) -> None:
        """Make a copy one that `find` doesn't find: what was read isn't what its name says. Deleting may be forbidden.

        :raises RecordingError: the bucket may not be written
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        self.bucket.put(io.BytesIO(), stored.address)

    def _address(self, stem: str, version: str, suffix: str) -> RecordingAddress:
        what = "\n".join((version, _CONVERSION, self.api_version, str(self.audio_stream), self.on_truncated))
        digest = hashlib.sha256(what.encode()).hexdigest()[:_DIGITS_IN_KEY]
        return object_address(self.folder.bucket, f"{self.folder.key}{stem}-{digest}{suffix}", self.folder.conn_id)


def _metadata(facts: AudioFacts) -> dict[str, str]:
    beside = {one.replace("_", "-"): str(getattr(facts, one)) for one in _FACTS}
    return beside | {one: str(ms) for one, ms in zip(_SIDES, facts.side_ms, strict=False)}


def _facts_beside(stored: StoredObject) -> AudioFacts | None:
    """Return what a copy is. LPCM has no header that could tell."""
    encoding = next(one for one, extension in EXTENSIONS.items() if stored.address.key.endswith(extension))
    facts = {one: _whole_number(stored.metadata, one) for one in _FACTS}
    if not all(facts.values()):
        return None
    side_ms = tuple(_whole_number(stored.metadata, one) for one in _SIDES if one in stored.metadata)
    size, header = stored.size_bytes, WAV_HEADER_BYTES if encoding is AudioEncoding.WAV else 0
    if encoding is not AudioEncoding.OGG_OPUS:
        facts |= {"data_offset": header, "data_bytes": size - header}
    return AudioFacts(encoding=encoding, size_bytes=size, side_ms=side_ms, **facts)  # type: ignore[arg-type]


def _stem(address: RecordingAddress) -> str:
    return address.name.rpartition(".")[0] or address.name


@contextmanager
def _downloaded(bucket: Bucket, source: StoredObject) -> Iterator[Path]:
    """Have a version of a recording in a temporary file, which is gone afterwards."""
    _, dot, extension = source.address.name.rpartition(".")
    with temporary_file(source.address.uri, f"{dot}{extension}") as file:
        for piece in bucket.content(source):
            file.write(piece)
        file.flush()
        yield Path(file.name)


def _whole_number(metadata: Mapping[str, str], name: str) -> int:
    text = metadata.get(name.replace("_", "-"), "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
