"""Object Storage, through connections of the amazon provider."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_speechkit.api.endpoints import is_local
from airflow_speechkit.errors import ConnectionSettingsError, SettingsError
from airflow_speechkit.redaction import CUT, clean_address

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

DEFAULT_AWS_CONN_ID = "aws_default"

#: Object Storage's only region, for connections that name none.
DEFAULT_REGION = "ru-central1"

_S3 = ("s3", "s3a", "s3n")

_EXTRA = '{"endpoint_url": "https://storage.yandexcloud.net", "region_name": "ru-central1"}'
_CONNECTION = f"Set it up: type `aws`, a static key as login and password, extra {_EXTRA}"

log = logging.getLogger(__name__)


def storage_client(aws_conn_id: str = DEFAULT_AWS_CONN_ID, *, storage_endpoint: str, connections: int = 32) -> Any:
    """Return a boto3 S3 client for the bucket of the recordings.

    Everything comes from the connection, including `config_kwargs` in its extra. Without an ``endpoint_url`` the
    storage that the service reads from is used, not Amazon's.

    :param aws_conn_id: connection of the amazon provider
    :param storage_endpoint: URL of the storage that the service reads from
    :param connections: how many requests it can make at the same time
    :raises ConnectionSettingsError: there is no such connection, or it can't be read
    """
    from botocore.config import Config

    from airflow_speechkit.compat import lookup_lock

    with lookup_lock():
        hook = _s3_hook(aws_conn_id)
        session = hook.get_session(region_name=hook.region_name)
    endpoint = hook.conn_config.get_service_endpoint_url(service_name="s3")
    if endpoint and urlsplit(endpoint).netloc.lower() != urlsplit(storage_endpoint).netloc.lower():
        hosts = (aws_conn_id, urlsplit(endpoint).hostname, urlsplit(storage_endpoint).hostname)
        log.warning(
            "Connection `%s` leads to %s, links for the service to %s: if these aren't the same storage, set "
            "`storage_host` in the speechkit connection",
            *hosts,
        )
    ours = Config(
        region_name=DEFAULT_REGION,
        max_pool_connections=connections,
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 5},
        # boto3's default checksums are Amazon's: other storages refuse such uploads.
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
    :raises SettingsError: it has credentials in it, or Airflow has no filesystem for it
    :raises ConnectionSettingsError: there is no such connection, or it can't be read
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # Not at the top: the command line checks addresses without Airflow.
    from airflow_speechkit.compat import lookup_lock

    url = clean_address(url)
    check_no_credentials(url)
    check_s3fs(url)
    scheme, authority = _parts(url)
    options = {}
    with lookup_lock():
        if scheme in _S3:
            options["conn_id"] = authority.rpartition("@")[0] or aws_conn_id
            # The path's own error for a missing connection comes late, and doesn't say what is missing.
            _s3_hook(options["conn_id"])
        try:
            path = ObjectStoragePath(url, **options)
            # Makes the filesystem now: Airflow 2.11 and older paths do so only later.
            path.fs  # noqa: B018
        except ValueError:
            raise SettingsError(
                f"{url!r} isn't a valid address, or Airflow has no filesystem for it",
                hint="Write s3://bucket/folder, file:///folder or an absolute path, or install the provider of its "
                "scheme",
            ) from None
        if options and path.fs.anon:
            raise ConnectionSettingsError(
                f"The connection `{options['conn_id']}` has no keys, and there are none elsewhere: requests to the "
                "bucket would be anonymous",
                hint=_CONNECTION,
            )
    # Airflow makes the filesystem, keeps it for the process, and has no option for this.
    listings = path.fs.dircache
    listings.use_listings_cache = False
    listings.clear()
    endpoint = getattr(path.fs, "endpoint_url", None)
    if endpoint and is_local(urlsplit(endpoint).hostname):
        # Never through a proxy of the environment.
        path.fs.config_kwargs = {"proxies": {}, **path.fs.config_kwargs}
    return path


def check_s3fs(url: str) -> None:
    """Check that s3fs is installed, if an address is in a bucket: it comes with the extra ``s3``.

    :raises SettingsError: it can't be imported
    """
    if _parts(url)[0] not in _S3:
        return
    try:
        import s3fs  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"{clean_address(url)} needs the package s3fs, which can't be imported ({error})",
            hint="Install the extra s3: pip install 'airflow-speechkit[s3]'",
            retry="fails in the same way until then",
        ) from error


def no_such_connection(conn_id: str) -> ConnectionSettingsError:
    """Return the error for a missing connection of a bucket."""
    return ConnectionSettingsError(
        f"There is no connection `{conn_id}` for the bucket in the environment (AIRFLOW_CONN_{conn_id.upper()}), the "
        "secrets backends and Airflow's metadata database, or they can't be read",
        hint=f"Add it: airflow connections add {conn_id} --conn-type aws --conn-login KEY_ID --conn-password SECRET "
        f"--conn-extra '{_EXTRA}'. Or name another one: s3://conn_id@bucket/folder",
    )


def check_no_credentials(url: str, what: str = "An address") -> None:
    """Check that before the ``@`` of a URL there is a connection id, not a key or what `clean_address` left of one.

    A key would get into logs, messages and the triggerer's database.

    :param what: what the URL is, for the message
    :raises SettingsError: there are credentials in it
    """
    scheme, authority = _parts(url)
    # No bucket has a ':' in its name.
    user = authority.rpartition("@")[0]
    if user == CUT or ":" in (authority if scheme in _S3 else user):
        raise SettingsError(
            f"{what} ({scheme}://…) has what looks like a key and its secret in place of a connection id or a bucket's "
            "name. They are removed",
            hint="Put them into an Airflow connection, as login and password, and write "
            f"{scheme}://conn_id@bucket/folder. Replace a secret that was in a DAG, a template or a variable",
        )


def _parts(url: str) -> tuple[str, str]:
    """Return a URL's scheme and what stands before its path; of a local path neither."""
    scheme, separator, rest = url.partition("://")
    return (scheme.lower(), rest.partition("/")[0]) if separator else ("", "")


def _s3_hook(aws_conn_id: str) -> Any:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=aws_conn_id)
    try:
        is_found = bool(hook.conn_config)
        endpoint = hook.conn_config.get_service_endpoint_url(service_name="s3") or ""
        wrong = "its `endpoint_url` has a user name or password in it" if "@" in endpoint else ""
    except (TypeError, ValueError) as error:
        is_found, wrong = True, f"its extra can't be read ({type(error).__name__})"
    # Not from within `except`: a parser's error holds the whole extra.
    if wrong:
        raise ConnectionSettingsError(f"The connection `{aws_conn_id}` can't be used: {wrong}", hint=_CONNECTION)
    if not is_found:
        raise no_such_connection(aws_conn_id)
    return hook
