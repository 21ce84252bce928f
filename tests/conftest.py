"""What every test runs under: an Airflow home of its own, and no network but this machine's loopback."""

from __future__ import annotations

import asyncio
import atexit
import ipaddress
import logging
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="speechkit-tests-"))
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)

# Airflow reads its configuration when it is imported, so this has to be in place before any test module is.
for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AWS_"))]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(AIRFLOW_HOME / "dags"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    AIRFLOW__LOGGING__BASE_LOG_FOLDER=str(AIRFLOW_HOME / "logs"),
    # Airflow 2.11 warns at import where its metrics are still in seconds.
    AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY="True",
    AWS_EC2_METADATA_DISABLED="true",
)

# One that others import stands before them.
pytest_plugins = [
    "tests.fixtures.postgres",
    "tests.fixtures.s3",
    "tests.fixtures.emulator",
    "tests.fixtures.direct",
    "tests.fixtures.pauses",
    "tests.fixtures.airflow",
    "tests.fixtures.local_airflow",
]


def is_this_machine(host: str | bytes | None) -> bool:
    """Whether the host is loopback, any address of this machine to listen on, or its own name."""
    if host is None or host in ("", b"", "localhost", b"localhost", "0.0.0.0", "::", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False


def keep_to_this_machine(event: str, args: tuple[object, ...]) -> None:
    """Answer as a machine without a network does, whichever library asks."""
    if event == "socket.getaddrinfo" and not is_this_machine(args[0]):  # type: ignore[arg-type]
        raise socket.gaierror(socket.EAI_NONAME, "the tests resolve this machine's own names only")
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple) and not is_this_machine(args[1][0]):
        raise OSError("the tests connect to this machine only")


sys.addaudithook(keep_to_this_machine)

# Where no loop has been set, pytest-asyncio makes one before each asynchronous test. The next `asyncio.run` replaces it
# unclosed, and the warning then fails whichever test the garbage collector runs in.
asyncio.set_event_loop(None)


@pytest.fixture(autouse=True, scope="module")
def stores_of_its_own() -> None:
    """Forget the file systems that Airflow keeps for a process by connection id: here an id means another server."""
    for module in ("airflow.sdk.io.store", "airflow.io.store", "airflow.io.path"):
        if module in sys.modules:
            getattr(sys.modules[module], "_STORE_CACHE", {}).clear()


@pytest.fixture(autouse=True)
def log_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a command does to this process's log: tests after it read that."""
    ours = logging.getLogger("airflow_speechkit")
    monkeypatch.setattr(ours, "handlers", list(ours.handlers))
    monkeypatch.setattr(ours, "propagate", ours.propagate)
    monkeypatch.setattr(ours, "level", ours.level)
