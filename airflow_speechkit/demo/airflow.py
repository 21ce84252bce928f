"""An Airflow in a temporary home that runs one DAG, as ``airflow dags test`` does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

#: What the log says when a task begins, and when it has ended.
_BEGINS = re.compile(r"task_id=(\w+)|\[DAG TEST\] starting task_id=(\w+)")
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
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "AWS_"))}
        self._environment = {
            **kept,
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

    def version(self) -> str:
        """Say which Airflow this is."""
        from importlib.metadata import version

        return f"Airflow {version('apache-airflow')}"

    def migrate(self) -> None:
        """Make its database."""
        self._run(["db", "migrate"], lambda line: None)

    def run(self, dag_id: str, conf: Mapping[str, Any], on_line: Callable[[str], None]) -> None:
        """Run a DAG to its end.

        :param conf: the run's parameters
        :param on_line: is told each line of its log
        :raises DagFailedError: it did not succeed
        """
        lines = self._run(["dags", "test", dag_id, "--conf", json.dumps(dict(conf))], on_line)
        if not any("state=success" in line and "DagRun Finished" in line for line in lines):
            raise DagFailedError(f"The DAG {dag_id} did not succeed:\n" + "\n".join(lines[-_LAST_LINES:]))

    def _run(self, arguments: list[str], on_line: Callable[[str], None]) -> list[str]:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            [sys.executable, "-m", "airflow", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._home,
            start_new_session=True,
        )
        lines: list[str] = []
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in process.stdout:
                lines.append(line.rstrip())
                on_line(lines[-1])
            process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            raise DagFailedError(f"airflow {arguments[0]} failed:\n" + "\n".join(lines[-_LAST_LINES:]))
        return lines
