"""A server on loopback that answers by a script, and both transports to reach it with."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airflow_speechkit.api.credentials import ApiKey, Credential
from airflow_speechkit.api.endpoints import Endpoints
from airflow_speechkit.api.http import Response
from airflow_speechkit.api.operation import Operation
from airflow_speechkit.api.service import Service
from airflow_speechkit.settings import RecognitionSettings

KEY = "AQVNtestkeytestkeytestkey"
#: The answer to a submission.
RUNNING = {"id": "e03abc", "done": False, "createdAt": "2025-08-09T20:48:53Z"}


@dataclass
class ReceivedRequest:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[["Handler"], None]


def answer(status: int, body: object = b"{}", **headers: str) -> Behaviour:
    """Answer, with JSON or with bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def behave(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"x-request-id": "rq-1", "x-server-trace-id": "tr-1", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return behave


def reset(handler: Handler) -> None:
    """Take the request and break the connection off."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def cut(content: bytes, promised: int) -> Behaviour:
    """Answer with less than was promised."""

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(promised))
        handler.end_headers()
        handler.wfile.write(content)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    return behave


def silent(handler: Handler) -> None:
    """Take the request and say nothing until the other side has gone."""
    handler.connection.settimeout(600)
    handler.connection.recv(1)
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        request = ReceivedRequest(
            self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.rfile.read(length)
        )
        with self.server.lock:
            self.server.received.append(request)
            script = self.server.scripts.get(self.path.split("?")[0], self.server.script)
            behaviour = script.pop(0) if len(script) > 1 else script[0]
        behaviour(self)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class ScriptedServer(ThreadingHTTPServer):
    """The server. The last of a script is done over and over."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.received: list[ReceivedRequest] = []
        self.script: list[Behaviour] = [answer(200)]
        self.scripts: dict[str, list[Behaviour]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """Run a server."""
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@dataclass
class Carrier:
    """One of the transports, its pauses written down in place of being slept."""

    kind: str
    ca_bundle: str | None = None
    pauses: list[float] = field(default_factory=list)
    on_pause: Callable[[], None] = lambda: None

    def __call__(self, steps: Generator[Any, Any, Any]) -> Any:
        if self.kind == "requests":
            from airflow_speechkit.api.sync_transport import SyncTransport

            transport = SyncTransport(ca_bundle=self.ca_bundle, sleep=self._pause)
            try:
                return transport.drive(steps)
            finally:
                transport.close()
        return asyncio.run(self._carry(steps))

    async def _carry(self, steps: Generator[Any, Any, Any]) -> Any:
        from airflow_speechkit.api.async_transport import AsyncTransport

        async def sleep(seconds: float) -> None:
            self._pause(seconds)

        transport = AsyncTransport(ca_bundle=self.ca_bundle, sleep=sleep)
        await transport.open()
        try:
            return await transport.drive(steps)
        finally:
            await transport.close()

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.on_pause()


def service_at(url: str, credential: Credential | None = None, **options: Any) -> Service:
    options = {"tokens": {}, "chance": lambda: 1.0, **options}
    return Service(Endpoints.at(url), credential or ApiKey(KEY), user_agent="tests", **options)


def get(url: str, credential: Credential | None = None, **options: Any) -> Generator[Any, Any, Response]:
    """A request that changes nothing: one for the state of an operation."""
    return service_at(url, credential, **options).operation("e03abc")


def submission(url: str, credential: Credential | None = None, **options: Any) -> Generator[Any, Any, Operation]:
    """A request that costs money."""
    service = service_at(url, credential, **options)
    return service.submit(RecognitionSettings(audio_encoding="OGG_OPUS"), audio_uri="https://s/b/k?X=hunter2")
