"""Child processes that never outlive the one that started them, however it ended."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def exit_when_closed(descriptor: int) -> None:
    """End this process at once when the other end of a pipe is closed, as it is when its holder dies.

    :param descriptor: the pipe's reading end; nobody ever writes to it
    """

    def watch() -> None:
        while True:
            try:
                if not os.read(descriptor, 1024):
                    break
            except OSError:
                break
        os._exit(0)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def child_environment() -> dict[str, str]:
    """The environment for a child that runs this same package, wherever it lies."""
    root = str(Path(__file__).resolve().parents[2])
    above = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, above] if above else [root])}
