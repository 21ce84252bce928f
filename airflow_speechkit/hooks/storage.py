"""Object Storage through the amazon provider's connection, as users of the cloud have it already."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_speechkit.errors import ConnectionSettingsError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

DEFAULT_AWS_CONN_ID = "aws_default"

#: Object Storage's only region, for connections that name none.
DEFAULT_REGION = "ru-central1"

_CONNECTION = (
    "Set it up: type `aws`, a static key as login and password, "
    'extra {"endpoint_url": "https://storage.yandexcloud.net", "region_name": "ru-central1"}'
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

    hook = _s3_hook(aws_conn_id)
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
    session = hook.get_session(region_name=hook.region_name)
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
    :raises ConnectionSettingsError: there is no such connection, or it can't be read
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    parts = urlsplit(url)
    s3 = parts.scheme in ("s3", "s3a", "s3n")
    conn_id = aws_conn_id if s3 and "@" not in parts.netloc else None
    path = ObjectStoragePath(url, conn_id=conn_id) if conn_id else ObjectStoragePath(url)
    if s3:
        # Checked here: the path's own error for a missing connection comes late, and hides what it was.
        # What the path makes of it can't be asked in Airflow 2.11.
        _s3_hook(parts.netloc.rpartition("@")[0] or aws_conn_id)
    # Airflow makes the filesystem, keeps it for the process, and passes on no option that would switch this off.
    # With the switch thrown nothing more is kept; what was kept before is dropped.
    listings = path.fs.dircache
    listings.use_listings_cache = False
    listings.clear()
    return path


def _s3_hook(aws_conn_id: str) -> Any:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=aws_conn_id)
    try:
        found = bool(hook.conn_config)
    except (TypeError, ValueError) as error:
        raise ConnectionSettingsError(
            f"The extra of the connection {aws_conn_id!r} can't be read ({type(error).__name__})",
            todo=_CONNECTION,
        ) from None
    # Without `aws_default` the provider goes by the environment (AWS_ACCESS_KEY_ID, an instance's role), and so do we.
    if not found and aws_conn_id != DEFAULT_AWS_CONN_ID:
        raise ConnectionSettingsError(
            f"There is no connection {aws_conn_id!r} to reach the bucket with", todo=_CONNECTION
        )
    return hook
