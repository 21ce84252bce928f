"""``airflow-speechkit compact``: larger files of the days that are over."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow_speechkit.cli._storage import ENDPOINT, folder_at

if TYPE_CHECKING:
    import argparse


def add(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "compact",
        help="make larger Parquet files of a lake's days that are over",
        description="Of each day before today (UTC) write one Parquet file for each table, "
        "TABLE/day=2026-11-22/part-0.parquet, with the rows of all operations. A day that hasn't changed is skipped. "
        "Don't remove parts while a transform writes to the same days.",
    )
    parser.add_argument("source", metavar="SOURCE", help="where SpeechKitTransformOperator writes")
    parser.add_argument("--to", required=True, metavar="TARGET", help="another folder, for the larger files")
    parser.add_argument(
        "--through", type=date.fromisoformat, metavar="YYYY-MM-DD", help="the last day (default: yesterday, UTC)"
    )
    parser.add_argument("--delete-parts", action="store_true", help="remove a day's files in SOURCE once that is done")
    parser.add_argument("--endpoint-url", metavar="URL", help=ENDPOINT)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.results.compact import compact

    source, target = (folder_at(url, arguments.endpoint_url) for url in (arguments.source, arguments.to))
    days = compact(
        source, target, now=datetime.now(UTC), through=arguments.through, delete_parts=arguments.delete_parts
    )
    done = None
    for done in days:
        rows = ", ".join(f"{count:,} rows of {table}" for table, count in (done.rows or {}).items())
        print(f"{done.day}: {rows or 'nothing new'}; {done.removed:,} files removed", file=sys.stderr)  # noqa: T201
    if done is None:
        print("There are no files of a day that is over (UTC)", file=sys.stderr)  # noqa: T201
    return 0
