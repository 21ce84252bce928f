"""The command ``airflow-speechkit``: each module of this package that has an ``add`` is a subcommand.

``add(subparsers)`` makes the subcommand's parser and gives it ``set_defaults(run=…)``: a function of the parsed
arguments that returns the exit status. What a subcommand works with it imports inside ``run``, so that asking for
one never loads what another one needs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from typing import TYPE_CHECKING

from airflow_speechkit import __version__
from airflow_speechkit.errors import SpeechKitError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Which extra brings a module that only some commands need.
_EXTRAS = {
    "airflow.providers.duckdb": "duckdb",
    "airflow.providers.postgres": "postgres",
    "duckdb": "duckdb",
    "rich": "emulator",
    "speechkit_emulator": "emulator",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: the arguments, without the program's name
    :return: the exit status: 0, 1 where something fell short, 2 for arguments that can't be taken
    """
    try:
        arguments = _parser().parse_args(argv)
        status: int = arguments.run(arguments)
    except SpeechKitError as error:
        print(f"airflow-speechkit: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __name__.partition(".")[0]:
            # Not one that somebody could install: a mistake of ours.
            raise
        print(f"airflow-speechkit: {_missing(error.name)}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output (`head`) has gone; the interpreter would complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _missing(module: str) -> str:
    parts = module.split(".")
    packages = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    extra = next((_EXTRAS[one] for one in packages if one in _EXTRAS), None)
    way = f"an extra brings it: pip install 'airflow-speechkit[{extra}]'" if extra else "install the package it is in"
    return f"this command needs the Python module `{module}`, which isn't there; {way}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-speechkit", description="Yandex SpeechKit's asynchronous recognition, beside Airflow."
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}").add(subparsers)
    return parser
