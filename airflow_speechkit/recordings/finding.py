"""Which of the objects that a prefix or a glob lists are recordings."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, RecordingNotFoundError
from airflow_speechkit.recordings.audio import AUDIO_HEAD_BYTES, is_audio, is_audio_name
from airflow_speechkit.recordings.pattern import alternatives, glob_regex, has_magic

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from airflow_speechkit.recordings.bucket import Bucket, StoredObject
    from airflow_speechkit.recordings.pattern import RecordingPattern

log = logging.getLogger(__name__)

#: Objects whose first bytes are read side by side.
READERS = 16

_MOST_NAMED = 3

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
    _included: Sequence[re.Pattern[str]] = field(init=False, repr=False, compare=False)
    _excluded: Sequence[re.Pattern[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_included", _regexes(self.include))
        object.__setattr__(self, "_excluded", _regexes(self.exclude))

    def takes(self, key: str, folder: str) -> bool:
        """Tell whether an object is meant.

        :param folder: the folder that was listed: what every key begins with, up to a slash
        """

        def matches(regexes: Sequence[re.Pattern[str]]) -> bool:
            return any(regex.fullmatch(one) for regex in regexes for one in (key, key.removeprefix(folder)))

        return (not self.include or matches(self._included)) and not matches(self._excluded)


def _regexes(globs: Sequence[str]) -> list[re.Pattern[str]]:
    each = [one for glob in globs for one in alternatives(glob)]
    return [glob_regex(one if "/" in one else f"**/{one}") for one in each]


@dataclass
class Listing:
    """The recordings that a prefix or a glob matches.

    :param pattern: the prefix or glob
    :param found: the recordings, by key
    :param others: the keys of what isn't audio, by key
    :param not_chosen: how many objects `include` or `exclude` left out
    """

    pattern: RecordingPattern
    found: list[StoredObject] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    not_chosen: int = 0

    @property
    def left_out(self) -> str:
        """Say in one sentence what was left out; nothing where nothing was."""
        named = ", ".join(key.removeprefix(self.pattern.folder) or key for key in self.others[:_MOST_NAMED])
        more = ", …" if len(self.others) > _MOST_NAMED else ""
        parts = [f"{len(self.others):,} that aren't audio ({named}{more})"] if self.others else []
        if self.not_chosen:
            parts.append(f"{self.not_chosen:,} by `include` and `exclude`")
        return f"Left out: {' and '.join(parts)}" if parts else ""


def find_recordings(bucket: Bucket, pattern: RecordingPattern, choice: Choice) -> Listing:
    """List the recordings that a prefix or a glob matches.

    An object with an audio extension is a recording, whatever its bytes are: probing it ends in an error that names it.
    So is an object with the extension that the glob names (``*.dat``). For all others the first bytes decide, which
    takes a request for each.

    :param bucket: the bucket's client
    :param pattern: what to list
    :param choice: which of the objects are meant
    :raises RecordingError: the bucket isn't there, or may not be listed
    :raises StorageError: the storage can't be reached, or is in trouble
    """
    listing = Listing(pattern)
    named = {_extension(one) for one in alternatives(pattern.glob)} - {""}
    chosen = []
    for one in bucket.find(pattern):
        if choice.takes(one.address.key, pattern.folder):
            chosen.append(one)
        else:
            listing.not_chosen += 1

    def is_recording(one: StoredObject) -> bool:
        name = one.address.name
        if one.address.key.endswith("/") or name.startswith(_APPLE_DOUBLE):
            return False
        if is_audio_name(name) or _extension(name) in named:
            return True
        return one.size_bytes > 0 and _begins_like_audio(bucket, one)

    with ThreadPoolExecutor(READERS, thread_name_prefix="speechkit-find") as pool:
        for one, recording in zip(chosen, pool.map(is_recording, chosen), strict=True):
            if recording:
                listing.found.append(one)
            else:
                listing.others.append(one.address.key)
    if listing.left_out:
        log.info("%s matches %s recordings. %s", pattern.uri, f"{len(listing.found):,}", listing.left_out)
    return listing


def nothing_found(listing: Listing) -> RecordingNotFoundError:
    """Return the error about a prefix or a glob that matches nothing."""
    pattern = listing.pattern
    what = (
        "There is no recording below this prefix"
        if pattern.is_prefix
        else "There is no object with this key, and as a glob it matches no recording"
    )
    return RecordingNotFoundError(
        f"{what}{'. ' if listing.left_out else ''}{listing.left_out}",
        recording=pattern.uri,
        hint=(
            f"Check the bucket and the {'prefix' if pattern.is_prefix else 'key'}. If it has a date, check the "
            "schedule too: on Airflow 3, `ds` of a cron schedule is the day that has just begun (docs/nightly.md)"
        ),
        retry="looks again",
    )


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
