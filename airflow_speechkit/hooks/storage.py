"""Object Storage through the amazon provider's connection, as users of the cloud have it already."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_speechkit.api.endpoints import is_local
from airflow_speechkit.compat import lookup_lock
from airflow_speechkit.errors import ConnectionSettingsError, SettingsError
from airflow_speechkit.redaction import CUT, clean_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import ObjectStoragePath

DEFAULT_AWS_CONN_ID = "aws_default"

#: Object Storage's only region, for connections that name none.
DEFAULT_REGION = "ru-central1"

_S3 = ("s3", "s3a", "s3n")

_CONNECTION = (
    "Set it up: type `aws`, a static key as login and password, "
    'extra {"endpoint_url": "https://storage.yandexcloud.net", "region_name": "ru-central1"}'
)
_ADD = (
    "Add it: airflow connections add {} --conn-type aws --conn-login KEY_ID --conn-password SECRET --conn-extra "
    """'{{"endpoint_url": "https://storage.yandexcloud.net", "region_name": "ru-central1"}}'. Or name another one: """
    "s3://conn_id@bucket/folder"
)

log = logging.getLogger(__name__)


def storage_client(aws_conn_id: str = DEFAULT_AWS_CONN_ID, *, storage_endpoint: str, connections: int = 32) -> Any:
    """Return a boto3 S3 client for the bucket that the service reads recordings from.

    Everything comes from the connection, `config_kwargs` in its extra included. Where its extra names no
    ``endpoint_url``, the storage that the service reads from is taken, not Amazon's own.

    :param aws_conn_id: connection of the amazon provider
    :param storage_endpoint: URL of the storage that the service reads from
    :param connections: how many requests it can have under way
    :raises ConnectionSettingsError: there is no such connection, or it can't be read
    """
    from botocore.config import Config

    with lookup_lock():
        hook = _s3_hook(aws_conn_id)
        session = hook.get_session(region_name=hook.region_name)
    endpoint = hook.conn_config.get_service_endpoint_url(service_name="s3")
    if endpoint and urlsplit(endpoint).netloc.lower() != urlsplit(storage_endpoint).netloc.lower():
        log.warning(
            "Connection %r reads buckets at %s, and the service is sent links to %s: are both the same storage? "
            "(`storage_host` in the speechkit connection sets the second.)",
            aws_conn_id,
            urlsplit(endpoint).hostname,
            urlsplit(storage_endpoint).hostname,
        )
    ours = Config(
        region_name=DEFAULT_REGION,
        max_pool_connections=connections,
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 5},
        # The checksums that boto3 adds by itself are Amazon's: other storages refuse such uploads.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    if is_local(urlsplit(endpoint or storage_endpoint).hostname):
        ours = ours.merge(Config(proxies={}))
    return session.client(
        "s3",
        region_name=hook.region_name or session.region_name or DEFAULT_REGION,
        endpoint_url=endpoint or storage_endpoint,
        config=ours.merge(hook.config),
        verify=hook.verify,
    )


def object_storage_path(url: str, aws_conn_id: str = DEFAULT_AWS_CONN_ID) -> ObjectStoragePath:
    """Return Airflow's path for a folder or file, on whose filesystem no listing is cached.

    :param url: ``s3://bucket/folder/``, ``s3://conn_id@bucket/folder/``, ``file:///folder/``, or a local path
    :param aws_conn_id: connection of the amazon provider for ``s3://`` addresses that name none
    :raises SettingsError: it has credentials in it, or no filesystem is known for such addresses
    :raises ConnectionSettingsError: there is no such connection, or it can't be read
    """
    url = clean_address(url)
    check_no_credentials(url)
    scheme, authority = _parts(url)
    check_s3fs(url)
    conn_id = None
    with lookup_lock():
        if scheme in _S3:
            named = authority.rpartition("@")[0]
            conn_id = None if named else aws_conn_id
            # Checked here: the path's own error for a missing connection comes late, and hides what it was.
            # What the path makes of it can't be asked in Airflow 2.11.
            _s3_hook(named or aws_conn_id)
        path = _path(url, conn_id)
        if scheme in _S3 and path.fs.anon:
            raise ConnectionSettingsError(
                f"The connection `{named or aws_conn_id}` has no keys, and none are found elsewhere: the bucket would "
                "be asked anonymously",
                hint=_CONNECTION,
            )
    # Airflow makes the filesystem, keeps it for the process, and passes on no option that would switch this off.
    # With the switch thrown nothing more is kept; what was kept before is dropped.
    listings = path.fs.dircache
    listings.use_listings_cache = False
    listings.clear()
    endpoint = getattr(path.fs, "endpoint_url", None)
    if endpoint and is_local(urlsplit(endpoint).hostname):
        # Loopback is reached directly, whatever proxy the environment names.
        path.fs.config_kwargs = {"proxies": {}, **path.fs.config_kwargs}
    return path


def check_s3fs(url: str) -> None:
    """Check that an address, if it is in a bucket, can be read and written: what does it comes with the extra ``s3``.

    :raises SettingsError: s3fs is needed, and isn't installed or doesn't fit
    """
    if _parts(url)[0] not in _S3:
        return
    try:
        import s3fs  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"{clean_address(url)} needs the package s3fs, which can't be imported ({error})",
            hint="Install the extra s3: pip install 'airflow-speechkit[s3]'",
            retry="ends in the same way until then",
        ) from error


def no_such_connection(conn_id: str, unread: Mapping[str, str] | None = None) -> ConnectionSettingsError:
    """Return the error for a bucket's connection that isn't found.

    :param conn_id: of the connection
    :param unread: which secrets backends could not be asked, by their class's name, and why
    """
    unread = dict(unread or {})
    database = unread.pop("MetastoreBackend", None)
    places = [
        f"the environment (AIRFLOW_CONN_{conn_id.upper()}) and secrets backends don't have it",
        *(f"{backend} failed ({why})" for backend, why in unread.items()),
        f"Airflow's metadata database can't be read ({database})"
        if database
        else "nor does Airflow's metadata database",
    ]
    return ConnectionSettingsError(
        f"There is no connection `{conn_id}` to reach the bucket with: {', '.join(places)}", hint=_ADD.format(conn_id)
    )


def check_no_credentials(url: str, what: str = "An address") -> None:
    """Check that what stands before the ``@`` of a URL is a connection id, and not the keys themselves, or `CUT`.

    Some tools write them like this. Here they would get into logs, messages and the triggerer's database.

    :param what: what the URL is, for the message
    :raises SettingsError: there are credentials in it
    """
    scheme, authority = _parts(url)
    # No bucket has a ':' in its name.
    user = authority.rpartition("@")[0]
    if user == CUT or ":" in (authority if scheme in _S3 else user):
        raise SettingsError(
            f"{what} ({scheme}://…) has what looks like a key and its secret where a connection id or a bucket's name "
            "belongs: they can't be given in an address, and are cut",
            hint=f"Put them into an Airflow connection, as its login and password, and write {scheme}://conn_id@bucket/"
            "folder. A secret that stood in a DAG, a template or a variable may have been seen: replace it",
        )


def _parts(url: str) -> tuple[str, str]:
    """Return a URL's scheme and what stands before its path; of a local path neither."""
    scheme, separator, rest = url.partition("://")
    return (scheme.lower(), rest.partition("/")[0]) if separator else ("", "")


def _path(url: str, conn_id: str | None) -> ObjectStoragePath:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        path = ObjectStoragePath(url, conn_id=conn_id) if conn_id else ObjectStoragePath(url)
        # Asks for the filesystem, which Airflow 2.11 and old versions of its paths leave for later.
        path.fs  # noqa: B018
    except ValueError as error:
        scheme, _ = _parts(url)
        if scheme in ("", "file", *_S3):
            raise SettingsError(
                f"{url!r} is no address that can be read", hint="Write s3://bucket/folder, or a path in full"
            ) from error
        raise SettingsError(
            f"This Airflow has no filesystem for addresses that begin with {scheme}://",
            hint="Write s3://bucket/folder, file:///folder, or a local path; others need the provider that brings "
            f"{scheme}:// along",
        ) from None
    return path


def _s3_hook(aws_conn_id: str) -> Any:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=aws_conn_id)
    unreadable = None
    try:
        found = bool(hook.conn_config)
        endpoint = hook.conn_config.get_service_endpoint_url(service_name="s3") or ""
    except (TypeError, ValueError) as error:
        unreadable = type(error).__name__
    # Not from within `except`: a parser's error holds the whole extra.
    if unreadable is not None:
        raise ConnectionSettingsError(
            f"The extra of the connection {aws_conn_id!r} can't be read ({unreadable})", hint=_CONNECTION
        )
    if "@" in endpoint:
        raise ConnectionSettingsError(
            f"The `endpoint_url` of the connection {aws_conn_id!r} has a user name or password in it", hint=_CONNECTION
        )
    if not found:
        raise no_such_connection(aws_conn_id)
    return hook
