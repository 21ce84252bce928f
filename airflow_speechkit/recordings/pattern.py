"""Prefixes and globs in a bucket.

``s3://bucket/calls/`` (a trailing slash) is everything below, at any depth. In a glob, ``*`` is any number of
characters and ``?`` is one, but neither is a slash; ``[abc]``, ``[a-z]`` and ``[!a]`` are one character that isn't a
slash; ``**`` between slashes is any number of levels, none included; ``{ogg,mp3}`` is either, with globs, slashes and
further braces inside. Braces without a comma are themselves, and so are ``[*]``, ``[?]``, ``[[]`` and ``[{]``. An
object whose key equals the glob takes precedence: `RecordingSource.find` asks for it first.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.address import check_bucket, check_no_nul, split_s3
from airflow_speechkit.redaction import clean_address

_MAGIC = re.compile(r"[*?\[]")
_MOST_ALTERNATIVES = 1000


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

    @cached_property
    def prefix(self) -> str:
        """Return what every key that matches begins with: what to list."""
        heads = [_MAGIC.split(one, maxsplit=1)[0] for one in alternatives(self.glob)]
        return os.path.commonprefix(heads)  # noqa: RUF071 - of characters, not of folders

    @property
    def folder(self) -> str:
        """Return what every key that matches begins with, up to a slash."""
        return self.prefix[: self.prefix.rfind("/") + 1]

    @property
    def is_prefix(self) -> bool:
        """Whether it is a prefix, which matches everything below: no object with that very key can be a recording."""
        return not self.glob or self.glob.endswith("/")

    def matches(self, key: str) -> bool:
        """Tell whether a key is one of these."""
        return self._regex.fullmatch(key) is not None

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return glob_regex(self.glob)


def is_pattern(text: str) -> bool:
    """Tell whether an address is a prefix or a glob: ``s3://`` with a glob character, or a slash at its end."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != "s3":
        return False
    _, _, key = rest.partition("/")
    return not key or key.endswith("/") or has_magic(key)


def has_magic(key: str) -> bool:
    """Tell whether there is a glob character in a key, or braces with alternatives."""
    return _MAGIC.search(key) is not None or _first_braces(key, 0) is not None


def parse_pattern(text: str) -> RecordingPattern:
    """Read a prefix or a glob.

    :param text: ``s3://bucket/prefix/``, ``s3://conn_id@bucket/2026-*/*.ogg``
    :raises RecordingError: it isn't one
    """
    text = clean_address(text)
    if not is_pattern(text):
        raise RecordingError(
            "This is neither a prefix nor a glob",
            recording=text,
            hint="End a prefix with a slash: s3://bucket/prefix/",
        )
    conn_id, bucket, glob = split_s3(text.partition("://")[2], text)
    check_bucket(bucket, text)
    check_no_nul(glob, text)
    alternatives(glob)
    return RecordingPattern(bucket, glob, conn_id)


def glob_regex(glob: str) -> re.Pattern[str]:
    """Return what a whole key has to match; a glob that is empty or ends in a slash matches everything below.

    :raises RecordingError: its braces have too many alternatives
    """
    each = (_translate(one + "**" if one.endswith("/") or not one else one) for one in alternatives(glob))
    return re.compile("|".join(each), re.DOTALL)


def alternatives(glob: str) -> list[str]:
    """Expand the braces of a glob, as a shell does; a glob without braces is returned alone.

    :raises RecordingError: there are too many
    """
    found = []
    left = [(glob, 0)]
    while left:
        text, place = left.pop()
        cuts = _first_braces(text, place)
        if cuts is None:
            found.append(text)
            continue
        before, behind = text[: cuts[0]], text[cuts[-1] + 1 :]
        left.extend((before + text[cut + 1 : end] + behind, cuts[0]) for cut, end in pairwise(cuts))
        if len(found) + len(left) > _MOST_ALTERNATIVES:
            raise RecordingError(
                f"The braces of this glob have more than {_MOST_ALTERNATIVES:,} alternatives",
                recording=glob,
                hint="Use `*`, or a prefix with `include`",
            )
    return found


def _first_braces(glob: str, place: int) -> list[int] | None:
    """Find the first braces with a comma: where they open, the commas between alternatives, where they close."""
    opened: list[list[int]] = []
    first: list[int] | None = None
    while place < len(glob):
        character = glob[place]
        if character == "[" and (end := _class_end(glob, place + 1)) > 0:
            place = end
        elif character == "{":
            opened.append([place])
        elif character == "," and opened:
            opened[-1].append(place)
        elif character == "}" and opened:
            cuts = [*opened.pop(), place]
            if len(cuts) > 2 and (first is None or cuts[0] < first[0]):
                first = cuts
        place += 1
    return first


def _class_end(glob: str, place: int) -> int:
    """Return where a class of characters ends that begins before a place; -1 where it doesn't, or behind a slash."""
    end = glob.find("]", place + 1 + glob.startswith("!", place))
    return -1 if "/" in glob[place:end] else end


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
        elif character == "[" and (end := _class_end(level, place)) > 0:
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
