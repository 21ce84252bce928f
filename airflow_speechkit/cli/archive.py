"""``airflow-speechkit archive``: what was submitted and answered, and how to put right what can't put itself right."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from airflow_speechkit.archive.inspecting import Listed
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.folder import Folder


def add(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "archive",
        help="list, show, verify or export an archive, forget recordings, and settle lost submissions",
        description="An archive holds what was submitted, and the service's answers as they came. It lies where "
        "`archive=` of the operators, `archive` of the connection or [speechkit] archive says.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _command(commands, "list", _list, "list the operations")
    command.add_argument("--state", help="only these: running, finished, failed, expired, refused")
    command.add_argument("--json", action="store_true", help="one JSON object for each")

    command = _command(commands, "show", _show, "show all that is on record about an operation")
    command.add_argument("operation_id", metavar="OPERATION_ID")
    command.add_argument("--answer", action="store_true", help="print the service's answer instead, as it came")

    _command(commands, "verify", _verify, "see whether every submission has an answer or a reason (1 if not)")

    command = _command(commands, "export", _export, "copy the archive to another place, where it is one again")
    command.add_argument("--to", required=True, metavar="URL", help="a folder")
    command.add_argument("--answers", action="store_true", help="only the answers, as files that `transform` takes")

    command = _command(commands, "forget", _forget, "remove an operation, or a recording, and leave a record of that")
    command.add_argument("operation_ids", nargs="*", metavar="OPERATION_ID")
    command.add_argument("--recording", metavar="s3://BUCKET/KEY", help="every operation of this recording")
    command.add_argument("--tables", metavar="URL", help="remove its rows from the files that the transform wrote here")
    command.add_argument("--sql", metavar="FILE", help="remove its rows from the tables of this DuckDB database")
    command.add_argument("--even-if-running", action="store_true", help="also one of which no end is on record")
    command.add_argument("--dry-run", action="store_true", help="only say which operations it would be")

    command = _command(commands, "adopt", _adopt, "put the operation of a lost submission on record")
    command.add_argument("fingerprint", metavar="FINGERPRINT", help="as the error and `verify` say it")
    command.add_argument("operation_id", metavar="OPERATION_ID")

    command = _command(commands, "release", _release, "say that a lost submission was not taken: it is sent again")
    command.add_argument("fingerprint", metavar="FINGERPRINT", help="as the error and `verify` say it")


def _command(commands: Any, name: str, run: Any, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--archive",
        required=True,
        metavar="URL",
        help="a local folder, s3://bucket/folder (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are the keys), or "
        "s3://conn_id@bucket/folder where Airflow is set up",
    )
    parser.add_argument(
        "--endpoint-url", metavar="URL", help="of the object storage, such as https://storage.yandexcloud.net"
    )
    parser.set_defaults(run=run)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.inspecting import operations

    for one in operations(_archive(arguments)):
        if arguments.state in (None, one.state):
            _say(json.dumps(_facts(one), ensure_ascii=False) if arguments.json else _line(one))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.inspecting import Listed
    from airflow_speechkit.errors import ArchiveError

    archive = _archive(arguments)
    operation_id = arguments.operation_id
    found = Listed(
        operation_id=operation_id, submission=archive.submission(operation_id), outcome=archive.outcome(operation_id)
    )
    if found.submission is None and found.outcome is None:
        raise ArchiveError("This operation isn't in the archive", operation_id=operation_id)
    if not arguments.answer:
        _say(json.dumps(_facts(found, whole=True), ensure_ascii=False, indent=2))
        return 0
    answer = archive.answer(operation_id)
    if answer is None:
        raise ArchiveError(f"No answer is kept: this operation is {found.state}", operation_id=operation_id)
    sys.stdout.buffer.write(answer.operation + (b"\n" + answer.recognition if answer.recognition is not None else b""))
    sys.stdout.buffer.flush()
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.inspecting import verify

    verdict = verify(_archive(arguments), datetime.now(UTC))
    for finding in verdict.findings:
        _say(f"{finding.problem.value:8} {finding.about}  {finding.text}")
    counts = ", ".join(f"{count} {state}" for state, count in verdict.operations.items()) or "none"
    _say(f"{sum(verdict.operations.values())} operations ({counts}); {len(verdict.findings)} problems")
    return 1 if verdict.findings else 0


def _export(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.exporting import copy_answers, copy_archive

    copy, what = (copy_answers, "answers") if arguments.answers else (copy_archive, "files")
    target = _folder(arguments.to, arguments.endpoint_url)
    _say(f"{copy(_archive(arguments), target)} {what} to {target.url}")
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.erasing import erase_from_duckdb, erase_from_files, sql_for
    from airflow_speechkit.archive.forgetting import forget, forget_attempts, operations_of
    from airflow_speechkit.errors import SettingsError

    archive = _archive(arguments)
    ids = list(arguments.operation_ids)
    if arguments.recording:
        ids += [one for one in operations_of(archive, arguments.recording) if one not in ids]
    if not ids and not arguments.recording:
        raise SettingsError(
            "There is nothing to forget", todo="Give an OPERATION_ID, or a --recording that is on record"
        )
    if arguments.dry_run:
        _say("\n".join(ids))
        return 0
    # The archive last: as long as it knows the operation, a command that was interrupted can be given again.
    if arguments.tables:
        files = erase_from_files(_folder(arguments.tables, arguments.endpoint_url), ids)
        _say(f"Removed their rows from {len(files)} files below {arguments.tables}")
    if arguments.sql:
        _say(f"Removed {erase_from_duckdb(arguments.sql, ids)} rows from {arguments.sql}")
    for operation_id in ids:
        done = forget(archive, operation_id, now=datetime.now(UTC), even_if_running=arguments.even_if_running)
        _say(f"Forgot {operation_id}: {done.files} files of the archive")
    if arguments.recording:
        attempts = forget_attempts(archive, arguments.recording, now=datetime.now(UTC))
        _say(f"Forgot {attempts} attempts that had led to no operation")
    if ids and not arguments.sql:
        _say(f"If the rows were loaded into a database:\n{sql_for(ids)}")
    _say("If it is submitted again it is paid for again. The service itself keeps results for three days.")
    return 0


def _adopt(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.lost import adopt

    adopt(_archive(arguments), arguments.fingerprint, arguments.operation_id, now=datetime.now(UTC))
    _say(f"{arguments.operation_id} is on record: the next run joins it")
    return 0


def _release(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.lost import release

    release(_archive(arguments), arguments.fingerprint, now=datetime.now(UTC))
    _say("Released: the next run sends it again")
    return 0


def _archive(arguments: argparse.Namespace) -> Archive:
    from dataclasses import replace

    from airflow_speechkit.archive.layout import ROOT_FILE
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.errors import ArchiveError

    archive = Archive(replace(_folder(arguments.archive, arguments.endpoint_url), fault=ArchiveError))
    if not archive.folder.exists(ROOT_FILE):
        raise ArchiveError(f"There is no archive at {archive.url}", todo="Check --archive; nothing was written")
    return archive


def _folder(url: str, endpoint_url: str | None) -> Folder:
    from airflow_speechkit.folder import Folder

    scheme, _, rest = url.partition("://")
    if not rest:
        return Folder.at(url)
    if "@" in rest.split("/", 1)[0]:
        # A connection's id: only Airflow knows what is behind it.
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        return Folder.at(ObjectStoragePath(url))
    if scheme == "file":
        return Folder.at("/" + rest.lstrip("/"))
    import fsspec

    options = {"endpoint_url": endpoint_url} if endpoint_url else {}
    fs, root = fsspec.core.url_to_fs(url, **options)
    return Folder(fs, root.rstrip("/"), url.rstrip("/"))


def _facts(one: Listed, *, whole: bool = False) -> dict[str, Any]:
    submission, outcome = one.submission, one.outcome
    facts: dict[str, Any] = {"operation_id": one.operation_id, "state": one.state}
    if submission is not None:
        facts |= submission.to_json()
        if not whole:
            del facts["settings"], facts["fingerprint"]
    facts["operation_id"] = one.operation_id
    if outcome is not None:
        facts["ended_at"] = outcome.at.isoformat()
        facts["error"] = None if outcome.failure is None else vars(outcome.failure)
        if whole:
            facts["files"] = {name: dict(about) for name, about in outcome.files.items()}
    return facts


def _line(one: Listed) -> str:
    submission = one.submission
    at = f"{submission.submitted_at:%Y-%m-%d %H:%M}" if submission else "-"
    seconds = "-" if submission is None or submission.billed_seconds is None else str(submission.billed_seconds)
    recording = submission.audio_uri if submission else "(submitted elsewhere)"
    failure = one.outcome.failure if one.outcome is not None else None
    why = f"  {failure.message}" if failure is not None else ""
    return f"{one.operation_id:22} {one.state:9} {at:16} {seconds:>7} s  {recording}{why}"


def _say(text: str) -> None:
    print(text)  # noqa: T201
