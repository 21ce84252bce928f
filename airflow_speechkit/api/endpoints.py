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
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_link_local(host: str | None) -> bool:
    """Whether the host is a numeric link-local address, such as the metadata service's."""
    try:
        return ipaddress.ip_address(host or "").is_link_local
    except ValueError:
        return False


def _checked(url: str, part: str) -> str:
    # The message doesn't repeat the URL, which may hold a password.
    what = hint = None
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        host = None
    if host is None or split.scheme not in ("http", "https"):
        what, hint = "isn't an http(s) URL", "Write https://host or https://host:port"
    elif "@" in url or split.query or split.fragment or any(c.isspace() for c in url):
        what, hint = "has more than a host, a port and a path", "Remove user, password, query and spaces"
    elif split.scheme == "http" and not (is_local(host) or (part == "metadata" and is_link_local(host))):
        what = f"is plain HTTP to {host}{'' if port is None else f':{port}'}: the key would be sent unencrypted"
        hint = "Use https. `ca_bundle` can name your own certificate authority. Plain HTTP is for loopback only"
    if what is not None:
        raise ConnectionSettingsError(f"The address of `{part}` {what}", hint=hint)
    return url.rstrip("/")
