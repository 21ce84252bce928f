"""``airflow-speechkit demo``: the main job on a laptop, without an account."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

#: Seconds of the service's time in a second: a call of a quarter of a minute is ready in about a second.
SPEED = 5.0


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="run the main job: recordings in a bucket become rows in DuckDB",
        description="Starts the emulator and a bucket, puts sample calls into it, has Airflow run the DAG "
        "`speechkit_to_warehouse`, and shows the rows. Everything but the output folder is removed again.",
    )
    parser.add_argument("--to", type=Path, default=Path("demo-output"), help="output folder (default: %(default)s)")
    parser.add_argument("--dags", type=Path, default=Path("dags"), help="the project's DAGs (default: %(default)s)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.demo.run import run_demo

    return run_demo(arguments.dags.resolve(), arguments.to.resolve(), speed=SPEED)
