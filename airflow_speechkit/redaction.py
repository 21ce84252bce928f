"""What errors say, the service's and our own, without what must not be repeated in logs, tables and exceptions."""

from __future__ import annotations

import re
import traceback

from airflow_speechkit.parsing import writable

#: Nobody reads more of an error, in characters.
_LONGEST = 500
#: Nor is more looked at: a service's text may be of megabytes, and the patterns take long over some.
_LOOKED_AT = 8 * _LONGEST

#: What must never be repeated, wherever it turns up in a text of the service: keys, tokens and links' queries.
_SECRETS = (
    re.compile(r"AQVN[\w*-]{8,}", re.ASCII),
    # IAM tokens, by the mask that their documentation gives, but wider: a cut one is a secret as well.
    re.compile(r"\bt1\.[\w-]{8,}={0,2}(?:\.[\w-]+={0,2})?", re.ASCII),
    re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}", re.ASCII),
    re.compile(r"\by[0-3]_[\w-]{20,}", re.ASCII),
    re.compile(r"\bYC[\w-]{20,}", re.ASCII),
    re.compile(r"-----BEGIN[^-]*KEY-----.*?(?:-----END[^-]*KEY-----|$)", re.ASCII | re.DOTALL),
)
_QUERY = re.compile(r"((?:https?|s3)://[^\s?\"'<>]+)\?[^\s\"'<>]*")


def without_secrets(text: str) -> str:
    """Return a text of somebody else's on one line, with keys, tokens and the queries of links taken out.

    Halves of surrogate pairs are replaced by U+FFFD: what can't be written could not be archived either.
    """
    text = " ".join(writable(text[:_LOOKED_AT]).split())
    for pattern in _SECRETS:
        text = pattern.sub("***", text)
    return _QUERY.sub(r"\1", text)[:_LONGEST]


def where_it_came_from(error: BaseException) -> str:
    """Return an error's kind and traceback, without its message: that may repeat what was read."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
