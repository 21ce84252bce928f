"""``airflow-speechkit archive``: what was submitted and answered, and how to put right what can't put itself right."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_speechkit.cli._storage import ADDRESS, ENDPOINT, folder_at

if TYPE_CHECKING:
    import argparse

    from airflow_speechkit.archive.inspection import Listed
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.storage import Folder

STATES = ("running", "finished", "failed", "expired", "refused", "superseded")


def add(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "archive",
        help="list, show, verify or export an archive, correct labels, forget recordings, settle lost submissions",
        description="An archive holds what was submitted, and the service's answers as they came. It lies where "
        "`archive=` of the operators, `archive` of the connection or [speechkit] archive says.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _command(commands, "list", _list, "list the operations")
    command.add_argument("--state", choices=STATES, help="only these; superseded ones are listed only if asked for")
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
    command.add_argument(
        "--recording", metavar="ADDRESS", help="everything of this recording, as s3://bucket/key or as an https link"
    )
    command.add_argument(
        "--tables",
        action="append",
        default=[],
        metavar="URL",
        help="remove its rows from the files that the transform wrote here, or `compact`; may be given several times",
    )
    command.add_argument("--duckdb", metavar="FILE", help="remove its rows from the tables of this DuckDB database")
    command.add_argument("--table-prefix", default="", metavar="PREFIX", help="as SpeechKitToSqlOperator was given it")
    command.add_argument("--schema", help="of the database's tables (default for DuckDB: all of them)")
    command.add_argument("--even-if-running", action="store_true", help="also one of which no end is on record")
    command.add_argument("--dry-run", action="store_true", help="only say which operations it would be")

    command = _command(commands, "label", _label, "correct labels of operations that are on record")
    command.add_argument(
        "what", nargs="*", metavar="OPERATION_ID KEY=VALUE", help="an operation, and the labels that it is to have"
    )
    command.add_argument("--remove", action="append", default=[], metavar="KEY", help="remove a label")
    command.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="CSV or JSON Lines, `-` for standard input: `operation_id` (or `audio_uri`) and labels in each line",
    )

    command = _command(commands, "adopt", _adopt, "put the operation of a lost submission on record")
    command.add_argument("fingerprint", metavar="FINGERPRINT", help="as the error and `verify` say it")
    command.add_argument("operation_id", metavar="OPERATION_ID")
    _add_attempt(command)

    command = _command(commands, "release", _release, "say that a lost submission was not taken: it is sent again")
    command.add_argument("fingerprint", metavar="FINGERPRINT", help="as the error and `verify` say it")
    _add_attempt(command)


def _add_attempt(command: Any) -> None:
    command.add_argument(
        "--attempt", type=int, metavar="N", help="which one, as the error and `verify` say it (default: the newest)"
    )


def _command(commands: Any, name: str, run: Any, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--archive",
        required=True,
        metavar="URL",
        help=ADDRESS,
    )
    parser.add_argument("--endpoint-url", metavar="URL", help=ENDPOINT)
    parser.set_defaults(run=run)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.inspection import operations

    for one in operations(_archive(arguments)):
        if one.state == arguments.state or (arguments.state is None and not one.superseded):
            _say(json.dumps(_facts(one), ensure_ascii=False) if arguments.json else _line(one))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.inspection import look_up
    from airflow_speechkit.errors import AnswerUnreadableError, ArchiveError

    archive = _archive(arguments)
    operation_id = arguments.operation_id
    found = look_up(archive, operation_id)
    if found is None:
        what = "was forgotten" if archive.is_forgotten(operation_id) else "isn't in the archive"
        raise ArchiveError(f"This operation {what}", operation_id=operation_id, retry_can_help=False)
    if not arguments.answer:
        facts = {**_facts(found, whole=True), "label_history": _label_history(archive, operation_id)}
        _say(json.dumps(facts, ensure_ascii=False, indent=2))
        return 0
    try:
        answer = archive.answer(operation_id)
    except AnswerUnreadableError:
        raise ArchiveError(_too_large(archive, operation_id), retry_can_help=False) from None
    if answer is None:
        raise ArchiveError(f"No answer is kept: this operation is {found.state}", operation_id=operation_id)
    sys.stdout.buffer.write(answer.operation + (b"\n" + answer.recognition if answer.recognition is not None else b""))
    sys.stdout.buffer.flush()
    return 0


def _label_history(archive: Archive, operation_id: str) -> list[dict[str, Any]]:
    """Return who gave which labels, and when: the first ones came with the submission."""
    from airflow_speechkit.archive.records import plain

    entry = archive.entry(operation_id)
    if entry is None:
        return []
    submission = entry.submission
    first = {"labels": dict(submission.labels), "by": entry.scope, "at": plain(submission.submitted_at)}
    return [first, *map(plain, archive.label_records(operation_id))]


def _verify(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.inspection import verify

    verdict = verify(_archive(arguments), datetime.now(UTC))
    for finding in verdict.findings:
        _say(f"{finding.problem.value:8} {finding.about}  {finding.text}")
    counts = ", ".join(f"{count} {state}" for state, count in verdict.operations.items()) or "none"
    _say(f"{sum(verdict.operations.values())} operations ({counts}); {len(verdict.findings)} problems")
    return 1 if verdict.findings else 0


def _export(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.inspection import copy_answers, copy_archive

    archive, target = _archive(arguments), _private(arguments.to, arguments.endpoint_url)
    if not arguments.answers:
        _say(f"{copy_archive(archive, target)} files to {target.url}")
        return 0
    copied, too_large = copy_answers(archive, target)
    _say(f"{copied} answers to {target.url}")
    for operation_id in too_large:
        _say(_too_large(archive, operation_id))
    return 0


def _too_large(archive: Archive, operation_id: str) -> str:
    from airflow_speechkit.archive.layout import operation_file

    place = archive.folder.url_of(operation_file(operation_id))
    return f"The answer is too large to be inflated here: it is {place}/operation.json.gz (v3: recognition.json.gz)"


def _forget(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.maintenance import attempts_of, delete_attempts, delete_operation, operations_of
    from airflow_speechkit.errors import ArchiveError, SettingsError
    from airflow_speechkit.warehouse.ddl import Dialect, Names
    from airflow_speechkit.warehouse.deletion import delete_rows_in_duckdb, delete_statements

    names = Names(Dialect.DUCKDB, arguments.schema, arguments.table_prefix)
    archive = _archive(arguments)
    ids = list(dict.fromkeys(arguments.operation_ids))
    recording, attempts = None, []
    if arguments.recording:
        recording = _recording(arguments, arguments.recording)
        found = list(operations_of(archive, recording))
        attempts = [(mark, attempt.number) for mark, attempt, _ in attempts_of(archive, recording)]
        if not found and not attempts:
            raise ArchiveError(
                "Nothing of this recording is on record, and nothing was removed",
                recording=recording,
                hint="`airflow-speechkit archive list` names the recordings that are",
                retry_can_help=False,
            )
        ids += [one for one in found if one not in ids]
    if not ids and not attempts:
        raise SettingsError(
            "There is nothing to forget", hint="Give an OPERATION_ID, or a --recording that is on record"
        )
    if arguments.dry_run:
        _say("\n".join([*ids, *(f"attempt {number} under {mark}" for mark, number in attempts)]))
        return 0
    # The archive last: as long as it knows the operation, a command that was interrupted can be given again.
    for tables in arguments.tables:
        _forget_in_files(folder_at(tables, arguments.endpoint_url), ids)
    if arguments.duckdb:
        rows = delete_rows_in_duckdb(arguments.duckdb, ids, schema=names.schema, table_prefix=names.prefix)
        _say(f"Removed {rows} rows from {arguments.duckdb}")
    for operation_id in ids:
        files = delete_operation(
            archive, operation_id, now=datetime.now(UTC), even_if_running=arguments.even_if_running
        )
        _say(f"Forgot {operation_id}: {files} files of the archive")
    if recording is not None:
        _say(f"Forgot {delete_attempts(archive, recording, now=datetime.now(UTC))} attempts that led to no operation")
    if ids and not arguments.duckdb:
        statements = delete_statements(ids, schema=names.schema, table_prefix=names.prefix)
        _say(f"If the rows were loaded into a database:\n{statements}")
    _say("If it is submitted again it is paid for again. The service itself keeps results for three days.")
    return 0


def _forget_in_files(target: Folder, ids: list[str]) -> None:
    from airflow_speechkit.warehouse.deletion import delete_rows_in_files, delete_unfinished_files

    _say(f"Removed their rows from {len(delete_rows_in_files(target, ids))} files below {target.url}")
    deleted, unfinished = delete_unfinished_files(target)
    if deleted:
        _say(f"Removed {len(deleted)} unfinished files there, left by processes that were killed")
    for name in unfinished:
        _say(f"{target.url_of(name)} may still be written to, and may get their rows: forget them again later")


def _recording(arguments: argparse.Namespace, address: str) -> str:
    """Return the address as it is on record, however it was written."""
    from airflow_speechkit.api.endpoints import Endpoints
    from airflow_speechkit.recordings.address import uri_on_record

    return uri_on_record(address, (Endpoints().storage, *filter(None, [arguments.endpoint_url])))


def _label(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.labels import current_user, label
    from airflow_speechkit.cli._labels import asked_for

    given = asked_for(arguments, folder_at, lambda address: _recording(arguments, address))
    changed, unchanged = label(_archive(arguments), given, by=current_user(), now=datetime.now(UTC))
    _say(f"{changed} operations have new labels, {unchanged} had these labels already")
    if changed:
        _say("Transform them again, and load them: that brings the labels into the tables, and costs nothing.")
    return 0


def _adopt(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.maintenance import adopt

    mark, operation_id, now = arguments.fingerprint, arguments.operation_id, datetime.now(UTC)
    number = adopt(_archive(arguments), mark, operation_id, now=now, attempt=arguments.attempt)
    _say(f"{operation_id} is on record, as attempt {number}: the next run joins it")
    return 0


def _release(arguments: argparse.Namespace) -> int:
    from airflow_speechkit.archive.maintenance import release

    now = datetime.now(UTC)
    number = release(_archive(arguments), arguments.fingerprint, now=now, attempt=arguments.attempt)
    _say(f"Attempt {number} is released: whoever asks for the recording next may send it again")
    return 0


def _archive(arguments: argparse.Namespace) -> Archive:
    from dataclasses import replace

    from airflow_speechkit.archive.layout import ROOT_FILE
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.errors import ArchiveError

    archive = Archive(replace(_private(arguments.archive, arguments.endpoint_url), fault=ArchiveError))
    if not archive.folder.exists(ROOT_FILE):
        raise ArchiveError(f"There is no archive at {archive.url}", hint="Check --archive; nothing was written")
    return archive


def _private(url: str, endpoint_url: str | None) -> Folder:
    """Return a folder whose files, on a disk, are for those that an archive's are for."""
    from dataclasses import replace

    from airflow_speechkit.storage.disk import private_mode

    mode = private_mode(os.environ.get("AIRFLOW__SPEECHKIT__ARCHIVE_MODE"))
    return replace(folder_at(url, endpoint_url), file_mode=mode)


def _facts(one: Listed, *, whole: bool = False) -> dict[str, Any]:
    from airflow_speechkit.archive.records import plain

    submission, outcome = one.submission, one.outcome
    facts: dict[str, Any] = {"operation_id": one.operation_id, "state": one.state}
    if submission is not None:
        facts |= plain(submission)
        if not whole:
            del facts["settings"], facts["fingerprint"]
    facts["operation_id"] = one.operation_id
    if outcome is not None:
        facts["ended_at"] = plain(outcome.at)
        failure = outcome.failure
        facts["error"] = None if failure is None else {"code": failure.code, "message": failure.message}
        if whole:
            facts["files"] = plain(outcome.files)
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
