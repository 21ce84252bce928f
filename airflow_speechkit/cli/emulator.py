"""``airflow-speechkit emulator``: the program ``speechkit-emulator``, which is a distribution of its own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

PROGRAM = "speechkit-emulator"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    # No option is ours: with another prefix each argument, `--help` too, is taken as it is and passed on.
    parser = subparsers.add_parser(
        "emulator", help="run a local SpeechKit with a bucket beside it", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("arguments", nargs="*")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which(PROGRAM, path=os.pathsep.join((beside_python, os.environ.get("PATH", os.defpath))))
    if program is None:
        # The command line says which extra brings it.
        raise ModuleNotFoundError(name="speechkit_emulator")
    os.execv(program, [program, *arguments.arguments])  # noqa: S606 - replaces this process, no shell
