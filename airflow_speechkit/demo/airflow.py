"""An Airflow in a temporary home, and its commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_LAST_LINES = 25


class DagFailedError(Exception):
    """Airflow, or the DAG, did not get to its end."""


class Airflow:
    """An Airflow of its own.

    :param home: an empty folder for all that it writes
    :param dags: the DAGs
    :param connections: connection id -> connection
    """

    def __init__(self, home: Path, dags: Path, connections: Mapping[str, Mapping[str, Any]]) -> None:
        self._home = home
        own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "AWS_"))}
        self._environment = own | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()},
        }

    def test_dag(self, dag_id: str, conf: Mapping[str, Any], on_line: Callable[[str], None]) -> None:
        """Run a DAG to its end, as ``airflow dags test`` does.

        :param conf: the run's parameters
        :param on_line: called with each line of its log
        :raises DagFailedError: it did not succeed
        """
        lines = self.run("dags", "test", dag_id, "--conf", json.dumps(dict(conf)), on_line=on_line)
        if not any("state=success" in line and "DagRun Finished" in line for line in lines):
            raise DagFailedError(f"The DAG {dag_id} did not succeed:\n" + "\n".join(lines[-_LAST_LINES:]))

    def run(self, *arguments: str, on_line: Callable[[str], None] | None = None) -> list[str]:
        """Run a command of Airflow and return the lines of its output.

        :raises DagFailedError: its exit status isn't 0
        """
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            [sys.executable, "-m", "airflow", *arguments], env=self._environment, cwd=self._home,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        lines: list[str] = []
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if on_line:
                    on_line(lines[-1])
            process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            raise DagFailedError(f"airflow {arguments[0]} failed:\n" + "\n".join(lines[-_LAST_LINES:]))
        return lines
