"""Where the service is: one address for each of its parts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields, replace
from urllib.parse import urlsplit

from airflow_speechkit.errors import ConnectionSettingsError


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """The service's addresses: URLs with a scheme, without a slash at their end.

    Plain HTTP is refused wherever a key or a recording would travel over a network: it is for loopback
    addresses, and for the metadata service, which answers on the machine's own link only.

    :param recognition: submitting with v2
    :param recognition_v3: submitting, results and their removal with v3
    :param operations: the state of operations, and v2's results
    :param iam: where an authorized key is exchanged for a token
    :param metadata: the metadata service of a virtual machine
    :param storage: Object Storage, as the links in submissions name it
    :raises ConnectionSettingsError: an address that isn't one, or plain HTTP that leaves the machine
    """

    recognition: str = "https://transcribe.api.cloud.yandex.net"
    recognition_v3: str = "https://stt.api.cloud.yandex.net"
    operations: str = "https://operation.api.cloud.yandex.net"
    iam: str = "https://iam.api.cloud.yandex.net"
    metadata: str = "http://169.254.169.254"
    storage: str = "https://storage.yandexcloud.net"

    def __post_init__(self) -> None:
        """Check each address and drop the slash at its end."""
        for field in fields(self):
            url = _checked(getattr(self, field.name), field.name)
            object.__setattr__(self, field.name, url)

    @classmethod
    def at(cls, url: str) -> Endpoints:
        """Everything but the storage at one address, as the emulator has it."""
        return replace(cls(), recognition=url, recognition_v3=url, operations=url, iam=url, metadata=url)


def is_local(host: str | None) -> bool:
    """Tell whether packets to the host stay on this machine."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_link_local(host: str | None) -> bool:
    """Tell whether the host is a numeric link-local address, such as the metadata service's."""
    try:
        return ipaddress.ip_address(host or "").is_link_local
    except ValueError:
        return False


def _checked(url: str, part: str) -> str:
    # What was given isn't repeated: it may hold a password. The parser's error does.
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        split = None
    if split is None:
        raise ConnectionSettingsError(f"The address of `{part}` is no URL")
    if split.scheme not in ("http", "https") or not host:
        raise ConnectionSettingsError(
            f"The address of `{part}` is no http(s) URL", hint="It looks like https://host or https://host:port"
        )
    if "@" in url or split.query or split.fragment or any(c.isspace() for c in url):
        raise ConnectionSettingsError(f"The address of `{part}` has more than a host, a port and a path")
    if split.scheme == "http" and not (is_local(host) or (part == "metadata" and is_link_local(host))):
        raise ConnectionSettingsError(
            f"The address of `{part}` is plain HTTP to {host}{'' if port is None else f':{port}'}: the key would "
            "travel in the clear",
            hint="Use https (a certificate authority of your own can be named in `ca_bundle`), or a loopback address",
        )
    return url.rstrip("/")
