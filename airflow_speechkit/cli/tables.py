"""``airflow-speechkit transform``: saved answers to tables; ``compact``: the files of a day to larger ones."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow_speechkit.cli.storage import ADDRESS, ENDPOINT, folder_at

if TYPE_CHECKING:
    import argparse

    from airflow_speechkit.results.many import Loaded


def add(subparsers: Any) -> None:
    """Add the commands."""
    parser = subparsers.add_parser(
        "transform",
        help="turn saved answers into Parquet, CSV or JSON Lines",
        description="Turn saved answers of the service into the tables recognitions, utterances, words and analyses. "
        "An answer of API v2 is its finished operation; one of API v3 is what getRecognition returned, with or without "
        "its operation before it. Files may be gzipped. Each operation has its own files, "
        "TABLE/day=2026-11-22/OPERATION.parquet, under the UTC date on which it was created.",
    )
    parser.add_argument("results", nargs="+", metavar="RESULT.json", help="a saved answer")
    parser.add_argument("--to", required=True, metavar="URL", help=f"where the tables are written: {ADDRESS}")
    parser.add_argument("--format", default="parquet", choices=["parquet", "csv", "jsonl"], help="(default: parquet)")
    parser.add_argument(
        "--memory-mib",
        type=int,
        default=256,
        metavar="N",
        help="the memory for answers and rows; an answer that is larger than an eighth of it, inflated, is not read "
        "(default: 256)",
    )
    parser.set_defaults(run=_transform)

    parser = subparsers.add_parser(
        "compact",
        help="write larger Parquet files of days that are over",
        description="Of each day before today (UTC) write one Parquet file for each table, "
        "TABLE/day=2026-11-22/part-0.parquet, with the rows of all operations. A day that hasn't changed is skipped. "
        "Don't delete parts while a transform writes to the same days.",
    )
    parser.add_argument("source", metavar="SOURCE", help="where SpeechKitTransformOperator writes")
    parser.add_argument("--to", required=True, metavar="TARGET", help="another folder, for the larger files")
    parser.add_argument(
        "--through", type=date.fromisoformat, metavar="YYYY-MM-DD", help="the last day (default: yesterday, UTC)"
    )
    parser.add_argument("--delete-parts", action="store_true", help="delete a day's files in SOURCE once that is done")
    parser.add_argument("--endpoint-url", metavar="URL", help=ENDPOINT)
    parser.set_defaults(run=_compact)


def _transform(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.results.many import answer_in, largest_answer, write_many
    from airflow_speechkit.storage import Folder

    memory_bytes = arguments.memory_mib << 20

    def load(path: str) -> Loaded:
        # One byte more than allowed shows that the answer is too large.
        raw = Folder.at(path).read("", most_bytes=largest_answer(memory_bytes) + 1)
        return answer_in(path, raw, memory_bytes)

    answers, target = dict.fromkeys(arguments.results), folder_at(arguments.to)
    manifest = write_many(load, answers, target, file_format=arguments.format, memory_bytes=memory_bytes)
    print(manifest.url)
    for table, written in manifest.tables.items():
        _report(f"{table}: {written.rows:,} rows in {len(written.paths):,} files below {manifest.target}/{table}")
    if manifest.identical_channels:
        _report(
            f"warning: {manifest.identical_channels} of {manifest.operations} recordings have the same words in all "
            "channels: mono that was stored as stereo"
        )
    for unread in manifest.unread:
        _report(f"error: {unread.operation_id}: {unread.reason}")
    return 1 if manifest.unread else 0


def _compact(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.results.compact import compact

    source, target = (folder_at(url, arguments.endpoint_url) for url in (arguments.source, arguments.to))
    done = None
    for done in compact(
        source, target, now=datetime.now(UTC), through=arguments.through, delete_parts=arguments.delete_parts
    ):
        rows = ", ".join(f"{count:,} rows of {table}" for table, count in (done.rows or {}).items())
        _report(f"{done.day}: {rows or 'nothing new'}; {done.removed:,} files deleted")
    if done is None:
        _report("There are no files of a day that is over (UTC)")
    return 0


def _report(line: str) -> None:
    print(line, file=sys.stderr)
