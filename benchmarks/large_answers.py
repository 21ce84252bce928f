"""The lag of a triggerer's event loop while large answers arrive: ten of 10 MB at once.

The table also has the CPU time of the loop's thread between two beats, because other processes of a busy machine add
to the lag.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SERVER = """
import asyncio, json, sys
from aiohttp import web
word = {"startTime": "10.179s", "endTime": "11s", "word": "слово", "confidence": 1}
chunk = {"alternatives": [{"words": [word] * 20, "text": "слово " * 20, "confidence": 1}], "channelTag": "1"}
many = int(sys.argv[1]) // len(json.dumps(chunk, ensure_ascii=False).encode())
kind = "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse"
answer = {"done": True, "response": {"@type": kind, "chunks": [chunk] * many}, "id": "e03abc"}
body = json.dumps(answer, ensure_ascii=False).encode()
async def operation(_):
    return web.Response(body=body, content_type="application/json")
async def main():
    app = web.Application()
    app.router.add_get("/operations/{id}", operation)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""
_BEAT_S = 0.002


async def beats(lags: list[float], work: list[float]) -> None:
    while True:
        began, worked = time.perf_counter(), time.thread_time()
        await asyncio.sleep(_BEAT_S)
        lags.append((time.perf_counter() - began - _BEAT_S) * 1000)
        work.append((time.thread_time() - worked) * 1000)


async def measured(ask: Callable[[], Awaitable[object]], answers: int) -> tuple[float, float, float]:
    lags: list[float] = []
    work: list[float] = []
    beating = asyncio.create_task(beats(lags, work))
    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(answers)))
    took = time.perf_counter() - began
    await asyncio.sleep(0.05)
    beating.cancel()
    return max(lags), max(work), took


async def run(answers: int) -> None:
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

    async with SpeechKitHook().async_client() as client:

        async def plainly() -> None:
            response = await client._drive(client._service.operation("e03abc"))
            json.loads(response.body)

        print(f"{'read with':<28}{'lag, most ms':>14}{'own work, most ms':>19}{'took, s':>9}")
        for name, ask in (
            ("nothing at all", lambda: asyncio.sleep(0.5)),
            ("get_operation", lambda: client.get_operation("e03abc")),
            ("json.loads, on the loop", plainly),
        ):
            lag, work, took = await measured(ask, answers)
            print(f"{name:<28}{lag:>14.1f}{work:>19.1f}{took:>9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=10)
    parser.add_argument("--megabytes", type=float, default=10.0)
    given = parser.parse_args()
    size = str(int(given.megabytes * 1e6))
    server = subprocess.Popen([sys.executable, "-c", SERVER, size], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        connection = {"conn_type": "speechkit", "host": f"http://127.0.0.1:{port}", "password": "key"}
        os.environ["AIRFLOW_CONN_SPEECHKIT_DEFAULT"] = json.dumps(connection)
        print(f"{given.answers} answers of {given.megabytes:g} MB at once, load {os.getloadavg()[0]:.1f}")
        asyncio.run(run(given.answers))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
