"""``airflow-speechkit archive``: what was submitted and answered, and commands that correct or delete it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.endpoints import Endpoints
from airflow_speechkit.archive import maintenance
from airflow_speechkit.archive.identity import operation_of, recognition_ids
from airflow_speechkit.archive.inspection import copy_answers, copy_archive, look_up, operations, verify
from airflow_speechkit.archive.labels import LabelChange, current_user, label, read_label_file
from airflow_speechkit.archive.layout import ROOT_FILE, plain
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.cli.storage import ADDRESS, ENDPOINT, folder_at
from airflow_speechkit.errors import ArchiveError, SettingsError
from airflow_speechkit.models import is_operation_id
from airflow_speechkit.recordings.address import uri_on_record
from airflow_speechkit.storage.disk import private_mode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection

    from airflow_speechkit.archive.inspection import Listed
    from airflow_speechkit.storage import Folder

#: What `show` has of each other recording that shares an operation.
_OF_ANOTHER = ("recognition_id", "audio_uri", "etag", "labels", "submitted_at", "dag_id", "run_id")

STATES = ("running", "finished", "failed", "expired", "refused", "filtered", "superseded")


def add(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "archive",
        help="list, show, verify or export an archive, correct labels, forget recordings, settle lost submissions",
        description="An archive holds what was submitted, and the service's answers as they came. Its address is in "
        "`archive=` of the operators, `archive` of the connection or [speechkit] archive.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace, Archive], int], text: str) -> Callable[..., Any]:
        """Add a command with an archive, and return what adds an argument to it."""
        parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.add_argument("--archive", required=True, metavar="URL", help=ADDRESS)
        parser.add_argument("--endpoint-url", metavar="URL", help=ENDPOINT)
        parser.set_defaults(run=lambda arguments: run(arguments, _archive(arguments)))
        add_argument: Callable[..., Any] = parser.add_argument
        return add_argument

    option = command("list", _list, "list the operations")
    option("--state", choices=STATES, help="only these; superseded ones are listed only if asked for")
    option("--json", action="store_true", help="one JSON object for each")

    option = command("show", _show, "show all that is on record about an operation")
    option("operation_id", metavar="OPERATION_ID")
    option("--answer", action="store_true", help="print the service's answer instead, as it came")

    command("verify", _verify, "check that every submission has an answer or a reason (exit status 1 if not)")

    option = command("export", _export, "copy the archive to another folder, which is an archive then")
    option("--to", required=True, metavar="URL", help="a folder")
    option("--answers", action="store_true", help="only the answers, as files that `transform` takes")

    option = command("forget", _forget, "delete an operation, or a recording, and keep a record of the deletion")
    option("operation_ids", nargs="*", metavar="OPERATION_ID")
    option("--recording", metavar="ADDRESS", help="all of this recording, as s3://bucket/key or as an https link")
    tables = "delete its rows from the files that the transform or `compact` wrote here; may be given several times"
    option("--tables", action="append", default=[], metavar="URL", help=tables)
    option("--duckdb", metavar="FILE", help="delete its rows from the tables of this DuckDB database")
    option("--table-prefix", default="", metavar="PREFIX", help="the `table_prefix` of SpeechKitToSqlOperator")
    option("--schema", help="the schema of the database's tables (default for DuckDB: all schemas)")
    copies = "leave the converted copies of recordings where they are (without it, they are deleted too)"
    option("--keep-copies", action="store_true", help=copies)
    option("--even-if-running", action="store_true", help="also an operation without an end on record")
    option("--dry-run", action="store_true", help="only print the operations that would be forgotten")

    option = command("label", _label, "correct labels of operations that are on record")
    option("what", nargs="*", metavar="OPERATION_ID KEY=VALUE", help="an operation, and labels to set")
    option("--remove", action="append", default=[], metavar="KEY", help="remove a label")
    source = "CSV or JSON Lines, `-` for standard input: `operation_id` (or `audio_uri`) and labels in each line"
    option("--from", dest="source", metavar="FILE", help=source)

    fingerprint, attempt = "from the error or `verify`", "the attempt's number there (default: the newest)"
    option = command("adopt", _adopt, "put the operation of a lost submission on record")
    option("fingerprint", metavar="FINGERPRINT", help=fingerprint)
    option("operation_id", metavar="OPERATION_ID")
    option("--attempt", type=int, metavar="N", help=attempt)

    option = command("release", _release, "state that the service did not accept a lost submission: it is sent again")
    option("fingerprint", metavar="FINGERPRINT", help=fingerprint)
    option("--attempt", type=int, metavar="N", help=attempt)


def _archive(arguments: argparse.Namespace) -> Archive:
    archive = Archive(replace(_private(arguments.archive, arguments.endpoint_url), fault=ArchiveError))
    if not archive.folder.exists(ROOT_FILE):
        raise ArchiveError(f"There is no archive at {archive.url}", hint="Check --archive; nothing was written")
    return archive


def _private(url: str, endpoint_url: str | None) -> Folder:
    """Return a folder whose files, on a disk, have the mode of an archive's files."""
    mode = private_mode(os.environ.get("AIRFLOW__SPEECHKIT__ARCHIVE_MODE"))
    return replace(folder_at(url, endpoint_url), file_mode=mode)


def _recording(arguments: argparse.Namespace, address: str) -> str:
    """Return the address as it is on record, however it was written."""
    return uri_on_record(address, (Endpoints().storage, *filter(None, [arguments.endpoint_url])))


def _list(arguments: argparse.Namespace, archive: Archive) -> int:
    for one in operations(archive):
        if one.state == arguments.state or (arguments.state is None and not one.superseded):
            print(json.dumps(_facts(one), ensure_ascii=False) if arguments.json else _line(one))
    return 0


def _line(one: Listed) -> str:
    submission, failure = one.submission, one.outcome and one.outcome.failure
    why = f"  {failure.message}" if failure else ""
    if submission is None:
        return f"{one.operation_id:22} {one.state:9} {'-':16} {'-':>7} s  (submitted elsewhere){why}"
    at, billed_s = f"{submission.submitted_at:%Y-%m-%d %H:%M}", submission.billed_seconds
    seconds = "-" if billed_s is None else billed_s
    part = f" (part {submission.part.number} of {submission.part.of})" if submission.part else ""
    return f"{one.operation_id:22} {one.state:9} {at} {seconds:>7} s  {submission.audio_uri}{part}{why}"


def _facts(one: Listed) -> dict[str, Any]:
    first: dict[str, Any] = {"operation_id": one.operation_id, "state": one.state}
    facts = first if one.submission is None else first | plain(one.submission) | first
    if one.outcome is not None:
        failure = one.outcome.failure
        error = None if failure is None else {"code": failure.code, "message": failure.message}
        facts |= {"ended_at": plain(one.outcome.at), "error": error, "files": plain(one.outcome.files)}
    return facts


def _show(arguments: argparse.Namespace, archive: Archive) -> int:
    operation_id = operation_of(archive, arguments.operation_id)
    found = look_up(archive, operation_id)
    if found is None:
        what = "was forgotten" if archive.is_forgotten(operation_id) else "isn't in the archive"
        raise ArchiveError(f"This operation {what}", operation_id=operation_id, retry_can_help=False)
    if not arguments.answer:
        facts = {**_facts(found), "label_history": _label_history(archive, operation_id)}
        facts["same_content"] = [{name: plain(getattr(one, name)) for name in _OF_ANOTHER} for one in found.others]
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return 0
    answer = archive.answer(operation_id, most_bytes=sys.maxsize)
    if answer is None:
        raise ArchiveError(f"No answer is archived: this operation is {found.state}", operation_id=operation_id)
    sys.stdout.buffer.write(answer.operation + (b"\n" + answer.recognition if answer.recognition is not None else b""))
    sys.stdout.buffer.flush()
    return 0


def _label_history(archive: Archive, operation_id: str) -> list[dict[str, Any]]:
    """Return who set which labels, and when: the first ones came with the submission."""
    entry = archive.entry(operation_id)
    if entry is None:
        return []
    first = {"labels": dict(entry.submission.labels), "by": entry.scope, "at": plain(entry.submission.submitted_at)}
    return [first, *map(plain, archive.label_records(operation_id))]


def _verify(arguments: argparse.Namespace, archive: Archive) -> int:
    verdict = verify(archive, datetime.now(UTC))
    for finding in verdict.findings:
        print(f"{finding.problem.value:8} {finding.about}  {finding.text}")
    counts = ", ".join(f"{count} {state}" for state, count in verdict.operations.items()) or "none"
    print(f"{sum(verdict.operations.values())} operations ({counts}); {len(verdict.findings)} problems")
    return 1 if verdict.findings else 0


def _export(arguments: argparse.Namespace, archive: Archive) -> int:
    target = _private(arguments.to, arguments.endpoint_url)
    if not arguments.answers:
        print(f"{copy_archive(archive, target)} files to {target.url}")
        return 0
    print(f"{copy_answers(archive, target)} answers to {target.url}")
    return 0


def _forget(arguments: argparse.Namespace, archive: Archive) -> int:
    now, recording, attempts, claims = datetime.now(UTC), None, [], []
    ids = dict.fromkeys(one for each in arguments.operation_ids for one in maintenance.operations_under(archive, each))
    is_known = bool(ids)
    if arguments.recording:
        recording = _recording(arguments, arguments.recording)
        found = dict.fromkeys(maintenance.operations_of(archive, recording))
        for fingerprint, attempt, claim in maintenance.attempts_of(archive, recording):
            attempts.append(f"attempt {attempt.number} under {fingerprint}")
            if not attempt.is_live(now):
                claims.append(claim)
        ids, is_known = ids | found, bool(found or attempts)
    if not is_known:
        raise ArchiveError(
            "There is nothing on record to forget, and nothing was deleted",
            recording=recording,
            hint="Give an OPERATION_ID, or a --recording that `airflow-speechkit archive list` shows",
            retry_can_help=False,
        )
    # The service may still be reading the copies of others.
    ended = [one for one in ids if arguments.even_if_running or archive.outcome(one) is not None]
    copies = [] if arguments.keep_copies else maintenance.copies_of(archive, ended, claims)
    if arguments.dry_run:
        print("\n".join([*ids, *attempts, *copies]))
        return 0
    # The archive last: while it has the operation, a command that was interrupted can be repeated.
    recognitions = [one for operation_id in ids for one in recognition_ids(archive, operation_id)]
    _delete_rows(arguments, [*recognitions, *maintenance.whole_ids(archive, ids)])
    _delete_copies(arguments, copies)
    for operation_id in ids:
        files = maintenance.delete_operation(archive, operation_id, now=now, even_if_running=arguments.even_if_running)
        print(f"Forgot {operation_id}: {files} files of the archive")
    if recording is not None:
        print(f"Forgot {maintenance.delete_attempts(archive, recording, now=now)} attempts that led to no operation")
    print("If it is submitted again it is paid for again. The service itself keeps results for three days.")
    return 0


def _delete_copies(arguments: argparse.Namespace, copies: Collection[str]) -> None:
    # Their addresses are on record without a connection.
    conn_id = arguments.archive.partition("://")[2].partition("/")[0].rpartition("@")[0]
    for uri in copies:
        folder, _, name = uri.removeprefix("s3://").rpartition("/")
        folder_at(f"s3://{conn_id}{'@' if conn_id else ''}{folder}", arguments.endpoint_url).delete(name)
        print(f"Deleted the converted copy {uri}")


def _delete_rows(arguments: argparse.Namespace, ids: Collection[str]) -> None:
    from airflow_speechkit.warehouse import deletion
    from airflow_speechkit.warehouse.ddl import Dialect, Names

    names = Names(Dialect.DUCKDB, arguments.schema, arguments.table_prefix)
    for url in arguments.tables:
        target = folder_at(url, arguments.endpoint_url)
        print(f"Deleted their rows from {len(deletion.delete_rows_in_files(target, ids))} files below {target.url}")
        for name in deletion.delete_unfinished_files(target):
            print(f"{target.url_of(name)} may still be written to, and may get their rows: forget them again later")
    if arguments.duckdb:
        print(f"Deleted {deletion.delete_rows_in_duckdb(arguments.duckdb, ids, names)} rows from {arguments.duckdb}")
    elif ids:
        print(f"If the rows were loaded into a database:\n{deletion.delete_statements(ids, names)}")


def _label(arguments: argparse.Namespace, archive: Archive) -> int:
    changes = _label_changes(arguments)
    changed, unchanged = label(archive, changes, by=current_user(), now=datetime.now(UTC))
    print(f"{changed} operations have new labels, {unchanged} had these labels already")
    if changed:
        print("Transform and load them again: that brings the labels into the tables, and costs nothing.")
    return 0


def _label_changes(arguments: argparse.Namespace) -> list[LabelChange]:
    """Return the corrections that the arguments ask for. No message quotes a label's text.

    :raises SettingsError: the arguments, or a line of the file, are invalid
    """
    operation_id, *pairs = arguments.what or [None]
    if (operation_id is None) == (arguments.source is None) or (arguments.source and arguments.remove):
        raise SettingsError("Either an OPERATION_ID with its labels, or --from FILE, says what to correct")
    if arguments.source is not None:
        raw = sys.stdin.buffer.read() if arguments.source == "-" else folder_at(arguments.source).read("")
        return read_label_file(raw, lambda address: _recording(arguments, address))
    if not is_operation_id(operation_id):
        # Not quoted: it may be a label, with a customer's number.
        raise SettingsError("The first argument can't be an operation id")
    labels: dict[str, str | None] = dict.fromkeys(arguments.remove)
    for number, pair in enumerate(pairs, start=1):
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise SettingsError(f"Label {number} isn't written as KEY=VALUE")
        if name in labels:
            raise SettingsError(f"The label {name!r} is given twice")
        labels[name] = text
    if not labels:
        raise SettingsError("There is no label to correct", hint="Give KEY=VALUE, or --remove KEY")
    return [LabelChange(about=operation_id, labels=labels)]


def _adopt(arguments: argparse.Namespace, archive: Archive) -> int:
    fingerprint, operation_id, now = arguments.fingerprint, arguments.operation_id, datetime.now(UTC)
    number = maintenance.adopt(archive, fingerprint, operation_id, now=now, attempt=arguments.attempt)
    print(f"{operation_id} is on record, as attempt {number}: the next run joins it")
    return 0


def _release(arguments: argparse.Namespace, archive: Archive) -> int:
    number = maintenance.release(archive, arguments.fingerprint, now=datetime.now(UTC), attempt=arguments.attempt)
    print(f"Attempt {number} is released: the next run that needs the recording may send it again")
    return 0
