"""``airflow-speechkit transform``: saved answers to tables."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_speechkit.cli._storage import ADDRESS, folder_at
from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from airflow_speechkit.results.many import Loaded


def add(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "transform",
        help="turn saved answers into Parquet, CSV or JSON Lines",
        description="Turn saved answers of the service into the tables recognitions, utterances, words and analyses. "
        "An answer of API v2 is its finished operation; one of API v3 is what getRecognition gave, with or without "
        "its operation before it. Gzipped files are taken as they are. Each operation has its own files, "
        "TABLE/day=2026-11-22/OPERATION.parquet, under the UTC date on which it was created.",
    )
    parser.add_argument("results", nargs="+", metavar="RESULT.json", help="a saved answer")
    parser.add_argument("--to", required=True, metavar="URL", help=f"where the tables go: {ADDRESS}")
    parser.add_argument(
        "--format", default="parquet", choices=["parquet", "csv", "jsonl"], help="of the files (default: parquet)"
    )
    for gone in ("--name", "--partition-by-date"):
        parser.add_argument(gone, nargs="?", action=_Gone, help=argparse.SUPPRESS)
    parser.add_argument(
        "--memory-mib",
        type=int,
        default=256,
        metavar="N",
        help="what answers and rows may take; one that is larger than an eighth of it, inflated, is not read "
        "(default: 256)",
    )
    parser.set_defaults(run=_run)


class _Gone(argparse.Action):
    """An option that is no more."""

    def __call__(self, *arguments: Any) -> NoReturn:
        raise SettingsError(
            f"{arguments[-1]} is no option any more: each operation has its own files under day=…",
            hint="Remove it; `airflow-speechkit compact` makes larger files of them",
        )


def _run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from airflow_speechkit.results.many import answer_in, largest_answer, write_many

    memory_bytes = arguments.memory_mib << 20

    def load(path: str) -> Loaded:
        with Path(path).open("rb") as file:
            # One byte more than may be read says that there are too many.
            return answer_in(path, file.read(largest_answer(memory_bytes) + 1), memory_bytes)

    manifest = write_many(
        load,
        dict.fromkeys(arguments.results),
        folder_at(arguments.to),
        file_format=arguments.format,
        memory_bytes=memory_bytes,
    )
    print(manifest.url)  # noqa: T201
    for table, written in manifest.tables.items():
        files = f"{len(written.paths):,} files below {manifest.target}/{table}"
        print(f"{table}: {written.rows:,} rows in {files}", file=sys.stderr)  # noqa: T201
    if manifest.identical_channels:
        print(  # noqa: T201
            f"warning: {manifest.identical_channels} of {manifest.operations} recordings say the same in all their "
            "channels: mono that was stored as stereo",
            file=sys.stderr,
        )
    for unread in manifest.unread:
        print(f"error: {unread.operation_id}: {unread.reason}", file=sys.stderr)  # noqa: T201
    return 1 if manifest.unread else 0
