"""Where a command reads and writes: a local folder, or a bucket through one of Airflow's connections."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow_speechkit.storage import Folder

#: What `--help` says about an address.
ADDRESS = (
    "a local folder, s3://conn_id@bucket/folder with the id of an Airflow connection, or s3://bucket/folder, which "
    "uses the connection aws_default"
)
ENDPOINT = (
    "reach addresses that name no connection at this object storage (such as https://storage.yandexcloud.net), with "
    "the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, without Airflow's connections"
)


def folder_at(url: str, endpoint_url: str | None = None) -> Folder:
    """Return the folder at an address that a person gave. A local one needs neither Airflow nor its database.

    :param url: see `ADDRESS`
    :param endpoint_url: see `ENDPOINT`
    :raises SettingsError: it has credentials in it, or no filesystem is known for such addresses
    :raises ConnectionSettingsError: its connection does not exist, or can't be used
    """
    from airflow_speechkit.hooks import storage
    from airflow_speechkit.storage import Folder

    storage.check_no_credentials(url)
    storage.check_s3fs(url)
    scheme, _, rest = url.partition("://")
    if not rest:
        return Folder.at(url)
    if scheme.lower() == "file":
        return Folder.at("/" + rest.lstrip("/"))
    conn_id = rest.partition("/")[0].rpartition("@")[0]
    if endpoint_url and not conn_id:
        return _with_keys_of_the_environment(url, endpoint_url)
    _keep_output_clean()
    if not conn_id and scheme.lower().startswith("s3"):
        conn_id = storage.DEFAULT_AWS_CONN_ID
    if conn_id:
        _find_connection(conn_id)
    return Folder.at(storage.object_storage_path(url))


def _with_keys_of_the_environment(url: str, endpoint_url: str) -> Folder:
    import fsspec

    from airflow_speechkit.api.endpoints import is_local
    from airflow_speechkit.storage import Folder

    # Loopback is reached directly, whatever proxy the environment names.
    direct: dict[str, Any] = {"config_kwargs": {"proxies": {}}} if is_local(urlsplit(endpoint_url).hostname) else {}
    fs, root = fsspec.core.url_to_fs(url, endpoint_url=endpoint_url, **direct)
    return Folder(fs, root.rstrip("/"), url.rstrip("/"))


def _find_connection(conn_id: str) -> None:
    """Look a connection up where Airflow's own commands do, and put it where this process's hooks find it.

    Outside of tasks the hooks of Airflow 3 don't read the metadata database.
    The environment variable has the secret in this process only: no process is started from here.
    """
    from airflow.models.connection import Connection
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_speechkit.hooks.storage import no_such_connection

    try:
        found: Any = Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        raise no_such_connection(conn_id) from None
    os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = found.get_uri()


def _keep_output_clean() -> None:
    """Print this package's warnings to standard error, and nothing of Airflow's log, which uses standard output too."""
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
    if not sys.warnoptions:
        # As `python -W ignore`; Airflow 2.11 shows its deprecations otherwise.
        sys.warnoptions.append("ignore")
        warnings.simplefilter("ignore")
    import airflow.configuration  # noqa: F401 - sets logging up

    ours = logging.getLogger("airflow_speechkit")
    ours.setLevel(logging.WARNING)
    ours.handlers[:] = [logging.StreamHandler(sys.stderr)]
    ours.propagate = False
