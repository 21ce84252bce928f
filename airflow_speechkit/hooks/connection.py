"""The fields of an Airflow connection for SpeechKit, parsed and checked."""

from __future__ import annotations

import logging
import math
import platform
import re
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_speechkit import __version__
from airflow_speechkit.api.credentials import ApiKey, AuthorizedKey, Credential, IamToken, Metadata
from airflow_speechkit.api.endpoints import Endpoints, is_local
from airflow_speechkit.errors import ConnectionSettingsError
from airflow_speechkit.hooks.storage import DEFAULT_AWS_CONN_ID
from airflow_speechkit.parsing import MalformedError, convert, parse_json
from airflow_speechkit.provider import FIELDS
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from airflow_speechkit.api.service import Service

log = logging.getLogger(__name__)

#: The documented quota of a folder.
SUBMITS_PER_HOUR = 500

_PREFIX = re.compile("extra__(speechkit|yandexcloud)__")
#: From here on, of 1, an unknown name is a typing error: `achive` and `archive` have 0.92.
_TYPING_ERROR = 0.85
_MUST_BE = {
    bool: "true or false",
    int: "a whole number above zero",
    float: "a number above zero",
    str: "a text",
}

#: A `yandexcloud` connection's `endpoint` unless it is changed.
_CLOUD = "api.cloud.yandex.net"


@dataclass(frozen=True, kw_only=True)
class SpeechKitConnection:
    """A connection.

    :param credential: of the service account
    :param endpoints: the addresses of the service
    :param api_version: of tasks that set none
    :param folder_id: sent to v3
    :param archive: path or URL of the folder for submissions and answers
    :param aws_conn_id: the connection of the bucket
    :param data_logging_enabled: whether the service may keep recordings
    :param ca_bundle: file of the certificate authorities to trust
    :param submits_per_hour: how many submissions the folder's quota allows
    :param checks_per_hour: how many status checks of v2 may be made; None leaves it to the poller, which keeps
        a share of the documented quota free for others
    :param checks_per_second: the same for v3
    """

    credential: Credential
    endpoints: Endpoints = field(default_factory=Endpoints)
    api_version: ApiVersion = ApiVersion.V2
    folder_id: str | None = None
    archive: str | None = None
    aws_conn_id: str = DEFAULT_AWS_CONN_ID
    data_logging_enabled: bool | None = None
    ca_bundle: str | None = None
    submits_per_hour: int = SUBMITS_PER_HOUR
    checks_per_hour: float | None = None
    checks_per_second: float | None = None

    def service(self, *, attempts: int = 4) -> Service:
        """Return the service that this connection leads to.

        :param attempts: how often a request is sent at most, where sending it again is safe
        """
        from airflow import __version__ as airflow_version

        from airflow_speechkit.api.service import Service

        return Service(
            self.endpoints,
            self.credential,
            # For the service's support.
            user_agent=f"airflow-speechkit/{__version__} apache-airflow/{airflow_version} "
            f"python/{platform.python_version()}",
            folder_id=self.folder_id,
            data_logging_enabled=self.data_logging_enabled,
            attempts=attempts,
        )


def read_connection(found: Any) -> SpeechKitConnection:
    """Parse Airflow's connection, and log its unknown fields once.

    :param found: Airflow's connection; in a URI all values of the extra are strings
    :raises ConnectionSettingsError: naming the connection and the field, never the value of a secret
    """
    try:
        connection = parse_connection(found)
    except ConnectionSettingsError as error:
        what = f"Connection `{found.conn_id}`: {error.what[:1].lower()}{error.what[1:]}"
        raise ConnectionSettingsError(what, hint=error.hint) from error
    unknown = ", ".join(unknown_fields(found.extra_dejson).values())
    if unknown:
        _warn(found.conn_id, unknown)
    return connection


@cache
def _warn(conn_id: str, unknown: str) -> None:
    """Log unknown fields once in a process, not for each task and trigger."""
    log.warning("Connection `%s`: unknown fields in its extra are ignored: %s", conn_id, unknown)


def parse_connection(
    found: Any, *, ignored: Collection[str] = (), credential: Credential | None = None
) -> SpeechKitConnection:
    """Parse a connection's fields. Reads the file at `authorized_key_path`, if one is named.

    :param found: Airflow's connection
    :param ignored: fields of its extra that don't count
    :param credential: in place of the connection's own
    :raises ConnectionSettingsError: naming the field, never the value of a secret
    """
    conn_type = found.conn_type or "speechkit"
    if conn_type not in ("speechkit", "yandexcloud", "generic"):
        raise ConnectionSettingsError(
            f"The connection is of type `{conn_type}`, and must be of type `speechkit` or `yandexcloud`",
            hint="Name another connection in `speechkit_conn_id`",
        )
    unknown = unknown_fields(found.extra_dejson)
    mistyped = [text for name, text in unknown.items() if text != f"`{name}`" and name not in ignored]
    if mistyped:
        # Not ignored: in another archive than the intended one everything would be paid for again.
        raise ConnectionSettingsError(
            f"The extra has unknown fields: {', '.join(mistyped)}",
            hint="Correct or remove the names in the connection's extra",
        )
    is_ours = conn_type != "yandexcloud"
    values = {name: _value(name, value) for name, value in fields_of(found.extra_dejson).items() if name in FIELDS}
    if credential is None:
        credential = _credential(values, found.password if is_ours else None)
        if credential is None and is_ours:
            raise ConnectionSettingsError(
                "The connection has no key and no token",
                hint="Put an API key or the JSON of an authorized key into the password, or set one of `api_key`, "
                "`iam_token`, `authorized_key`, `authorized_key_path`, or on a virtual machine with a linked service "
                "account `use_metadata`",
            )
    if "api_version" in values:
        values["api_version"] = ApiVersion(values["api_version"])
    return SpeechKitConnection(
        credential=credential or Metadata(),
        endpoints=_endpoints(values, _url(found.host, found.schema, found.port) if is_ours and found.host else None),
        **{one.name: values[one.name] for one in fields(SpeechKitConnection) if one.name in values},
    )


def fields_of(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return an extra's fields that have a value. The prefixes of old exports are removed."""
    given = {}
    for name, value in extra.items():
        short = _PREFIX.sub("", name)
        if value is not None and value != "" and (short == name or short not in extra):
            given[short] = value
    return given


def unknown_fields(extra: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that aren't known, each as a message names it: with the known one that it was meant to be."""
    unknown = {}
    for name in fields_of(extra):
        if name not in FIELDS:
            meant = get_close_matches(name.lower(), FIELDS, 1, _TYPING_ERROR)
            unknown[name] = f"`{name}`" + (f" (did you mean `{meant[0]}`?)" if meant else "")
    return unknown


def secrets_in(password: str | None, extra: Mapping[str, Any]) -> list[str]:
    """Return the texts to mask in logs, including private keys inside of JSON."""
    given = fields_of(extra)
    found = [password, *(given.get(name) for name, one in FIELDS.items() if one.is_secret)]
    return [one for one in (*found, *map(_private_key, found)) if isinstance(one, str) and one]


def _private_key(value: object) -> object:
    if isinstance(value, str):
        try:
            value = parse_json(value, lenient=True)
        except MalformedError:
            return None
    return value.get("private_key") if isinstance(value, dict) else None


def _value(name: str, value: Any) -> Any:
    """Return a field's value in its type: a connection made from a URI has only strings."""
    kind = FIELDS[name].kind
    if isinstance(value, str):
        value = value.strip()
    with suppress(msgspec.ValidationError):
        converted = convert(value, kind, strict=False)
        if kind not in (int, float) or 0 < converted < math.inf:
            return converted
    raise ConnectionSettingsError(f"`{name}` must be {_MUST_BE.get(kind, 'v2 or v3')}")


def _credential(values: Mapping[str, Any], password: str | None) -> Credential | None:
    if "oauth" in values:
        raise ConnectionSettingsError(
            "The connection has the OAuth token of a user, and asynchronous recognition is for service accounts only",
            hint="Set `service_account_json` instead, or use a `speechkit` connection with an API key",
        )
    found = {name: read(values[name], name) for name, read in CREDENTIALS.items() if name in values}
    if password:
        is_json = password.lstrip().startswith("{")
        found["password"] = _authorized_key(password, "") if is_json else _api_key(password, "password")
    given = {name: one for name, one in found.items() if one is not None}
    if len(set(given.values())) > 1:
        raise ConnectionSettingsError(
            f"The connection has more than one credential: {', '.join(f'`{name}`' for name in given)}",
            hint="Remove all except one",
        )
    return next(iter(given.values()), None)


def _api_key(value: str, name: str) -> ApiKey:
    key = _one_line(value, name)
    if key.startswith("t1."):
        raise ConnectionSettingsError(
            f"`{name}` has an IAM token in place of an API key", hint="Move it to `iam_token`"
        )
    return ApiKey(key)


def _one_line(value: str, name: str) -> str:
    text = re.sub("^(api-key|bearer) ", "", value.strip(), flags=re.IGNORECASE).strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConnectionSettingsError(
            f"`{name}` has characters that no key or token has", hint="Copy it again, in one piece"
        )
    return text


def _authorized_key(value: Any, _: str) -> AuthorizedKey:
    return AuthorizedKey.from_json(value)


def _key_file(path: str, name: str) -> AuthorizedKey:
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        # `ValueError`: bytes that aren't UTF-8, or a path that no file can have.
        kind = type(error).__name__
    else:
        return AuthorizedKey.from_json(text)
    # Not from within `except`: a decoder's error holds the whole file.
    raise ConnectionSettingsError(
        f"`{name}`: {path!r} can't be read ({kind})",
        hint="The file must be readable on the machines that run tasks and triggers",
    )


#: The fields that have a credential.
CREDENTIALS: dict[str, Callable[[Any, str], Credential | None]] = {
    "api_key": _api_key,
    "iam_token": lambda value, name: IamToken(_one_line(value, name)),
    "authorized_key": _authorized_key,
    "service_account_json": _authorized_key,
    "authorized_key_path": _key_file,
    "service_account_json_path": _key_file,
    "use_metadata": lambda value, name: Metadata() if value else None,
}


def _endpoints(values: Mapping[str, Any], url: str | None) -> Endpoints:
    named = {one.name: _url(values[f"{one.name}_host"]) for one in fields(Endpoints) if f"{one.name}_host" in values}
    if values.get("endpoint", _CLOUD) != _CLOUD and not url and not named:
        raise ConnectionSettingsError(
            f"The connection's `endpoint` isn't {_CLOUD}, and SpeechKit's hosts there are unknown",
            hint="Set `recognition_host`, `recognition_v3_host`, `operations_host`, `iam_host` and `storage_host`",
        )
    return replace(Endpoints.at(url) if url else Endpoints(), **named)


def _url(host: str, schema: str | None = None, port: int | None = None) -> str:
    scheme, separator, rest = host.strip().partition("://")
    if not separator:
        scheme, rest = "", scheme
    place, slash, path = rest.partition("/")
    name = re.sub(r":\d+$", "", place)
    if port and name == place:
        place = f"{place}:{port}"
    if not scheme:
        # Plain HTTP on loopback: the emulator, and nothing there has a certificate.
        scheme = schema if schema in ("http", "https") else "http" if is_local(name.strip("[]")) else "https"
    return f"{scheme}://{place}{slash}{path}"
