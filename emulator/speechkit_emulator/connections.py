"""Airflow connections to a running emulator on this machine."""

from __future__ import annotations

import json
import shlex
import urllib.error
import urllib.request
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The path at which a running emulator returns them.
PATH = "/emulator/airflow-connections"


class ConnectionForm(StrEnum):
    """The form of connections: for a shell, for Airflow's command line, or as a file to import."""

    ENV = "env"
    COMMANDS = "commands"
    JSON = "json"


def connections(addresses: Mapping[str, str], database: Path) -> dict[str, dict[str, Any]]:
    """The connections that the example DAGs use.

    :param addresses: the emulator's addresses and keys, as in its line of JSON
    :param database: the DuckDB file for the rows
    :return: connection id -> connection
    """
    return {
        "speechkit_default": {
            "conn_type": "speechkit",
            "host": addresses["speechkit"],
            "password": addresses["api_key"],
            "extra": {"archive": f"s3://{addresses['bucket']}/archive", "storage_host": addresses["storage"]},
        },
        "aws_default": {
            "conn_type": "aws",
            "login": addresses["access_key_id"],
            "password": addresses["secret_access_key"],
            "extra": {"endpoint_url": addresses["storage"], "region_name": "ru-central1"},
        },
        "warehouse": {"conn_type": "duckdb", "host": str(database)},
    }


def written(known: Mapping[str, Mapping[str, Any]], form: ConnectionForm) -> str:
    """Connections as text to paste, evaluate or import."""
    if form is ConnectionForm.JSON:
        return json.dumps(known, indent=2, ensure_ascii=False) + "\n"
    write = _variable if form is ConnectionForm.ENV else _command
    return "".join(f"{write(conn_id, connection)}\n" for conn_id, connection in known.items())


def _variable(conn_id: str, connection: Mapping[str, Any]) -> str:
    return f"export AIRFLOW_CONN_{conn_id.upper()}={shlex.quote(json.dumps(connection, ensure_ascii=False))}"


def _command(conn_id: str, connection: Mapping[str, Any]) -> str:
    arguments = [f"--conn-{name.removeprefix('conn_')} {_argument(value)}" for name, value in connection.items()]
    return " \\\n    ".join([f"airflow connections add {conn_id}", *arguments])


def _argument(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


class NoEmulatorError(Exception):
    """No emulator answers at an address."""


def of_running(port: int, form: ConnectionForm) -> str:
    """The connections to the emulator on a port of this machine, as text.

    :raises NoEmulatorError: if no emulator answers there
    """
    url = f"http://127.0.0.1:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}{PATH}?form={form}", timeout=60) as answer:
            text: str = answer.read().decode()
    except (OSError, ValueError) as error:
        raise NoEmulatorError(
            f"No emulator answers at {url}. Start `speechkit-emulator` in another terminal, or give the --port that "
            "it listens on"
        ) from error
    return text
