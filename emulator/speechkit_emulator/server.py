"""The emulator's process: starts and stops the bucket, the recognisers and the HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from speechkit_emulator.children import exit_when_closed
from speechkit_emulator.control import Control
from speechkit_emulator.credentials import Credentials, KeyFileError, load_credentials
from speechkit_emulator.endpoints import Endpoints
from speechkit_emulator.faults import FaultPlan
from speechkit_emulator.misbehaving import Misbehaviour, RequestLog
from speechkit_emulator.recogniser import Recogniser
from speechkit_emulator.samples import samples
from speechkit_emulator.service import Service
from speechkit_emulator.storage import Storage, StorageError, StorageServer
from speechkit_emulator.store import Store
from speechkit_emulator.welcome import Welcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from speechkit_emulator.options import Options

log = logging.getLogger(__name__)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Log one line, without aiohttp's traceback, if a client does not use HTTP/1.1."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        # The first line only: the others repeat what was sent, which can be a key.
        reason = str(error.message).partition("\n")[0].rstrip(":")
        record.msg, record.args, record.exc_info = f"A client does not speak HTTP/1.1: {reason}", (), None
    return True


async def serve(options: Options) -> int:
    """Run until SIGTERM or SIGINT.

    :return: the process's exit code
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("aiohttp.server").addFilter(_in_one_line)
    if options.exit_with_stdin:
        exit_when_closed(sys.stdin.fileno())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with running(options) as addresses:
            print(json.dumps(addresses), flush=True)  # noqa: T201
            if not options.exit_with_stdin:
                # A person started it, not a program that reads the line above.
                sys.stderr.write(
                    f"Open {addresses['speechkit']} in a browser for addresses, keys and connections for Airflow\n"
                )
            await stop.wait()
    except (OSError, sqlite3.Error) as error:
        log.error("The emulator can't listen or can't open its state: %s", error)
        return 1
    except (KeyFileError, StorageError) as error:
        log.error("The emulator can't start: %s", error)
        return 1
    return 0


@contextlib.asynccontextmanager
async def running(options: Options) -> AsyncIterator[dict[str, str]]:
    """Run an emulator; yield the content of its line of JSON."""
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", options.port), backlog=128))
        store = Store(options.state)
        stack.callback(store.close)
        credentials = load_credentials(store, options.authorized_key)
        storage = await _storage(options, credentials, stack)
        recogniser = Recogniser(options.recognisers)
        stack.callback(recogniser.close)
        service = Service(options, store, credentials, storage, recogniser)
        stack.push_async_callback(service.close)
        service.resume()
        if options.warm:
            warming = asyncio.create_task(recogniser.warm_up())
            stack.callback(warming.cancel)
        addresses = {
            "speechkit": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "storage": storage.url,
            "bucket": options.bucket,
            "api_key": credentials.api_key,
            "access_key_id": credentials.access_key_id,
            "secret_access_key": credentials.secret_access_key,
        }
        app = application(service)
        app.add_routes(Welcome(addresses, Path.cwd() / "speech.duckdb").routes())
        await _answer(app, listener, stack)
        yield addresses


async def _storage(options: Options, credentials: Credentials, stack: contextlib.AsyncExitStack) -> Storage:
    url = options.storage_url
    if url is None:
        # From the main thread, so that the child ends with the process.
        server = StorageServer(options.storage_port)
        stack.callback(server.close)
        url = server.url
    storage = Storage(url, credentials.access_key_id, credentials.secret_access_key)
    await asyncio.to_thread(_make_bucket, storage, options)
    return storage


def _make_bucket(storage: Storage, options: Options) -> None:
    if storage.make_bucket(options.bucket) and options.samples:
        for sample in samples():
            storage.put(options.bucket, sample.key, sample.path.read_bytes())


def application(service: Service) -> web.Application:
    """The HTTP application of a service."""
    plan, requests = FaultPlan(), RequestLog()
    app = web.Application(
        client_max_size=service.options.body_limit + 1,
        middlewares=[Misbehaviour(plan, requests, service.now).middleware],
    )
    app.add_routes(Endpoints(service).routes())
    app.add_routes(Control(service, plan, requests).routes())
    return app


async def _answer(app: web.Application, listener: socket.socket, stack: contextlib.AsyncExitStack) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener).start()
