"""What an Airflow connection says about SpeechKit, read and checked. Knows nothing of Airflow itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.credentials import ApiKey, AuthorizedKey, Credential, IamToken, Metadata
from airflow_speechkit.api.endpoints import Endpoints, is_local
from airflow_speechkit.errors import ConnectionSettingsError, SettingsError
from airflow_speechkit.parsing import MalformedError, parse_json
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_speechkit.api.service import Service

log = logging.getLogger(__name__)

#: Unknown fields are warned of once in a process, not by each task and trigger.
_warned: set[tuple[str, tuple[str, ...]]] = set()

#: The documented quota of a folder.
SUBMITS_PER_HOUR = 500

_HOSTS = {
    "recognition_host": "recognition",
    "recognition_v3_host": "recognition_v3",
    "operations_host": "operations",
    "iam_host": "iam",
    "metadata_host": "metadata",
    "storage_host": "storage",
}
#: The fields that say who asks.
CREDENTIAL_FIELDS = (
    "api_key",
    "iam_token",
    "authorized_key",
    "authorized_key_path",
    "service_account_json",
    "service_account_json_path",
    "oauth",
    "use_metadata",
)
#: All that means something in an extra; the last two are the `yandexcloud` type's.
KNOWN_FIELDS = (
    *CREDENTIAL_FIELDS,
    *_HOSTS,
    "api_version",
    "folder_id",
    "archive",
    "aws_conn_id",
    "data_logging_enabled",
    "ca_bundle",
    "submits_per_hour",
    "checks_per_hour",
    "checks_per_second",
    "endpoint",
    "public_ssh_key",
)
#: From here on two names are so alike that one is a typing error (1 is equality): `achive` and `archive` have 0.92.
_TYPING_ERROR = 0.85

#: What a `yandexcloud` connection's `endpoint` is unless it is changed.
_CLOUD = "api.cloud.yandex.net"
_TODO = (
    "Give the connection one of: an API key (`api_key`, or the password), `iam_token`, `authorized_key` (its JSON), "
    "`authorized_key_path`, or `use_metadata` on a virtual machine with a linked service account"
)


@dataclass(frozen=True, kw_only=True)
class SpeechKitConnection:
    """A connection, read.

    :param folder_id: told to v3
    :param archive: where submissions and answers are kept, a path or URL
    :param aws_conn_id: the connection of the bucket
    :param submits_per_hour: how many submissions the folder's quota allows
    :param checks_per_hour: how many status checks of v2 may be made; None leaves it to the poller, which keeps
        a share of the documented quota free for others
    :param checks_per_second: and of v3
    """

    credential: Credential
    endpoints: Endpoints = field(default_factory=Endpoints)
    api_version: ApiVersion = ApiVersion.V2
    folder_id: str | None = None
    archive: str | None = None
    aws_conn_id: str | None = None
    data_logging_enabled: bool | None = None
    ca_bundle: str | None = None
    submits_per_hour: int = SUBMITS_PER_HOUR
    checks_per_hour: float | None = None
    checks_per_second: float | None = None

    @classmethod
    def read(
        cls,
        conn_id: str,
        *,
        conn_type: str | None,
        host: str | None,
        port: int | None,
        schema: str | None,
        password: str | None,
        extra: Mapping[str, Any],
    ) -> SpeechKitConnection:
        """Read a connection's fields. Reads the file at `authorized_key_path`, if one is named.

        A connection made from a URI has nothing but strings in its extra: they are taken for what they mean.

        :raises ConnectionSettingsError: naming the connection and the field, never the value of a secret
        """
        try:
            return cls._read(conn_type or "", host, port, schema, password, fields_of(extra))
        except (ConnectionSettingsError, SettingsError) as error:
            raise ConnectionSettingsError(
                f"Connection `{conn_id}`: {error.what[:1].lower()}{error.what[1:]}", hint=error.hint
            ) from error

    @classmethod
    def _read(
        cls,
        conn_type: str,
        host: str | None,
        port: int | None,
        schema: str | None,
        password: str | None,
        extra: Mapping[str, Any],
    ) -> SpeechKitConnection:
        if conn_type not in ("speechkit", "yandexcloud", "generic", ""):
            raise ConnectionSettingsError(
                f"It is of type `{conn_type}`, and has to be of type `speechkit` or `yandexcloud`",
                hint="Name another connection in `speechkit_conn_id`",
            )
        mistyped = {name: meant for name, meant in unknown_fields(extra, likeness=_TYPING_ERROR).items() if meant}
        if mistyped:
            # Not ignored: with another archive than the one that was meant everything would be paid for again.
            raise ConnectionSettingsError(
                f"Its extra has unknown fields: {', '.join(named_fields(mistyped))}",
                hint="Correct the names in the connection's extra, or remove them",
            )
        ours = conn_type != "yandexcloud"
        version = (_text(extra, "api_version") or ApiVersion.V2.value).lower()
        if version not in tuple(ApiVersion):
            raise ConnectionSettingsError(f"`api_version` is v2 or v3, not {version!r}")
        return cls(
            credential=_credential(extra, password if ours else None, fall_back_to_metadata=not ours),
            endpoints=_endpoints(extra, host if ours else None, port, schema),
            api_version=ApiVersion(version),
            folder_id=_text(extra, "folder_id"),
            archive=_text(extra, "archive"),
            aws_conn_id=_text(extra, "aws_conn_id"),
            data_logging_enabled=_flag(extra, "data_logging_enabled"),
            ca_bundle=_text(extra, "ca_bundle"),
            submits_per_hour=max(1, int(_rate(extra, "submits_per_hour") or SUBMITS_PER_HOUR)),
            checks_per_hour=_rate(extra, "checks_per_hour"),
            checks_per_second=_rate(extra, "checks_per_second"),
        )

    def service(self, user_agent: str, *, attempts: int = 4) -> Service:
        """Return what can be asked through this connection.

        :param attempts: how often a request is sent at most, where sending it again is safe
        """
        from airflow_speechkit.api.service import Service

        return Service(
            self.endpoints,
            self.credential,
            user_agent=user_agent,
            folder_id=self.folder_id,
            data_logging_enabled=self.data_logging_enabled,
            attempts=attempts,
        )


def read_connection(
    found: Any, extra: Mapping[str, Any] | None = None, *, without_password: bool = False
) -> SpeechKitConnection:
    """Read Airflow's connection, and warn once of fields that mean nothing here.

    :param extra: in place of the connection's own
    :raises ConnectionSettingsError: see `SpeechKitConnection.read`
    """
    if extra is None:
        extra = found.extra_dejson
        unknown = tuple(named_fields(unknown_fields(extra)))
        if unknown and (found.conn_id, unknown) not in _warned:
            _warned.add((found.conn_id, unknown))
            log.warning(
                "Connection `%s`: its extra has unknown fields, which are ignored: %s",
                found.conn_id,
                ", ".join(unknown),
            )
    return SpeechKitConnection.read(
        found.conn_id,
        conn_type=found.conn_type,
        host=found.host,
        port=found.port,
        schema=found.schema,
        password=None if without_password else found.password,
        extra=extra,
    )


def unknown_fields(extra: Mapping[str, Any], *, likeness: float = 0.6) -> dict[str, str | None]:
    """Return the fields of an extra that mean nothing here, each with the known one that it is most like.

    :param likeness: how alike two names have to be, from 0 to 1
    """
    unknown = [name for name in fields_of(extra) if name not in KNOWN_FIELDS]
    return {name: next(iter(get_close_matches(name.lower(), KNOWN_FIELDS, 1, likeness)), None) for name in unknown}


def named_fields(unknown: Mapping[str, str | None]) -> list[str]:
    """Return what `unknown_fields` found as people read it."""
    return [f"`{name}`" + (f" (did you mean `{meant}`?)" if meant else "") for name, meant in unknown.items()]


def secrets_in(password: str | None, extra: Mapping[str, Any]) -> list[str]:
    """Return what must be masked in logs, private keys inside of JSON included."""
    fields = fields_of(extra)
    found = [password] if password else []
    for name in ("api_key", "iam_token", "authorized_key", "service_account_json", "oauth"):
        value = fields.get(name)
        if isinstance(value, str):
            found.append(value)
        if name in ("authorized_key", "service_account_json"):
            found += _private_keys(value)
    return found + _private_keys(password)


def _private_keys(value: object) -> list[str]:
    if isinstance(value, str):
        try:
            value = parse_json(value, lenient=True)
        except MalformedError:
            return []
    key = value.get("private_key") if isinstance(value, dict) else None
    return [key] if isinstance(key, str) and key else []


def fields_of(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return an extra's fields that have a value, by their short names: old Airflows and old exports prefix them."""
    fields = {}
    for name, value in extra.items():
        short = name.removeprefix("extra__speechkit__").removeprefix("extra__yandexcloud__")
        if value is not None and value != "" and (short == name or short not in extra):
            fields[short] = value
    return fields


def _credential(extra: Mapping[str, Any], password: str | None, *, fall_back_to_metadata: bool) -> Credential:
    if "oauth" in extra:
        raise ConnectionSettingsError(
            "It has an OAuth token, which is a user's, and asynchronous recognition is for service accounts only",
            hint="Give it the service account's `service_account_json` instead, or use a `speechkit` connection "
            "with an API key",
        )
    given: dict[str, Credential] = {}
    if password:
        given["password"] = (
            AuthorizedKey.from_json(password) if password.lstrip().startswith("{") else _api_key(password, "password")
        )
    if "api_key" in extra:
        given["api_key"] = _api_key(extra["api_key"], "api_key")
    if "iam_token" in extra:
        given["iam_token"] = IamToken(_one_line(extra["iam_token"], "iam_token"))
    for name in ("authorized_key", "service_account_json"):
        if name in extra:
            given[name] = AuthorizedKey.from_json(extra[name])
    for name in ("authorized_key_path", "service_account_json_path"):
        if name in extra:
            given[name] = _key_file(_text(extra, name) or "", name)
    if _flag(extra, "use_metadata"):
        given["use_metadata"] = Metadata()
    if len(set(given.values())) > 1:
        raise ConnectionSettingsError(
            f"It says who asks in more than one way: {', '.join(f'`{name}`' for name in given)}",
            hint="Leave one of them",
        )
    if given:
        return next(iter(given.values()))
    if fall_back_to_metadata:
        return Metadata()
    raise ConnectionSettingsError("It has no key and no token", hint=_TODO)


def _api_key(value: object, name: str) -> ApiKey:
    key = _one_line(value, name)
    if key.startswith("t1."):
        raise ConnectionSettingsError(
            f"`{name}` holds an IAM token where an API key belongs", hint="Put it into `iam_token`"
        )
    return ApiKey(key)


def _one_line(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ConnectionSettingsError(f"`{name}` is a text")
    text = value.strip()
    for scheme in ("api-key ", "bearer "):
        if text.lower().startswith(scheme):
            text = text[len(scheme) :].strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConnectionSettingsError(
            f"`{name}` has characters that no key or token has", hint="Copy it again, in one piece"
        )
    return text


def _key_file(path: str, name: str) -> AuthorizedKey:
    try:
        with open(path, encoding="utf-8") as file:
            return AuthorizedKey.from_json(file.read())
    except ConnectionSettingsError:
        raise
    except (OSError, ValueError) as error:
        # `ValueError`: bytes that aren't UTF-8, or a path that no file can have.
        kind = type(error).__name__
    # Not from within `except`: a decoder's error holds the whole file.
    raise ConnectionSettingsError(
        f"`{name}`: {path!r} can't be read ({kind})",
        hint="The file has to be where the task and the triggerer run, and readable there",
    )


def _endpoints(extra: Mapping[str, Any], host: str | None, port: int | None, schema: str | None) -> Endpoints:
    endpoints = Endpoints()
    if host:
        endpoints = Endpoints.at(_url(host, schema, port))
    named = {part: _url(_text(extra, name) or "") for name, part in _HOSTS.items() if name in extra}
    if extra.get("endpoint", _CLOUD) != _CLOUD and not host and not named:
        raise ConnectionSettingsError(
            f"Its `endpoint` is another than {_CLOUD}, and which hosts SpeechKit has there can't be told from that",
            hint="Name them: `recognition_host`, `recognition_v3_host`, `operations_host`, `iam_host`, `storage_host`",
        )
    return replace(endpoints, **named)


def _url(host: str, schema: str | None = None, port: int | None = None) -> str:
    host = host.strip()
    scheme, separator, place = host.partition("://")
    if not separator:
        scheme, place = "", host
    name, slash, path = place.partition("/")
    if name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"
    if port and not name.rpartition("]")[2].count(":"):
        name = f"{name}:{port}"
    if not scheme:
        # The emulator speaks plain HTTP, and nothing on loopback has a certificate.
        local = is_local(name.rpartition("]")[0].lstrip("[") or name.partition(":")[0])
        scheme = schema if schema in ("http", "https") else "http" if local else "https"
    return f"{scheme}://{name}{slash}{path}"


def _text(extra: Mapping[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is not None and not isinstance(value, str):
        raise ConnectionSettingsError(f"`{name}` is a text")
    return value.strip() if value else None


def _flag(extra: Mapping[str, Any], name: str) -> bool | None:
    value = extra.get(name)
    if value is None or isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    text = str(value).lower() if isinstance(value, str | int) else ""
    if text not in known:
        raise ConnectionSettingsError(f"`{name}` is true or false")
    return known[text]


def _rate(extra: Mapping[str, Any], name: str) -> float | None:
    if name not in extra:
        return None
    try:
        rate = float(extra[name])
    except (TypeError, ValueError, OverflowError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ConnectionSettingsError(f"`{name}` is a number above zero")
    return rate
