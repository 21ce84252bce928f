"""What the machine says about its network: whom to trust, and through which proxy."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from airflow_speechkit.api.endpoints import is_link_local, is_local
from airflow_speechkit.errors import ConnectionSettingsError


def ca_file(named: str | None) -> str:
    """Return the file of certificate authorities that are trusted.

    :param named: the connection's `ca_bundle`; otherwise what the environment names for requests, otherwise
        the authorities that requests comes with
    :raises ConnectionSettingsError: there is no such file
    """
    path = named or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if path is None:
        import certifi

        return certifi.where()
    if not os.path.isfile(path):
        raise ConnectionSettingsError(
            f"There is no file of certificate authorities at {path}",
            hint="`ca_bundle` is a path on the machine that the task or the triggerer runs on",
        )
    return path


def proxy_for(url: str) -> str | None:
    """Return the environment's proxy for an address. None for loopback and metadata: the key stays here."""
    host = urlsplit(url).hostname
    if is_local(host) or is_link_local(host):
        return None
    from requests.utils import get_environ_proxies, select_proxy

    proxy: str | None = select_proxy(url, get_environ_proxies(url, no_proxy=None))
    return proxy
