"""The network as this machine is set up for it, and the reasons for which a connection fails."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_speechkit.api.endpoints import is_link_local, is_local
from airflow_speechkit.api.http import Fault, FaultKind
from airflow_speechkit.errors import ConnectionSettingsError

if TYPE_CHECKING:
    from airflow_speechkit.api.http import Request


def ca_file(named: str | None) -> str:
    """Return the file of certificate authorities to trust.

    :param named: the connection's `ca_bundle`; without it, the file that the environment names for requests; without
        that, the authorities that requests comes with
    :raises ConnectionSettingsError: there is no such file
    """
    path = named or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if path is None:
        import certifi

        return certifi.where()
    if not os.path.isfile(path):
        raise ConnectionSettingsError(
            f"There is no file of certificate authorities at {path}",
            hint="`ca_bundle` has to be a path on the machine that runs the task or the triggerer",
        )
    return path


def proxy_for(url: str) -> str | None:
    """Return the environment's proxy for a URL. None for loopback and metadata: the key must not leave the machine."""
    host = urlsplit(url).hostname
    if is_local(host) or is_link_local(host):
        return None
    from requests.utils import get_environ_proxies, select_proxy

    proxy: str | None = select_proxy(url, get_environ_proxies(url, no_proxy=None))
    return proxy


def fault_of(error: BaseException, request: Request, kind: FaultKind) -> Fault:
    """Return the fault that an error of either HTTP library means.

    :param error: the error; its own text may hold the URL or a proxy's password, and is left out
    """
    reason = f"the connection broke ({type(error).__name__})"
    for one in _causes(error):
        # Each library has its own classes.
        name = type(one).__name__
        if isinstance(one, socket.gaierror) or "DNS" in name:
            reason = "the host name can't be resolved"
        # Errors of aiohttp are of this type too, but only the one from `ssl` says why.
        elif isinstance(one, ssl.SSLError) and getattr(one, "reason", None):
            reason = f"TLS failed ({getattr(one, 'verify_message', one.reason)})"
        elif "Proxy" in name:
            reason = "the proxy can't be reached, or refuses the request"
        elif isinstance(one, ConnectionRefusedError):
            reason = "the connection was refused"
        elif isinstance(one, TimeoutError) or "Timeout" in name:
            is_connected = kind is not FaultKind.NOT_SENT
            waited_s = request.read_timeout_s if is_connected else request.connect_timeout_s
            reason = f"no {'bytes' if is_connected else 'connection'} within {waited_s:g} s"
        else:
            continue
        break
    return Fault(kind, reason)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = [error]
    for one in found:
        # Both libraries also wrap errors in arguments.
        inner = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        found += [each for each in inner if isinstance(each, BaseException) and each not in found]
    return found
