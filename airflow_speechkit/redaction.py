"""Addresses and texts without what must not be repeated in logs, tables, templates and exceptions."""

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

#: What a cut user name and password leave behind: whoever reads the address refuses it.
CUT = "***"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)
#: Before the `@` of their addresses stands a connection id, and a `?` is part of the key.
_S3 = ("s3", "s3a", "s3n")
_COLON = re.compile(r":|%3a", re.IGNORECASE)
#: What a template will be is not known: each stands for itself, as one character that no address has.
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_STAND_INS = range(0xF0000, 0xFFFFE)
_NO_PORT = re.compile(r"[^\[]*:(?![\d\U000F0000-\U000FFFFD]*$)")
#: The query of a presigned link, from its `?` on, also where a tool has encoded it.
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
    """Cut what may be a credential out of an address: a password, a link's query and fragment.

    A ``user:password@`` leaves ``***@`` behind, which nothing takes for a connection's id. Keys and paths may have a
    ``?`` or ``#`` of their own: of ``s3://`` addresses, paths and keys only the query of a presigned link is cut. Jinja
    templates in the address stay as they are where nothing before them is cut.

    :param address: a URL, a path or a key, or a template of one
    """
    templates: list[str] = []

    def stand_in(found: re.Match[str]) -> str:
        templates.append(found[0])
        return chr(_STAND_INS[len(templates) - 1])

    text = _TEMPLATE.sub(stand_in, address) if "{" in address else address
    text = _cleaned(text)
    for place, template in enumerate(templates):
        text = text.replace(chr(_STAND_INS[place]), template)
    return text


def _cleaned(text: str) -> str:
    # Blanks before a scheme lead nowhere, but don't make a credential of it any less.
    begin = len(text) - len(text.lstrip())
    found = _SCHEME.match(text, begin)
    if found is None:
        return _SIGNED.sub("", _BARE_USER.sub(f"{CUT}@", text))
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme in _S3:
        if _COLON.search(rest.partition("/")[0]):
            # A secret may have a slash in it. Then its `@` seems to stand in the key.
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
    """Return a text of somebody else's on one line, without keys, tokens, and the passwords and queries of links.

    Halves of surrogate pairs are replaced by U+FFFD: what can't be written could not be archived either.
    """
    text = " ".join(writable(text[:_LOOKED_AT]).split())
    for pattern in _SECRETS:
        text = pattern.sub("***", text)
    return clean_text(_QUERY.sub(r"\1", text))[:_LONGEST]


def where_it_came_from(error: BaseException) -> str:
    """Return an error's kind and traceback, without its message: that may repeat what was read."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
