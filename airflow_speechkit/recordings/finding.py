"""Which of the objects that a prefix or a glob lists are recordings."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, RecordingNotFoundError
from airflow_speechkit.recordings.audio.reading import AUDIO_HEAD_BYTES, is_audio, is_audio_name
from airflow_speechkit.recordings.pattern import alternatives, glob_matches, has_magic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.recordings.bucket import Bucket
    from airflow_speechkit.recordings.conversion.copies import CopyFolder
    from airflow_speechkit.recordings.pattern import RecordingPattern
    from airflow_speechkit.recordings.places import StoredObject

log = logging.getLogger(__name__)

#: Objects whose first bytes are read side by side.
READERS = 16

#: What macOS leaves beside a file on other filesystems: it has the file's extension, and no sound.
_APPLE_DOUBLE = "._"


@dataclass(frozen=True)
class Choice:
    """Globs that say which of the listed objects are meant.

    A glob without a slash is matched with the last part of the key, at any depth. One with a slash is matched with the
    key, and with what the key has behind the listed prefix.

    :param include: take only what matches one of these; without any, everything
    :param exclude: leave out what matches one of these
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def takes(self, key: str, folder: str) -> bool:
        """Tell whether an object is meant.

        :param folder: the folder that was listed: what every key begins with, up to a slash
        """

        def matches(globs: Sequence[str]) -> bool:
            names = (key, key.removeprefix(folder))
            return any(glob_matches(one, name) for glob in globs for one in _at_any_depth(glob) for name in names)

        return (not self.include or matches(self.include)) and not matches(self.exclude)


@cache
def _at_any_depth(glob: str) -> list[str]:
    return [one if "/" in one else f"**/{one}" for one in alternatives(glob)]


def find_recordings(
    bucket: Bucket, pattern: RecordingPattern, choice: Choice, copies: CopyFolder | None = None
) -> list[StoredObject]:
    """List the recordings that a prefix or a glob matches, by key.

    An object with an audio extension is a recording, whatever its bytes are: probing it ends in an error that names it.
    So is an object with the extension that the glob names (``*.dat``). For all others the first bytes decide, which
    takes a request for each.

    :param bucket: the bucket's client
    :param pattern: what to list
    :param choice: which of the objects are meant
    :param copies: where converted copies are put: they are no recordings of their own
    :raises RecordingNotFoundError: there is none
    :raises RecordingError: the bucket isn't there, or may not be listed
    :raises StorageError: the storage can't be reached, or is in trouble
    """
    # A copy would be paid for beside its source.
    listed = [one for one in bucket.find(pattern) if copies is None or not copies.has(one.address)]
    chosen = [one for one in listed if choice.takes(one.address.key, pattern.folder)]
    named = {_extension(one) for one in pattern.globs} - {""}

    def is_recording(one: StoredObject) -> bool:
        name = one.address.name
        if one.address.key.endswith("/") or name.startswith(_APPLE_DOUBLE):
            return False
        if is_audio_name(name) or _extension(name) in named:
            return True
        return one.size_bytes > 0 and _begins_like_audio(bucket, one)

    with ThreadPoolExecutor(READERS, thread_name_prefix="speechkit-find") as pool:
        decided = list(zip(chosen, pool.map(is_recording, chosen), strict=True))
    found = [one for one, recording in decided if recording]
    left_out = ""
    if len(found) < len(listed):
        others = [one.address.key for one, recording in decided if not recording]
        left_out = (
            f". Left out: {len(listed) - len(chosen):,} by `include` and `exclude`, {len(others):,} that aren't audio"
            f"{f' (such as {others[0]})' if others else ''}"
        )
        log.info("%s matches %s recordings%s", pattern.uri, f"{len(found):,}", left_out)
    if not found:
        raise RecordingNotFoundError(
            f"No recording matches this prefix or glob{left_out}",
            recording=pattern.uri,
            hint="Check the bucket and the key. If it has a date, check the schedule too: on Airflow 3, `ds` of a cron "
            "schedule is the day that has just begun (docs/nightly.md)",
            retry="lists the bucket again",
        )
    return found


def _begins_like_audio(bucket: Bucket, one: StoredObject) -> bool:
    try:
        return is_audio(bucket.first_bytes(one.address, AUDIO_HEAD_BYTES))
    except RecordingNotFoundError:
        return False
    except RecordingError:
        # It may be a recording: probing it fails too, and the error says why.
        return True


def _extension(name: str) -> str:
    """Return an extension in lower case; nothing where there is none, or only as a pattern."""
    _, dot, extension = name.rpartition("/")[2].rpartition(".")
    return extension.lower() if dot and not has_magic(extension) else ""
