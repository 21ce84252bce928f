"""A pytest plugin that puts the wall clock 400 days ahead: ``PYTHONPATH=.ci python -m pytest -p later``.

Only this process's wall clock: the monotonic one, by which everything waits, is left alone. Debian's faketime can't do
that: with the monotonic clock left alone it breaks `time.sleep` of Python 3.11 and later, else timeouts of locks.
"""

from __future__ import annotations

import time

import time_machine

DAYS = 400

time_machine.travel(time.time() + DAYS * 86_400).start()
