"""``airflow-speechkit emulator``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    from airflow_speechkit.emulator.options import add_arguments, run

    parser = subparsers.add_parser(
        "emulator",
        help="run a local SpeechKit with a bucket beside it",
        description="A local SpeechKit (API v2 and v3) and an S3 bucket, on loopback. It really recognises English "
        "speech. Once ready it prints one line of JSON that says where it is and what it accepts.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)
