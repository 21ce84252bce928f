"""The pool of recogniser processes, which keep recognition out of the server's event loop."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from speechkit_emulator.hearing import hear, start_worker, warm_up

if TYPE_CHECKING:
    from speechkit_emulator.transcript import Utterance


class Recogniser:
    """Recognises recordings in worker processes.

    :param workers: number of processes, about 150 MB each
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        # Spawned, not forked: workers must not inherit the server's threads and sockets.
        return ProcessPoolExecutor(self._workers, multiprocessing.get_context("spawn"), start_worker)

    async def warm_up(self) -> None:
        """Load the model in every worker."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._pool, warm_up) for _ in range(self._workers)))

    async def hear(self, content: bytes, encoding: str, sample_rate: int, channels: int | None) -> list[Utterance]:
        """Recognise a recording. If a worker process ends, the pool is replaced and the recording is tried once more.

        :raises UndecodableError: if it can't be decoded
        """
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            return await loop.run_in_executor(pool, hear, content, encoding, sample_rate, channels)
        except BrokenProcessPool:
            if pool is self._pool:
                self._pool = self._new_pool()
                pool.shutdown(wait=False)
            return await loop.run_in_executor(self._pool, hear, content, encoding, sample_rate, channels)

    def close(self) -> None:
        """End the workers at once."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
