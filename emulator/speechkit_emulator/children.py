"""Child processes that end with their parent, however the parent ends."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def exit_when_closed(descriptor: int) -> None:
    """End this process when the other end of a pipe is closed, which happens when the parent ends.

    :param descriptor: the reading end of the pipe; nothing is ever written to it
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
    """The environment for a child process that imports this package."""
    root = str(Path(__file__).resolve().parents[2])
    above = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, above] if above else [root])}
