"""The emulator's storage: its server, the links that refer to it, and a client."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from speechkit_emulator.children import child_environment

if TYPE_CHECKING:
    from types import TracebackType

#: Hosts of the real Object Storage; links to them refer to the emulator's storage.
REAL_HOSTS = ("storage.yandexcloud.net", "storage.yandexcloud.kz")
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]*")
_MAX_KEY_BYTES = 1024


class StorageError(Exception):
    """The storage server did not start, or does not answer."""


class StorageServer:
    """moto's S3 server as a child process, which ends with this one.

    :param port: the port to listen on; 0 = any free port
    :raises StorageError: if it can't listen there
    """

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "speechkit_emulator.storage_server", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
            # Ctrl-C reaches the whole process group of a terminal; this child stops when its parent stops it.
            start_new_session=True,
        )
        try:
            assert self._process.stdout is not None  # noqa: S101
            line = self._process.stdout.readline().decode().strip()
            if not line.isdigit():
                raise StorageError(
                    f"The bucket's server can't listen on port {port}: {line or 'it ended'}. Use --storage-port 0 for "
                    "any free port"
                )
        except BaseException:
            self.close()
            raise
        self.url = f"http://127.0.0.1:{line}"

    def close(self) -> None:
        """Stop the server and wait for its end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> StorageServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class NoSuchObjectError(Exception):
    """The bucket or the object does not exist."""


class NotALinkError(ValueError):
    """A text is not a link to an object of Object Storage."""


def find_object(link: str, storage_url: str) -> tuple[str, str]:
    """The bucket and key of a link; its query is ignored.

    Links are in path style or virtual-host style, to the real Object Storage's hosts or to the emulator's storage.

    :param storage_url: of the emulator's storage
    :raises NotALinkError: if it is another text
    """
    try:
        parts = urlsplit(link)
        port = parts.port
    except ValueError as error:
        raise NotALinkError("this is not a link") from error
    own = urlsplit(storage_url)
    host = (parts.hostname or "").lower()
    # Only the slash after the host: a key can begin with a slash too.
    path = parts.path.removeprefix("/")
    if parts.scheme not in ("https", "http"):
        raise NotALinkError("only links to Object Storage are supported")
    names: tuple[str, ...] = REAL_HOSTS
    if port == own.port and port is not None:
        names = (*LOOPBACK_HOSTS, own.hostname or "", *REAL_HOSTS)
    if host in names:
        bucket, _, key = path.partition("/")
    else:
        bucket, _, rest = host.partition(".")
        while rest and rest not in names:
            more, _, rest = rest.partition(".")
            bucket = f"{bucket}.{more}"
        if not rest:
            raise NotALinkError("only links to Object Storage are supported")
        key = path
    bucket, key = unquote(bucket), unquote(key)
    if not bucket or not key:
        raise NotALinkError("the link names no object")
    if not _BUCKET.fullmatch(bucket):
        raise NotALinkError("the link's bucket name is invalid")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise NotALinkError("the link's key is not Unicode") from error
    if size > _MAX_KEY_BYTES:
        raise NotALinkError(f"the link's key is longer than {_MAX_KEY_BYTES} bytes")
    return bucket, key


@dataclass(frozen=True)
class StoredObject:
    """The first bytes of an object, and its size in bytes."""

    head: bytes
    size: int


def _on_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def s3_client(url: str, access_key_id: str, secret_access_key: str) -> Any:
    """A boto3 client for an S3 server; on loopback it ignores proxies from the environment."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=Config(
            s3={"addressing_style": "path"},
            max_pool_connections=32,
            retries={"max_attempts": 3},
            proxies={} if _on_loopback(urlsplit(url).hostname or "") else None,
        ),
    )


class Storage:
    """Reads objects as the service does. Its methods block; call them from a thread."""

    def __init__(self, url: str, access_key_id: str, secret_access_key: str) -> None:
        self.url = url.rstrip("/")
        self._client = s3_client(self.url, access_key_id, secret_access_key)

    def make_bucket(self, name: str) -> bool:
        """Create a bucket if it is missing.

        :return: whether it was created
        :raises StorageError: if it can't be created
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            try:
                self._client.head_bucket(Bucket=name)
            except ClientError:
                self._client.create_bucket(Bucket=name)
                return True
        except (BotoCoreError, ClientError) as error:
            raise StorageError(f"The bucket {name} can't be found or created at {self.url}: {error}") from error
        return False

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Write an object."""
        self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def look(self, bucket: str, key: str) -> StoredObject:
        """The first 64 bytes of an object and its size."""
        answer = self._call("get_object", bucket, key, Range="bytes=0-63")
        if answer is None:
            return StoredObject(b"", 0)
        return StoredObject(answer["Body"].read(), int(answer["ContentRange"].rpartition("/")[2]))

    def read(self, bucket: str, key: str) -> bytes:
        """The whole object."""
        content: bytes = self._call("get_object", bucket, key)["Body"].read()
        return content

    def _call(self, name: str, bucket: str, key: str, **more: str) -> Any:
        from botocore.exceptions import ClientError

        try:
            return getattr(self._client, name)(Bucket=bucket, Key=key, **more)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 404:
                raise NoSuchObjectError(f"{bucket}/{key}") from error
            if status == 416:
                return None
            raise
