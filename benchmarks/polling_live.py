"""Wait for ten thousand operations in one event loop, in real time, over HTTP, against the emulator.

    python benchmarks/polling_live.py [--operations 10000] [--json FILE]

Two ways, one after the other in separate processes, on the same operations: the provider's shared poller, and a
coroutine with a separate session for each operation, as in a naive trigger, which checks every 60 s. An idle event
loop shows the lag of the machine itself. During the wait, ten operations end with a result of 10 MB each, which is
archived at once. Measured: the process's peak memory, its CPU time, and the lag of the event loop (a timer of 10 ms).

The emulator's quota is lifted, and the poller's limit is 100 checks a second, 180 times v2's default. Within the real
quota, ten thousand ends take four hours at least.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from airflow_speechkit.api.operation import Operation, OperationState, read_operation
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.models import Answer
from airflow_speechkit.polling.poller import shared_poller
from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.target import PollTarget
from airflow_speechkit.settings import ApiVersion

CHECKS_PER_SECOND = 100
NAIVE_INTERVAL_S = 60.0
LARGE_RESULTS, LARGE_BYTES = 10, 10_000_000
#: By the documented speed, a recording of this length takes the 20 s of the first operations.
AUDIO_S, FIRST_DONE_S = 120.0, 20.0
LAG_EVERY_S = 0.01
IDLE_S = 20.0
WAYS = {"shared": "one shared poller", "naive": "a naive trigger each", "idle": "an idle event loop"}


class Lag:
    """The delays of a timer of 10 ms."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            at = loop.time()
            await asyncio.sleep(LAG_EVERY_S)
            self.seconds.append(max(loop.time() - at - LAG_EVERY_S, 0.0))

    def quantile_ms(self, share: float, since: int = 0, until: int | None = None) -> float:
        chosen = sorted(self.seconds[since:until])
        return round(1000.0 * chosen[min(int(share * len(chosen)), len(chosen) - 1)], 1) if chosen else 0.0


class Run:
    """One way of waiting, and its figures."""

    def __init__(self, ids: list[str], submitted_at: float, archive: Archive) -> None:
        self.ids = ids
        self.submitted_at = submitted_at
        self.archive = archive
        self.lag = Lag()
        self.checks = 0
        self.ended = 0
        self.large_from: int | None = None
        self.large_until = 0

    def incr(self, stat: str) -> None:
        """Count a check, as Airflow's `Stats` does."""
        self.checks += stat == "speechkit.checks"

    def gauge(self, stat: str, value: float) -> None:
        """Take a number."""

    def timing(self, stat: str, milliseconds: float) -> None:
        """Take a duration."""

    async def keep(self, operation: Operation) -> None:
        """Archive a large answer, as the trigger does."""
        self.ended += 1
        if len(operation.raw) < 1_000_000:
            return
        if self.large_from is None:
            self.large_from = max(len(self.lag.seconds) - 100, 0)
        answer = Answer(operation.id, ApiVersion.V2, operation.raw)
        await asyncio.to_thread(self.archive.keep, answer, None, now=datetime.now(UTC))
        self.large_until = len(self.lag.seconds) + 100

    async def shared(self, url: str, key: str) -> None:
        limiter = RateLimiter(CHECKS_PER_SECOND, 1.0)
        # The client of the trigger, with a connection from the environment.
        os.environ["AIRFLOW_CONN_SPEECHKIT_DEFAULT"] = json.dumps(
            {"conn_type": "speechkit", "host": url, "password": key}
        )
        from airflow_speechkit.hooks.speechkit import SpeechKitHook

        hook = SpeechKitHook()

        async def task(operation_id: str) -> None:
            target = PollTarget(operation_id, self.submitted_at, AUDIO_S, 1)
            async with shared_poller("live", hook, limiter, stats=self).subscribed([target]) as subscription:
                result = await subscription.next()
                assert result.operation is not None, result
                await self.keep(result.operation)

        async with asyncio.TaskGroup() as tasks:
            for operation_id in self.ids:
                tasks.create_task(task(operation_id))

    async def naive(self, url: str, key: str) -> None:
        async def task(number: int, operation_id: str) -> None:
            # Triggers start one after the other.
            await asyncio.sleep(NAIVE_INTERVAL_S * number / len(self.ids))
            about = f"{url}/operations/{operation_id}"
            async with aiohttp.ClientSession(headers={"Authorization": f"Api-Key {key}"}) as session:
                while True:
                    self.checks += 1
                    async with session.get(about) as answer:
                        operation = read_operation(await answer.read())
                    if operation.state is not OperationState.RUNNING:
                        await self.keep(operation)
                        return
                    await asyncio.sleep(NAIVE_INTERVAL_S)

        async with asyncio.TaskGroup() as tasks:
            for number, operation_id in enumerate(self.ids):
                tasks.create_task(task(number, operation_id))

    async def idle(self, url: str, key: str) -> None:
        """Do nothing, to measure the lag of the machine itself."""
        await asyncio.sleep(IDLE_S)

    async def figures(self, way: str, url: str, key: str) -> dict[str, float | str | int]:
        lag = asyncio.create_task(self.lag.measure())
        started, processor = time.monotonic(), time.process_time()
        await {"shared": self.shared, "naive": self.naive, "idle": self.idle}[way](url, key)
        wall_s, processor_s = time.monotonic() - started, time.process_time() - processor
        lag.cancel()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
        return {
            "way": WAYS[way],
            "operations": len(self.ids),
            "ended": self.ended,
            "checks": self.checks,
            "wall_s": round(wall_s, 1),
            "processor_s": round(processor_s, 1),
            "peak_mb": round(peak),
            "lag_p50_ms": self.lag.quantile_ms(0.5),
            "lag_p99_ms": self.lag.quantile_ms(0.99),
            "lag_max_ms": self.lag.quantile_ms(1.0),
            "lag_p99_large_ms": self.lag.quantile_ms(0.99, self.large_from or 0, self.large_until),
        }


def one_way(way: str) -> int:
    """Run one way in its process: read the operations from standard input, print the figures."""
    asked = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="speechkit-archive-") as folder:
        run = Run(asked["ids"], asked["submitted_at"], Archive.at(folder))
        print(json.dumps(asyncio.run(run.figures(way, asked["url"], asked["api_key"]))))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Wait for ten thousand operations in real time.")
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        return one_way(arguments.way)

    from speechkit_emulator.process import EmulatorProcess

    rows = []
    for way in WAYS:
        quota = ("--v2-checks-per-hour", "100000000")
        with EmulatorProcess(*quota, speed=1.0) as emulator:
            spread_s = arguments.operations / CHECKS_PER_SECOND

            def stand_ins(count: int, emulator: EmulatorProcess = emulator, **more: float) -> list[str]:
                ids: list[str] = emulator.ask("POST", "/emulator/operations", {"count": count, **more})["operation_ids"]
                return ids

            ids = stand_ins(arguments.operations - LARGE_RESULTS, processing_s=FIRST_DONE_S, spread_s=spread_s)
            ids += stand_ins(LARGE_RESULTS, processing_s=FIRST_DONE_S + spread_s / 2, result_bytes=LARGE_BYTES)
            asked = {"ids": ids, "submitted_at": time.time(), "url": emulator.url, "api_key": emulator.api_key}
            done = subprocess.run(
                [sys.executable, __file__, "--way", way],
                input=json.dumps(asked).encode(),
                stdout=subprocess.PIPE,
                check=True,
            )
            rows.append(json.loads(done.stdout))
            print(rows[-1], file=sys.stderr, flush=True)
    names = ["way", *(name for name in rows[0] if name != "way")]
    print("  ".join(f"{name:>20}" if name == "way" else name for name in names))
    for row in rows:
        print("  ".join(f"{row[name]:>20}" if name == "way" else f"{row[name]:>{len(name)}}" for name in names))
    if arguments.json:
        arguments.json.write_text(json.dumps({"ways": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
