"""The command ``airflow-speechkit``.

The modules ``archive``, ``tables`` and ``emulator`` have the commands: ``add(subparsers)`` makes their parsers with
``set_defaults(run=…)``, a function of the parsed arguments that returns the exit status. A command imports in ``run``
what it needs, so that no command loads what another one needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from airflow_speechkit import __version__
from airflow_speechkit.cli import archive, emulator, tables
from airflow_speechkit.errors import SpeechKitError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The extra that installs a module which only some commands need.
_EXTRAS = {
    "airflow.providers.duckdb": "duckdb", "airflow.providers.postgres": "postgres", "duckdb": "duckdb",
    "rich": "emulator", "speechkit_emulator": "emulator",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: the arguments, without the program's name
    :return: the exit status: 0, 1 for a failure, 2 for invalid arguments
    """
    parser = argparse.ArgumentParser(
        prog="airflow-speechkit", description="Yandex SpeechKit's asynchronous recognition, beside Airflow."
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (archive, tables, emulator):
        module.add(subparsers)
    try:
        arguments = parser.parse_args(argv)
        status: int = arguments.run(arguments)
    except SpeechKitError as error:
        print(f"airflow-speechkit: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name.partition(".")[0] in ("", "airflow_speechkit"):
            # A fault of this package, which no installation repairs.
            raise
        extra = next((extra for module, extra in _EXTRAS.items() if f"{name}.".startswith(f"{module}.")), None)
        hint = f"install it with pip install 'airflow-speechkit[{extra}]'" if extra else "install the package it is in"
        print(f"airflow-speechkit: this command needs the Python module `{name}`; {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`head`) has ended; the interpreter would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
