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
    from collections.abc import Iterator

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
    for one in _causes(error):
        if isinstance(one, socket.gaierror) or "DNS" in type(one).__name__:
            return Fault(kind, "the host name can't be resolved")
        # Errors of aiohttp are of these types too, but only the one from `ssl` says why.
        if isinstance(one, ssl.SSLCertVerificationError) and hasattr(one, "verify_message"):
            return Fault(kind, f"the server's certificate isn't trusted ({one.verify_message})")
        if isinstance(one, ssl.SSLError) and getattr(one, "reason", None):
            return Fault(kind, f"TLS failed ({one.reason})")
        # Each library has its own class for it.
        if "Proxy" in type(one).__name__:
            return Fault(kind, "the proxy can't be reached, or refuses the request")
        if isinstance(one, ConnectionRefusedError):
            return Fault(kind, "the connection was refused")
        if isinstance(one, TimeoutError) or "Timeout" in type(one).__name__:
            if kind is FaultKind.NOT_SENT:
                return Fault(kind, f"no connection within {request.connect_timeout_s:g} s")
            return Fault(kind, f"no bytes came within {request.read_timeout_s:g} s")
    if kind is FaultKind.CUT_ANSWER:
        return Fault(kind, "the connection broke during the answer")
    return Fault(kind, f"the connection broke ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: list[object] = [error]
    while found:
        one = found.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            found += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
