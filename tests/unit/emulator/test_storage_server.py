from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow_speechkit.emulator.storage_server import one_write_at_a_time


class Store:
    """Looks whether a key is there, and writes it only then, as moto does."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] in self.keys:
            return [b"412"]
        time.sleep(0.01)
        self.keys.add(environ["PATH_INFO"])
        return [b"200"]


def test_of_many_conditional_writes_at_the_same_moment_one_wins() -> None:
    def answers(serve: Any) -> list[bytes]:
        with ThreadPoolExecutor(8) as pool:
            asked = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/claim"}
            return [b"".join(answer) for answer in pool.map(lambda _: serve(asked, None), range(8))]

    assert answers(Store()).count(b"200") > 1
    assert answers(one_write_at_a_time(Store())).count(b"200") == 1
