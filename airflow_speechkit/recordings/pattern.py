"""Prefixes and globs in a bucket.

``s3://bucket/calls/`` (a trailing slash) is everything below, at any depth. In a glob, ``*`` is any number of
characters and ``?`` is one, but neither is a slash; ``[abc]``, ``[a-z]`` and ``[!a]`` are one character that isn't a
slash; ``**`` between slashes is any number of levels, none included; ``{ogg,mp3}`` is either, with globs, slashes and
further braces inside. Braces without a comma are themselves, and so are ``[*]``, ``[?]``, ``[[]`` and ``[{]``. An
object whose key equals the glob takes precedence: `RecordingSource.find` asks for it first.
"""

from __future__ import annotations

import fnmatch
import os.path
import re
from dataclasses import dataclass
from functools import cache, cached_property

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.address import check_bucket, check_key, split_s3
from airflow_speechkit.redaction import clean_address

_MAGIC = re.compile(r"[*?\[]")
#: A class of characters, which may have braces in it; or the innermost braces with a comma.
_CLASS_OR_BRACES = re.compile(r"\[!?[^/][^]/]*\]|\{([^{}]*,[^{}]*)\}")
#: Braces multiply.
_MOST_ALTERNATIVES = 1000

#: All levels of a path, a class of characters, or one character.
_TOKENS = re.compile(r"(?<![^/])\*\*(?:/|\Z)|\[!?[^/][^]/]*\]|.", re.DOTALL)
_WILDCARDS = {"**/": "(?:[^/]*/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


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
    def globs(self) -> list[str]:
        """Return it without braces: a key matches if it matches one of these."""
        return alternatives(self.glob)

    @cached_property
    def prefix(self) -> str:
        """Return what every key that matches begins with: what to list."""
        heads = [_MAGIC.split(one, maxsplit=1)[0] for one in self.globs]
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
        """Return whether a key is one of these."""
        return any(glob_matches(glob, key) for glob in self.globs)


def is_pattern(text: str) -> bool:
    """Return whether an address is a prefix or a glob: ``s3://`` with a glob character, or a slash at its end."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != "s3":
        return False
    _, _, key = rest.partition("/")
    return not key or key.endswith("/") or has_magic(key)


def has_magic(key: str) -> bool:
    """Return whether there is a glob character in a key, or braces with alternatives."""
    return _MAGIC.search(key) is not None or _CLASS_OR_BRACES.search(key) is not None


def parse_pattern(text: str) -> RecordingPattern:
    """Read a prefix or a glob.

    :param text: ``s3://bucket/prefix/``, ``s3://conn_id@bucket/2026-*/*.ogg``: what `is_pattern`
    :raises RecordingError: it isn't one
    """
    text = clean_address(text)
    conn_id, bucket, glob = split_s3(text.partition("://")[2], text)
    check_bucket(bucket, text)
    check_key(glob, text)
    alternatives(glob)
    return RecordingPattern(bucket, glob, conn_id)


def alternatives(glob: str) -> list[str]:
    """Expand the braces of a glob, as a shell does; a glob without braces is returned alone.

    :raises RecordingError: there are too many
    """
    found: list[str] = []
    left = [glob]
    while left:
        text = left.pop()
        braces = next((one for one in _CLASS_OR_BRACES.finditer(text) if one[1] is not None), None)
        if braces is None:
            found.append(text)
        else:
            left += [f"{text[: braces.start()]}{one}{text[braces.end() :]}" for one in braces[1].split(",")]
        if len(found) + len(left) > _MOST_ALTERNATIVES:
            raise RecordingError(
                f"The braces of this glob have more than {_MOST_ALTERNATIVES:,} alternatives",
                recording=glob,
                hint="Use `*`, or a prefix with `include`",
            )
    return sorted(set(found))


def glob_matches(glob: str, key: str) -> bool:
    """Return whether a whole key matches a glob without braces.

    :param glob: one that is empty or ends in a slash matches everything below
    """
    return _regex(glob).fullmatch(key) is not None


@cache
def _regex(glob: str) -> re.Pattern[str]:
    def translate(token: str) -> str:
        if token in _WILDCARDS:
            return _WILDCARDS[token]
        # Only what is inside of "(?s:[a-z])\Z".
        return f"(?!/){fnmatch.translate(token)[4:-3]}" if len(token) > 1 else re.escape(token)

    whole = f"{glob}**" if not glob or glob.endswith("/") else glob
    return re.compile("".join(map(translate, _TOKENS.findall(whole))), re.DOTALL)
