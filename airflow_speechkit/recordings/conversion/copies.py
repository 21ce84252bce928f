"""Converted copies in a bucket: each source is converted and uploaded once."""

from __future__ import annotations

import hashlib
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
from airflow_speechkit.recordings.conversion.convert import Converter, OnTruncated, temporary_file, undecodable
from airflow_speechkit.recordings.conversion.decoding import lpcm_in, open_source
from airflow_speechkit.recordings.conversion.joining import open_pair
from airflow_speechkit.recordings.conversion.plan import EXTENSIONS, WAV_HEADER_BYTES, lossless_encoding
from airflow_speechkit.recordings.conversion.silence import is_silent_content
from airflow_speechkit.recordings.filters import NO_FILTERS, FilteredError, Filters
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_speechkit.errors import UnsupportedFormatError
    from airflow_speechkit.models import RecordingAddress
    from airflow_speechkit.recordings.bucket import Bucket
    from airflow_speechkit.recordings.conversion.convert import Converted
    from airflow_speechkit.recordings.conversion.joining import Opened
    from airflow_speechkit.recordings.places import StoredObject
    from airflow_speechkit.settings import RecognitionSettings

log = logging.getLogger(__name__)

#: Part of each copy's name. A conversion that gives other sound gets another number.
_CONVERSION = "1"
#: 128 bits: no two recordings have the same.
_DIGITS_IN_KEY = 32
_COPY = re.compile(rf".+-[0-9a-f]{{{_DIGITS_IN_KEY}}}(-part[0-9]+)?\.(lpcm|ogg|wav)", re.DOTALL)
#: A conversion takes all of a core, and disk space.
_SLOTS = BoundedSemaphore(os.cpu_count() or 1)
_FACTS = ("sample-rate-hertz", "channels", "duration-ms")
_SIDES = ("first-ms", "second-ms")


@dataclass(frozen=True)
class Original:
    """A recording to convert, or a pair.

    :param stem: its name, without its extension
    :param version: identifies the recording, and its version
    :param name: its name in messages
    """

    stem: str
    version: str
    name: str


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
    """Where local recordings and converted copies are put. Safe to share between threads.

    :param bucket: the bucket's client
    :param folder: the folder in the bucket: its key is empty, or has a slash at its end
    :param settings: what the user asks for, of the API that will read the copies
    :param audio_stream: which audio stream of a file to take, counted from 1; by default the one that a player chooses
    :param on_truncated: what to do where a recording is cut off or damaged
    :param filters: which recordings are left out
    :param split: whether to cut what is longer than the service takes
    :param converts: whether to convert what the service doesn't take; if not, it is refused
    """

    bucket: Bucket
    folder: RecordingAddress
    settings: RecognitionSettings
    audio_stream: int | None = None
    on_truncated: OnTruncated = OnTruncated.FAIL
    filters: Filters = NO_FILTERS
    split: bool = False
    converts: bool = True

    def find(self, original: Original) -> Copy | None:
        """Return the copy that was made of a recording before, if there is one; one or two requests.

        :param original: the recording
        :raises RecordingError: the copy may not be read
        :raises FilteredError: the recording is left out
        :raises StorageError: the storage can't be reached, or is in trouble
        """
        for extension in self._extensions:
            found = self._find(original, extension)
            if found is not None:
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
        return self.converts and (self.split if isinstance(error, TooLongError) else self.on_truncated.takes(error))

    def copies_of(
        self,
        sides: Sequence[tuple[Bucket, StoredObject]],
        starts_ms: tuple[int, ...] = (),
        reason: UnsupportedFormatError | None = None,
    ) -> list[Copy]:
        """Return the copy of a recording in a bucket, or those of its parts. They are made if they aren't there yet.

        :param sides: the version to convert, and where it is; or both mono recordings of a pair, whose copy is stereo.
            The first becomes channel 0
        :param starts_ms: where its parts begin, if an earlier run has cut it
        :param reason: why it is converted, for the error if nothing decodes it; None for a pair
        :return: one copy, or that of each part in order
        :raises RecordingError: one was replaced, can't be decoded, is cut off, isn't mono although it is a side, or is
            longer than the service takes
        :raises FilteredError: it is left out
        :raises SettingsError: one has no such audio stream, or the extra `audio` isn't installed
        :raises StorageError: the disk is full, or a bucket can't be reached
        """
        names = [stored.address.uri for _, stored in sides]
        versions = [f"{stored.address.uri}\n{stored.etag}" for _, stored in sides]
        version = versions[0] if len(sides) == 1 else "\n".join(["pair", *versions])
        original = Original(_stem(sides[0][1].address), version, names[0])
        is_too_long = isinstance(reason, TooLongError)
        whole = None if is_too_long else self.find(original)
        if whole is not None:
            return [whole]
        if self.split and (parts := self._find_parts(original, starts_ms)):
            return parts
        # The slot comes before the download, so that no more sources are on the disk than are converted.
        with _SLOTS, ExitStack() as stack:
            paths = [stack.enter_context(_downloaded(bucket, stored)) for bucket, stored in sides]
            if len(paths) > 1:
                opened: Opened = partial(open_pair, paths, names, self.audio_stream)
            else:
                opened = self._opened(paths[0])
            try:
                if not is_too_long:
                    return [self._make(original, opened, reason)]
            except TooLongError:
                if not self.split:
                    raise
            return self._make_parts(original, opened, starts_ms)

    def _find_parts(self, original: Original, starts_ms: tuple[int, ...]) -> list[Copy]:
        for extension in self._extensions:
            first = self._find(original, f"-part1{extension}")
            if first is not None:
                others = (self._find(original, f"-part{number}{extension}") for number in range(2, first.of + 1))
                found = [first, *filter(None, others)]
                if len(found) == first.of and starts_ms in ((), tuple(one.start_ms for one in found)):
                    self._check_filters(found)
                    return found
        return []

    def _find(self, original: Original, suffix: str) -> Copy | None:
        stored = self.bucket.stat_if_there(self._address(original, suffix))
        return None if stored is None else _copy(stored)

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

    def make(self, original: Original, path: Path, reason: UnsupportedFormatError) -> Copy:
        """Convert a recording, and upload the copy. It appears as a whole, or not at all.

        :param original: the recording
        :param path: a file with it
        :param reason: why it is converted, for the error if nothing decodes it
        :raises RecordingError: it can't be decoded, is cut off, or is longer than the service takes
        :raises FilteredError: it is left out
        :raises SettingsError: it has no such audio stream, or the extra `audio` isn't installed
        :raises StorageError: the disk is full, or the bucket can't be written
        """
        with _SLOTS:
            return self._make(original, self._opened(path), reason)

    def _opened(self, path: Path) -> Opened:
        return partial(open_source, path, self.audio_stream, lpcm_in(path, self.settings))

    def _make(self, original: Original, opened: Opened, reason: UnsupportedFormatError | None) -> Copy:
        with undecodable(reason, original.name), self._converter(original, opened).whole() as made:
            return self._put(original, made, "")

    def _make_parts(self, original: Original, opened: Opened, starts_ms: tuple[int, ...]) -> list[Copy]:
        parts = self._converter(original, opened).parts(starts_ms)
        return [self._put(original, part, f"-part{number}") for number, part in enumerate(parts, 1)]

    def _converter(self, original: Original, opened: Opened) -> Converter:
        return Converter(opened, self.settings.api_version, original.name, self.on_truncated, self.filters)

    def _put(self, original: Original, made: Converted, suffix: str) -> Copy:
        facts = made.facts
        numbers = {"start-ms": made.start_ms, "of": made.of, **dict(zip(_SIDES, facts.side_ms, strict=False))}
        numbers |= {name: getattr(facts, name.replace("-", "_")) for name in _FACTS}
        address = self._address(original, f"{suffix}{EXTENSIONS[facts.encoding]}")
        stored = self.bucket.put(made.content, address, {name: str(number) for name, number in numbers.items()})
        log.info("%s was converted to %s, %s", original.name, facts.encoding, stored.address.uri)
        return Copy(stored, facts, made.start_ms, made.of)

    @property
    def _extensions(self) -> list[str]:
        return [EXTENSIONS[one] for one in (lossless_encoding(self.settings.api_version), AudioEncoding.OGG_OPUS)]

    def _address(self, original: Original, suffix: str) -> RecordingAddress:
        settings = self.settings.api_version, str(self.audio_stream), self.on_truncated
        what = "\n".join((original.version, _CONVERSION, *settings))
        digest = hashlib.sha256(what.encode()).hexdigest()[:_DIGITS_IN_KEY]
        return object_address(
            self.folder.bucket, f"{self.folder.key}{original.stem}-{digest}{suffix}", self.folder.conn_id
        )


def _copy(stored: StoredObject) -> Copy | None:
    """Return a copy, by what is beside it: LPCM has no header. None for one that was emptied."""
    numbers = {name: int(text) for name, text in stored.metadata.items() if text.isdecimal()}
    facts: dict[str, Any] = {name.replace("-", "_"): numbers[name] for name in _FACTS if name in numbers}
    if len(facts) < len(_FACTS):
        return None
    size = stored.size_bytes
    encoding = next(one for one, extension in EXTENSIONS.items() if stored.address.key.endswith(extension))
    if encoding is not AudioEncoding.OGG_OPUS:
        header = WAV_HEADER_BYTES if encoding is AudioEncoding.WAV else 0
        facts |= {"data_offset": header, "data_bytes": size - header}
    side_ms = tuple(numbers[name] for name in _SIDES if name in numbers)
    audio = AudioFacts(encoding=encoding, size_bytes=size, side_ms=side_ms, **facts)
    return Copy(stored, audio, numbers.get("start-ms", 0), numbers.get("of", 1))


def _stem(address: RecordingAddress) -> str:
    return address.name.rpartition(".")[0] or address.name


@contextmanager
def _downloaded(bucket: Bucket, source: StoredObject) -> Iterator[Path]:
    """Download a version of a recording into a temporary file, which is deleted afterwards."""
    _, dot, extension = source.address.name.rpartition(".")
    with temporary_file(source.address.uri, f"{dot}{extension}") as file:
        for piece in bucket.content(source):
            file.write(piece)
        file.flush()
        yield Path(file.name)
