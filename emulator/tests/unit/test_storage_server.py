from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

from speechkit_emulator.storage_server import one_write_at_a_time


class Store:
    """Checks whether a key exists, then writes it, as moto does.

    Between the two it waits for another write at the same point, so that concurrent writes would both succeed.
    """

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.both_checked = Barrier(2, timeout=0.5)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] in self.keys:
            return [b"412"]
        with contextlib.suppress(BrokenBarrierError):
            self.both_checked.wait()
        self.keys.add(environ["PATH_INFO"])
        return [b"200"]


def test_of_concurrent_conditional_writes_one_succeeds() -> None:
    serve = one_write_at_a_time(Store())
    asked = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/claim"}
    with ThreadPoolExecutor(8) as pool:
        answers = [b"".join(answer) for answer in pool.map(lambda _: serve(asked, None), range(8))]
    assert sorted(answers) == [b"200"] + 7 * [b"412"]
