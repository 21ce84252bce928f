"""The addresses of the service, one for each of its parts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields, replace
from urllib.parse import urlsplit

from airflow_speechkit.errors import ConnectionSettingsError


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """The service's addresses: http(s) URLs without a slash at their end.

    Plain HTTP is allowed for loopback addresses, and for the metadata service on the machine's own link.

    :param recognition: submissions of v2
    :param recognition_v3: submissions, results and their deletion of v3
    :param operations: the state of operations, and v2's results
    :param iam: IAM, which exchanges an authorized key for a token
    :param metadata: the metadata service of a virtual machine
    :param storage: Object Storage, in the links to recordings
    :raises ConnectionSettingsError: an address isn't one, or is plain HTTP that leaves the machine
    """

    recognition: str = "https://transcribe.api.cloud.yandex.net"
    recognition_v3: str = "https://stt.api.cloud.yandex.net"
    operations: str = "https://operation.api.cloud.yandex.net"
    iam: str = "https://iam.api.cloud.yandex.net"
    metadata: str = "http://169.254.169.254"
    storage: str = "https://storage.yandexcloud.net"

    def __post_init__(self) -> None:
        """Check each address and remove the slash at its end."""
        for field in fields(self):
            url = _checked(getattr(self, field.name), field.name)
            object.__setattr__(self, field.name, url)

    @classmethod
    def at(cls, url: str) -> Endpoints:
        """Return one address for everything except the storage: the emulator's."""
        return replace(cls(), recognition=url, recognition_v3=url, operations=url, iam=url, metadata=url)


def is_local(host: str | None) -> bool:
    """Whether packets to the host stay on this machine."""
    address = _address(host)
    return f".{host}".endswith(".localhost") or (address is not None and address.is_loopback)


def is_link_local(host: str | None) -> bool:
    """Whether the host is a numeric link-local address, such as the metadata service's."""
    address = _address(host)
    return address is not None and address.is_link_local


def _address(host: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host or "")
    except ValueError:
        return None


def _checked(url: str, part: str) -> str:
    # The messages don't repeat the URL, which may hold a password.
    try:
        split = urlsplit(url)
        is_valid = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or "@" in url or split.query or split.fragment or any(c.isspace() for c in url):
        raise ConnectionSettingsError(
            f"The address of `{part}` isn't valid",
            hint="Write https://host or https://host:port, without user, password, query and spaces",
        )
    is_safe = is_local(split.hostname) or (part == "metadata" and is_link_local(split.hostname))
    if split.scheme == "http" and not is_safe:
        raise ConnectionSettingsError(
            f"The address of `{part}` is plain HTTP: the key would be sent unencrypted",
            hint="Use https. `ca_bundle` can name your own certificate authority. Plain HTTP is for loopback only",
        )
    return url.rstrip("/")
