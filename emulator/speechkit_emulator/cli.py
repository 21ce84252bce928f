"""The command line, `speechkit-emulator`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import fields

from speechkit_emulator.connections import ConnectionForm, NoEmulatorError, of_running
from speechkit_emulator.options import Options, add_arguments


def run(arguments: argparse.Namespace) -> int:
    """Run an emulator until a signal stops it."""
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    # Arguments are checked before the server's libraries are loaded.
    from speechkit_emulator.server import serve

    return asyncio.run(serve(options))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="speechkit-emulator",
        description="A local SpeechKit (API v2 and v3) and an S3 bucket, on loopback. It recognises English speech. "
        "When ready, it prints one line of JSON with its addresses and keys. The page at the SpeechKit address shows "
        "them too, and connections for Airflow.",
    )
    add_arguments(parser)
    parser.add_argument(
        "--airflow-connections",
        type=ConnectionForm,
        choices=list(ConnectionForm),
        nargs="?",
        const=ConnectionForm.ENV,
        metavar="env|commands|json",
        help="print Airflow connections to the running emulator on --port, and exit: environment variables (env, the "
        "default), `airflow connections add` commands, or a file for `airflow connections import` (json)",
    )
    arguments = parser.parse_args(argv)
    if arguments.airflow_connections is None:
        return run(arguments)
    try:
        text = of_running(arguments.port, arguments.airflow_connections)
    except NoEmulatorError as error:
        print(f"speechkit-emulator: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(text, end="")  # noqa: T201
    return 0
