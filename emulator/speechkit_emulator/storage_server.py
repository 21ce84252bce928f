"""The storage server: moto's S3 in a separate process.

``python -m speechkit_emulator.storage_server PORT`` prints the port that it listens on, or an error, and serves until
its standard input is closed.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from speechkit_emulator.children import exit_when_closed
from speechkit_emulator.storage import REAL_HOSTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def with_plain_headers(serve: Wsgi) -> Wsgi:
    """Remove headers of moto that the real storage does not send.

    The HTTP server adds its own ``Server`` header, and some clients refuse an answer with two. The version ``null`` is
    not a version: in a bucket without versions, a request for it is an error.
    """

    def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            kept = [
                (name, value)
                for name, value in headers
                if name.lower() != "server" and (name.lower(), value) != ("x-amz-version-id", "null")
            ]
            return start_response(status, kept, *error)

        return serve(environ, start)

    return served


def in_path_style(serve: Wsgi) -> Wsgi:
    """Turn virtual-host style into path style for the storage's hosts; all other hosts are path style.

    moto takes the first label of an unknown host for the name of a bucket.
    """

    def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        bucket = _bucket_of_host(environ.get("HTTP_HOST", ""))
        if bucket:
            # A client of a proxy sends the whole URL.
            asked = re.sub(r"^https?://[^/?]*", "", environ["RAW_URI"])
            environ["RAW_URI"] = f"/{bucket}{asked}"
            environ["PATH_INFO"] = f"/{bucket}{environ['PATH_INFO']}"
        environ["HTTP_HOST"] = "127.0.0.1"
        return serve(environ, start_response)

    return served


def _bucket_of_host(host: str) -> str:
    name = re.sub(r":\d*$", "", host.lower())
    for service in (*REAL_HOSTS, "localhost"):
        if name.endswith("." + service):
            return name.removesuffix("." + service)
    return ""


def refusing_expired_links(serve: Wsgi) -> Wsgi:
    """Refuse expired presigned links, in wall-clock time: moto accepts them."""

    def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        if not _expired(query, time.time()):
            return serve(environ, start_response)
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else _EXPIRED
        start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return served


_EXPIRED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
)


def _expired(query: Mapping[str, str], now_s: float) -> bool:
    """Whether a link has expired at `now_s`; signatures of version 4 or 2."""
    try:
        if "X-Amz-Signature" in query:
            signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            return signed.timestamp() + int(query["X-Amz-Expires"]) <= now_s
        return "Signature" in query and int(query["Expires"]) <= now_s
    except (KeyError, ValueError, OverflowError):
        return True


def one_write_at_a_time(serve: Wsgi) -> Wsgi:
    """Make conditional writes exclusive, as in the real storage.

    moto checks whether the key exists, then writes, in threads: two writes with ``If-None-Match: *`` can both succeed.
    """
    writing = threading.Lock()

    def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            with writing:
                return list(serve(environ, start_response))
        return serve(environ, start_response)

    return served


def main(port: int) -> None:
    """Serve S3 on loopback."""
    # Ctrl-C reaches the whole process group; the emulator stops this process itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_when_closed(sys.stdin.fileno())
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        print(error.strerror, flush=True)  # noqa: T201
        sys.exit(1)
    port = listener.getsockname()[1]
    # moto reads its own address here, to find temporary credentials; it must not use the caller's.
    os.environ["MOTO_PORT"] = str(port)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(
        "127.0.0.1",
        port,
        refusing_expired_links(
            one_write_at_a_time(in_path_style(with_plain_headers(DomainDispatcherApplication(create_backend_app))))
        ),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=listener.fileno(),
    )
    listener.close()
    print(port, flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
