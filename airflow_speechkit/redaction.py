"""Remove credentials from addresses and texts for logs, tables, templates and exceptions."""

from __future__ import annotations

import re
import traceback

from airflow_speechkit.parsing import writable

#: How much of a text is kept, in characters.
_LONGEST = 500
#: How much of it is searched: a service's text can have megabytes, on which the patterns are slow.
_MOST_SEARCHED = 8 * _LONGEST

#: Keys and tokens.
_SECRETS = (
    re.compile(r"AQVN[\w*-]{8,}", re.ASCII),
    # IAM tokens. Wider than the documented mask: a cut one is a secret too.
    re.compile(r"\bt1\.[\w-]{8,}={0,2}(?:\.[\w-]+={0,2})?", re.ASCII),
    re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}", re.ASCII),
    re.compile(r"\by[0-3]_[\w-]{20,}", re.ASCII),
    re.compile(r"\bYC[\w-]{20,}", re.ASCII),
    re.compile(r"-----BEGIN[^-]*KEY-----.*?(?:-----END[^-]*KEY-----|$)", re.ASCII | re.DOTALL),
)

_QUERY = re.compile(r"((?:https?|s3)://[^\s?\"'<>]+)\?[^\s\"'<>]*")

#: Takes the place of a user name and password. An address with it is refused.
CUT = "***"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)
#: Their addresses have a connection id before the `@`, and a `?` is part of the key.
_S3 = ("s3", "s3a", "s3n")
_COLON = re.compile(r":|%3a", re.IGNORECASE)
#: The value of a template is not known: each is replaced by a character that no address has, and restored afterwards.
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_PLACEHOLDERS = range(0xF0000, 0xFFFFE)
_NO_PORT = re.compile(r"[^\[]*:(?![\d\U000F0000-\U000FFFFD]*$)")
#: The query of a presigned link, from its `?` on, also percent-encoded.
_SIGNED = re.compile(
    r"(?:\?|%3f)(?:(?:(?!\?|%3f).)*?(?:(?<![\w-])|(?<=%26)))?"
    r"(?:x-(?:amz|goog|yc|oss|cos|obs|ms)-[\w-]+|awsaccesskeyid|googleaccessid|signature|sig|(?:\w+[_-])?token|password|secret)"
    r"(?:=|%3d).*",
    re.IGNORECASE | re.DOTALL,
)
#: `user:password@` before a storage's host, without a scheme. Before anything else it may be part of a key.
_BARE_USER = re.compile(r"^(?://)?[^/?#@\s]*:[^/?#@\s]*@(?=[\w.-]*(?:storage|s3)[\w.-]*\.[A-Za-z]{2,}(?::\d+)?/)")
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+", re.ASCII)


def clean_address(address: str) -> str:
    """Remove what can be a credential from an address: a password, a link's query and fragment.

    A ``user:password@`` becomes ``***@``, which is not a connection id. Keys and paths can have a ``?`` or ``#``: of
    ``s3://`` addresses, paths and keys only the query of a presigned link is removed. Jinja templates are kept, unless
    they are in a removed part.

    :param address: a URL, a path or a key, or a template of one
    """
    templates: list[str] = []

    def placeholder(found: re.Match[str]) -> str:
        templates.append(found[0])
        return chr(_PLACEHOLDERS[len(templates) - 1])

    text = _TEMPLATE.sub(placeholder, address) if "{" in address else address
    text = _cleaned(text)
    for place, template in enumerate(templates):
        text = text.replace(chr(_PLACEHOLDERS[place]), template)
    return text


def _cleaned(text: str) -> str:
    # An address with blanks before its scheme is invalid, but can have a credential.
    begin = len(text) - len(text.lstrip())
    found = _SCHEME.match(text, begin)
    if found is None:
        return _SIGNED.sub("", _BARE_USER.sub(f"{CUT}@", text))
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme in _S3:
        if _COLON.search(rest.partition("/")[0]):
            # A secret can have a slash in it. Then its `@` is in the key.
            rest = f"{CUT}@{rest.rpartition('@')[2]}" if "@" in rest else CUT
        return text[: found.end()] + _SIGNED.sub("", rest)
    if scheme == "file":
        return text[: found.end()] + _SIGNED.sub("", rest)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if at and (_COLON.search(user) or scheme in ("http", "https")):
        rest = f"{CUT}@{rest[len(user) + 1 :]}"
    elif not at and _NO_PORT.match(authority):
        rest = (
            f"{CUT}@{rest.rpartition('@')[2]}"
            if "@" in rest
            else f"{authority.partition(':')[0]}:{CUT}{rest[len(authority) :]}"
        )
    return text[: found.end()] + _SIGNED.sub("", re.split(r"[?#]", rest, maxsplit=1)[0])


def clean_text(text: str) -> str:
    """Return a message with the addresses in it cleaned."""
    return _LINK.sub(lambda link: clean_address(link[0]), text) if "://" in text else text


def without_secrets(text: str) -> str:
    """Return a foreign text on one line, without keys, tokens, and the passwords and queries of links.

    Halves of surrogate pairs, which can't be written as UTF-8, are replaced by U+FFFD.
    """
    text = " ".join(writable(text[:_MOST_SEARCHED]).split())
    for pattern in _SECRETS:
        text = pattern.sub("***", text)
    return clean_text(_QUERY.sub(r"\1", text))[:_LONGEST]


def where_it_came_from(error: BaseException) -> str:
    """Return an error's class and traceback, without its message, which can quote what was read."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
