"""Many recordings at once: a prefix, or a glob, in a bucket.

``s3://bucket/calls/`` (a trailing slash) is everything below, at any depth. In a glob, ``*`` is any number of
characters and ``?`` is one, but neither is a slash; ``[abc]``, ``[a-z]`` and ``[!a]`` are one character that isn't a
slash; ``**`` between slashes is any number of levels, none included. ``[*]``, ``[?]`` and ``[[]`` are those characters
themselves. An https link is never a pattern, so it names a key with such characters as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.address import check_bucket, check_no_nul, split_s3

_MAGIC = re.compile(r"[*?\[]")

#: What lies beside recordings and isn't one: the emulator answers such a transcript in place of recognising.
TRANSCRIPT_SUFFIX = ".transcript.json"


@dataclass(frozen=True)
class RecordingPattern:
    """A prefix or a glob in a bucket.

    :param bucket: the bucket's name
    :param glob: the key's pattern; one that is empty or ends in a slash is a prefix
    :param conn_id: the Airflow connection to read the bucket with, where the pattern names one
    """

    bucket: str
    glob: str
    conn_id: str | None = None

    @property
    def uri(self) -> str:
        """Return it as people write it, without the connection id."""
        return f"s3://{self.bucket}/{self.glob}"

    @property
    def prefix(self) -> str:
        """Return what every key that matches begins with: what to list."""
        magic = _MAGIC.search(self.glob)
        return self.glob[: magic.start()] if magic else self.glob

    def matches(self, key: str) -> bool:
        """Tell whether a key is one of these, and can be a recording."""
        return not key.endswith(("/", TRANSCRIPT_SUFFIX)) and self._regex.fullmatch(key) is not None

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        glob = self.glob + "**" if self.glob.endswith("/") or not self.glob else self.glob
        return re.compile(_translate(glob), re.DOTALL)


def is_pattern(text: str) -> bool:
    """Tell whether an address stands for many recordings: ``s3://`` with a glob character, or a slash at its end."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != "s3":
        return False
    _, _, key = rest.partition("/")
    return not key or key.endswith("/") or has_magic(key)


def has_magic(key: str) -> bool:
    """Tell whether there is a glob character in a key."""
    return _MAGIC.search(key) is not None


def parse_pattern(text: str) -> RecordingPattern:
    """Read a prefix or a glob.

    :param text: ``s3://bucket/prefix/``, ``s3://conn_id@bucket/2026-*/*.ogg``
    :raises RecordingError: it isn't one
    """
    if not is_pattern(text):
        raise RecordingError(
            "This is neither a prefix nor a glob",
            recording=text,
            todo="End a prefix with a slash: s3://bucket/prefix/",
        )
    conn_id, bucket, glob = split_s3(text.partition("://")[2], text)
    check_bucket(bucket, text)
    check_no_nul(glob, text)
    return RecordingPattern(bucket, glob, conn_id)


def _translate(glob: str) -> str:
    regex = []
    levels = glob.split("/")
    for place, level in enumerate(levels):
        last = place == len(levels) - 1
        if level == "**":
            regex.append(".*" if last else "(?:[^/]*/)*")
        else:
            regex.append(_translate_level(level) + ("" if last else "/"))
    return "".join(regex)


def _translate_level(level: str) -> str:
    regex = []
    place = 0
    while place < len(level):
        character = level[place]
        place += 1
        if character == "*":
            regex.append("[^/]*")
        elif character == "?":
            regex.append("[^/]")
        elif character == "[" and (end := level.find("]", place + 1 + level.startswith("!", place))) > 0:
            regex.append(_translate_class(level[place:end]))
            place = end + 1
        else:
            regex.append(re.escape(character))
    return "".join(regex)


def _translate_class(inside: str) -> str:
    negated = inside.startswith("!")
    members = []
    characters = inside[negated:]
    place = 0
    while place < len(characters):
        if characters[place + 1 : place + 2] == "-" and place + 2 < len(characters):
            first, last = characters[place], characters[place + 2]
            if first <= last:
                members.append(f"{re.escape(first)}-{re.escape(last)}")
            place += 3
        else:
            members.append(re.escape(characters[place]))
            place += 1
    if not members:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(members)}]"
