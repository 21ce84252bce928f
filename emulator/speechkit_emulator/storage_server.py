"""The bucket's server: moto's S3, as a process of its own.

``python -m speechkit_emulator.storage_server PORT`` prints the port it listens on, or why it can't, and serves
until its standard input is closed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from speechkit_emulator.children import exit_when_closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def naming_itself_once(serve: Wsgi) -> Wsgi:
    """Leave it to the server to say what it is: moto does so too, and some clients refuse an answer with both."""

    def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [one for one in headers if one[0].lower() != "server"], *error)

        return serve(environ, start)

    return served


def one_write_at_a_time(serve: Wsgi) -> Wsgi:
    """Make conditional writes exclusive, as the real storage's are.

    moto looks whether the key is there, then writes, in threads: of two with ``If-None-Match: *`` both would win.
    """
    writing = threading.Lock()

    def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("PUT", "DELETE"):
            with writing:
                return list(serve(environ, start_response))
        return serve(environ, start_response)

    return served


def main(port: int) -> None:
    """Serve S3 on loopback."""
    # Ctrl-C reaches the whole process group; the emulator ends this process itself, when it is done with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_when_closed(sys.stdin.fileno())
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        print(error.strerror, flush=True)  # noqa: T201
        sys.exit(1)
    port = listener.getsockname()[1]
    # moto looks for temporary credentials and its own address here; nothing of the caller's must leak in.
    os.environ["MOTO_PORT"] = str(port)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(
        "127.0.0.1",
        port,
        one_write_at_a_time(naming_itself_once(DomainDispatcherApplication(create_backend_app))),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=listener.fileno(),
    )
    listener.close()
    print(port, flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
