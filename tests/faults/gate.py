"""A TCP forwarder between Airflow and a server, which the test can close, hold up and cut."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

RECEIVED_AT_ONCE = 256 * 1024


class Deed(Enum):
    """What a gate does to the connection on which a request goes by."""

    HOLD = "keeps the request and all that follows until it is let go or dropped"
    DROP = "breaks the connection before the request gets to the server"
    DROP_ANSWER = "lets the request through, and breaks the connection when the answer comes"
    CUT_ANSWER = "lets the first bytes of the answer's body through, and breaks the connection"
    REFUSE = "answers with an HTTP error in the server's place"


@dataclass(kw_only=True)
class Rule:
    """What is done to which requests.

    :param deed: what
    :param pattern: what a request looks like
    :param times: how often; 0 is always
    :param status: the HTTP status of `Deed.REFUSE`
    """

    deed: Deed
    pattern: re.Pattern[bytes]
    times: int = 1
    status: int = 503
    fired: int = 0
    struck: threading.Event = field(default_factory=threading.Event)
    _go_on: threading.Event = field(default_factory=threading.Event)
    _forward: bool = False

    def let_go(self) -> None:
        """Send what is held to the server."""
        self._forward = True
        self._go_on.set()

    def drop(self) -> None:
        """Break the connections that are held; nothing of it gets to the server."""
        self._go_on.set()

    def is_let_go(self) -> bool:
        """Wait until what is held is let go or dropped, and say which."""
        self._go_on.wait()
        return self._forward


class Gate:
    """Listens on a loopback port and passes everything on to a server.

    :param port: the server's, on loopback
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._rules: list[Rule] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and break those that there are."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would leave `accept` waiting for one connection more.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for rule in self._rules:
            rule.drop()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _break(connection)

    def add(self, deed: Deed, pattern: str, *, times: int = 1, status: int = 503) -> Rule:
        """Plan what is done to requests that contain the pattern.

        :param pattern: a regular expression, searched in each piece that a client sends
        """
        rule = Rule(deed=deed, pattern=re.compile(pattern.encode()), times=times, status=status)
        self._rules.append(rule)
        return rule

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server)
        except OSError:
            _break(client)
            client.close()
            return
        cut = _Cut()
        with self._kept(client), self._kept(server):
            answers = threading.Thread(target=_pass_answers, args=(server, client, cut), daemon=True)
            answers.start()
            self._pass_requests(client, server, cut)
            answers.join()

    @contextlib.contextmanager
    def _kept(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            with connection:
                yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def _pass_requests(self, client: socket.socket, server: socket.socket, cut: _Cut) -> None:
        while piece := _received(client):
            rule = self._struck_by(piece)
            if rule is not None:
                rule.struck.set()
                if rule.deed is Deed.HOLD:
                    if not rule.is_let_go():
                        break
                elif rule.deed is Deed.DROP:
                    break
                elif rule.deed is Deed.REFUSE:
                    _send(client, _refusal(rule.status))
                    break
                else:
                    cut.after = 0 if rule.deed is Deed.DROP_ANSWER else 16
            if not _send(server, piece):
                break
        _break(server)
        _break(client)

    def _struck_by(self, piece: bytes) -> Rule | None:
        with self._lock:
            for rule in self._rules:
                if (not rule.times or rule.fired < rule.times) and rule.pattern.search(piece):
                    rule.fired += 1
                    return rule
        return None


@dataclass
class _Cut:
    """Where the next answer ends before its end.

    :param after: so many bytes of its body, 0 before its first byte; None lets it through
    :param in_body: whether its headers are over
    """

    after: int | None = None
    in_body: bool = False


def _pass_answers(server: socket.socket, client: socket.socket, cut: _Cut) -> None:
    while piece := _received(server):
        if cut.after == 0:
            break
        if cut.after is not None:
            head, separator, body = (b"", b"", piece) if cut.in_body else piece.partition(b"\r\n\r\n")
            cut.in_body = cut.in_body or bool(separator)
            if body and cut.in_body:
                _send(client, head + separator + body[: cut.after])
                break
        if not _send(client, piece):
            break
    _break(client)
    _break(server)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(RECEIVED_AT_ONCE)
    except OSError:
        return b""


def _send(connection: socket.socket, piece: bytes) -> bool:
    try:
        connection.sendall(piece)
    except OSError:
        return False
    return True


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _refusal(status: int) -> bytes:
    code, reason = {500: ("InternalError", "Internal Server Error"), 503: ("SlowDown", "Slow Down")}[status]
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{reason}</Message></Error>"
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()
