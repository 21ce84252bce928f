"""Hashes of recordings' bytes. A recording is read once; its hash is kept for as long as its version is the same.

Beside what `archive.layout` describes, an archive has ::

    hashes/<address>/<version>.json   the hash of the bytes of a recording in a version

The names have hashes of addresses and ETags, which are safe in any path.
"""

from __future__ import annotations

import hashlib
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import each, load, pack
from airflow_speechkit.errors import ArchiveError, SpeechKitError
from airflow_speechkit.recordings.finder import CONCURRENCY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Recording, RecordingAddress
    from airflow_speechkit.recordings.source import RecordingSource

    #: An object, and a version of it.
    _Side = tuple[RecordingAddress, str]

log = logging.getLogger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Identity(StrEnum):
    """What makes two recordings the same one."""

    ADDRESS = "address"  #: address and version (ETag)
    CONTENT = "content"  #: their bytes


def with_content_hashes(archive: Archive, source: RecordingSource, recordings: Sequence[Recording]) -> list[Recording]:
    """Return recordings with the hashes of their bytes; those that no run has read before are read.

    One that can't be read brings its error along: it doesn't hold up the others. One without a version keeps its
    address as its identity, since its hash could be that of an earlier version.

    :raises ArchiveError: the archive can't be read or written
    """
    found: dict[_Side, str | SpeechKitError | None] = {
        side: None for one in recordings if one.is_versioned and one.error is None for side in _sides(one)
    }
    sides = list(found)
    found.update(zip(sides, each(lambda side: _known(archive, side), sides), strict=True))
    unread = [side for side in sides if found[side] is None]
    if unread:
        log.info("Reading %d recordings to identify them by their content", len(unread))
    with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="speechkit-hash") as pool:
        found.update(zip(unread, pool.map(lambda side: _read(archive, source, side), unread), strict=True))

    def hashed(recording: Recording) -> Recording:
        if not recording.is_versioned or recording.error is not None:
            return recording
        if recording.address is None:
            # The version of a local file is a hash of its bytes.
            return replace(recording, content_hash=recording.version)
        known = [found[side] for side in _sides(recording)]
        for one in known:
            if isinstance(one, SpeechKitError):
                return replace(recording, error=one)
        return replace(recording, content_hash="+".join(map(str, known)))

    return [hashed(one) for one in recordings]


def delete_hashes(archive: Archive, audio_uris: Iterable[str]) -> int:
    """Delete the hashes of all versions of recordings; return how many there were."""
    names = [name for uri in audio_uris for name in archive.folder.names(_folder(uri))]
    for name in names:
        archive.folder.delete(name)
    return len(names)


def _sides(recording: Recording) -> list[_Side]:
    """Return what has to be read of a recording: itself, and the other side of a pair."""
    if recording.address is None:
        return []
    own, other = (recording.address, recording.version or ""), recording.other
    return [own] if other is None else [own, (other.address, other.etag or "")]


def _known(archive: Archive, side: _Side) -> str | None:
    try:
        return load(archive.folder, _file(side), _hash_in)
    except ArchiveError as error:
        if error.retry_can_help:
            raise
        # A damaged one is replaced.
        return None


def _hash_in(data: dict[str, Any]) -> str:
    if not isinstance(found := data["sha256"], str) or not _SHA256.fullmatch(found):
        raise ValueError("not a hash")
    return found


def _read(archive: Archive, source: RecordingSource, side: _Side) -> str | SpeechKitError:
    digest = hashlib.sha256()
    try:
        for piece in source.content(*side):
            digest.update(piece)
    except SpeechKitError as error:
        error.about_recording(side[0].uri)
        return error
    archive.folder.replace(_file(side), pack({"sha256": digest.hexdigest()}))
    return digest.hexdigest()


def _folder(audio_uri: str) -> str:
    return f"hashes/{_hash(audio_uri)}"


def _file(side: _Side) -> str:
    address, version = side
    return f"{_folder(address.uri)}/{_hash(version)}.json"


def _hash(text: str) -> str:
    # 128 bits tell any two names apart.
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:32]
