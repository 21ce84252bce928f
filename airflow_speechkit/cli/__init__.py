"""The command ``airflow-speechkit``.

The modules ``archive``, ``recordings`` and ``tables`` have commands of their own: ``add(subparsers)`` makes their
parsers with ``set_defaults(run=…)``, a function of the parsed arguments that returns the exit status. What takes
long to load (Airflow, pyarrow, databases) is imported in ``run``, so that no command loads what another one needs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_speechkit import __version__
from airflow_speechkit.cli import archive, recordings, tables
from airflow_speechkit.errors import SpeechKitError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The program that ``airflow-speechkit emulator`` runs, of a distribution of its own.
EMULATOR = "speechkit-emulator"

#: The demo's seconds of the service's time in a second: a call of a quarter of a minute is ready in about a second.
SPEED = 5.0


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
    recordings.add(subparsers)
    archive.add(subparsers)
    tables.add(subparsers)
    _add_demo_and_emulator(subparsers)
    try:
        arguments = parser.parse_args(argv)
        status: int = arguments.run(arguments)
    except (SpeechKitError, FileNotFoundError) as error:
        print(f"airflow-speechkit: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "airflow_speechkit").partition(".")[0] == "airflow_speechkit":
            # A fault of this package, which no installation repairs.
            raise
        print(
            f"airflow-speechkit: this command needs the Python module `{error.name}`; install it, or the extra that "
            "has it: airflow-speechkit[duckdb], [emulator], [postgres] or [s3]",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`head`) has ended; the interpreter would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _add_demo_and_emulator(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="run the main job: recordings in a bucket become rows in DuckDB",
        description="Starts the emulator and a bucket, puts sample calls into it, has Airflow run the DAG "
        "`speechkit_to_warehouse`, and shows the rows. Everything but the output folder is removed again.",
    )
    parser.add_argument("--to", type=Path, default=Path("demo-output"), help="output folder (default: %(default)s)")
    parser.add_argument("--dags", type=Path, default=Path("dags"), help="the project's DAGs (default: %(default)s)")
    parser.set_defaults(run=_demo)
    # No option is ours: with another prefix each argument, `--help` too, is passed on unchanged.
    parser = subparsers.add_parser(
        "emulator", help="run a local SpeechKit with a bucket beside it", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("arguments", nargs="*")
    parser.set_defaults(run=_emulator)


def _demo(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.demo.run import run_demo

    return run_demo(arguments.dags.resolve(), arguments.to.resolve(), speed=SPEED)


def _emulator(arguments: argparse.Namespace) -> int:
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which(EMULATOR, path=os.pathsep.join((beside_python, os.environ.get("PATH", os.defpath))))
    if program is None:
        raise ModuleNotFoundError(name="speechkit_emulator")
    os.execv(program, [program, *arguments.arguments])  # noqa: S606 - replaces this process, no shell
