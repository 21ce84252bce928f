"""End every process that this CI run has started and that still runs, and fail where there was one.

The run puts a mark into its environment, which everything that it starts inherits.
"""

from __future__ import annotations

import os
import sys

import psutil

MARK = "SPEECHKIT_CI_RUN"


def is_marked(process: psutil.Process) -> bool:
    """Whether the process was started by this run."""
    try:
        return process.environ().get(MARK) == os.environ[MARK]
    except psutil.Error:
        return False


def main() -> int:
    """Find and end them.

    :return: how many there were, 1 at most
    """
    started = [process for process in psutil.process_iter() if process.pid != os.getpid() and is_marked(process)]
    # Besides the shell that runs this, some may just be on their way out.
    _, left = psutil.wait_procs([one for one in started if one not in psutil.Process().parents()], timeout=15)
    for process in left:
        print(f"still running: {process.pid} {' '.join(process.cmdline())[:200]}", file=sys.stderr)  # noqa: T201
        process.kill()
    return min(len(left), 1)


if __name__ == "__main__":
    sys.exit(main())
