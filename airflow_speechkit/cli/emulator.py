"""``airflow-speechkit emulator`` and ``demo``: the service and the main job on a laptop, without an account."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

PROGRAM = "speechkit-emulator"

#: Seconds of the service's time in a second: a call of a quarter of a minute is ready in about a second.
SPEED = 5.0


def add(subparsers: Any) -> None:
    """Add the commands."""
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
    """Run the program `speechkit-emulator`, which is a distribution of its own."""
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which(PROGRAM, path=os.pathsep.join((beside_python, os.environ.get("PATH", os.defpath))))
    if program is None:
        # The command line names the extra that installs it.
        raise ModuleNotFoundError(name="speechkit_emulator")
    os.execv(program, [program, *arguments.arguments])  # noqa: S606 - replaces this process, no shell
