"""Archived answers become tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, Context

from airflow_speechkit.errors import AnswerUnreadableError, NotFinishedError, ResultExpiredError, SettingsError
from airflow_speechkit.hooks.archive import task_archive
from airflow_speechkit.hooks.storage import object_storage_path
from airflow_speechkit.keywords import CheckedFields, Checks, count
from airflow_speechkit.models import Part, Submission, operation_ids
from airflow_speechkit.storage import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.results.many import Loaded

MIB = 1024 * 1024


class SpeechKitTransformOperator(CheckedFields, BaseOperator):
    """Turn answers into the tables `recognitions`, `utterances`, `words` and `analyses`, as files.

    Each operation has a file of its own for each table, ``words/day=2026-11-22/OPERATION.parquet``, under the UTC date
    on which it was created. A transform that writes an operation again, in whatever list, replaces its files, so a
    target has its rows once. Files are complete or not there. An operation that failed is a row of `recognitions` with
    its error. Returns the path of a manifest of these files and how many rows they have, never a row.
    ``docs/tables.md`` has the columns.

    Rows that a retry could still read are never left out: if the service, the archive or a file can't be reached or
    may not be read, or an operation that is named isn't finished, the task fails, and no file is changed.

    Give it one of `operation_id`, `operation_prefix` and `files`.

    :param target: the folder, on any path that Airflow's object storage reaches: ``s3://conn_id@bucket/prefix``,
        ``file:///…`` (templated)
    :param operation_id: an operation id, a list of them, or the output of a mapped upstream (templated)
    :param operation_prefix: all operations in the archive whose id begins with this, or with one of a list, ``""``
        for all: a backfill, for nothing; with ``.expand()`` one shard for each task. Those that still run count as
        unread; where there is no other the task is skipped (templated)
    :param files: saved answers, one path or a list of them, in place of an archive (templated)
    :param file_format: ``parquet``, ``csv`` or ``jsonl``; an operation's files in another format are replaced, so
        each format needs a target of its own (templated)
    :param speechkit_conn_id: the connection (templated)
    :param archive: URL of the archive; by default the connection's, then ``[speechkit] archive``; ``False`` asks
        the service, which keeps results for three days and counts each request (templated)
    :param aws_conn_id: the storage's connection for addresses that name none; the SpeechKit connection's, or
        ``aws_default`` (templated)
    :param memory_mib: how many MiB answers and rows may take, whatever their number; where large answers follow
        small ones, `side_by_side` times the largest on top of that. An answer that is larger than a quarter of it
        (of saved ones an eighth), inflated, is unread; any of up to 16 MiB is read (templated)
    :param side_by_side: answers that are fetched at the same time (templated)
    :param on_unread: what an answer does that is broken, or that the service or the archive no longer has: ``report``
        it (in the log and in the XCom; the others are written), or ``fail`` the task, with nothing written and nothing
        replaced. The task always fails if no answer can be read
    """

    template_fields: Sequence[str] = (
        "target",
        "operation_id",
        "operation_prefix",
        "files",
        "file_format",
        "speechkit_conn_id",
        "archive",
        "aws_conn_id",
        "memory_mib",
        "side_by_side",
    )
    address_fields = ("target", "files", "archive")
    typed_fields: ClassVar[Checks] = {"memory_mib": count, "side_by_side": count}
    ui_color = "#dfe9f7"

    def __init__(
        self,
        *,
        target: str,
        operation_id: str | Sequence[str] | None = None,
        operation_prefix: str | Sequence[str] | None = None,
        files: str | Sequence[str] | None = None,
        file_format: str = "parquet",
        speechkit_conn_id: str = "speechkit_default",
        archive: str | bool | None = None,
        aws_conn_id: str | None = None,
        memory_mib: int | str = 256,
        side_by_side: int | str = 8,
        on_unread: str = "report",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_keywords(locals())
        if on_unread not in ("report", "fail"):
            raise SettingsError(f"`on_unread` is {on_unread!r}; it can be 'report' or 'fail'")

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the tables.

        :return: where the manifest is, the format, the rows of each table, and what could not be read
        :raises SettingsError: a keyword
        :raises AnswerUnreadableError: no answer can be read, or one can't with `on_unread="fail"`
        :raises NotFinishedError: an operation that is named isn't finished
        :raises StorageError: the archive, a file or the target
        """
        from airflow_speechkit.hooks.speechkit import SpeechKitHook
        from airflow_speechkit.results.many import write_many

        with SpeechKitHook(self.speechkit_conn_id) as hook:
            # Saved answers need no SpeechKit connection.
            aws_conn_id = self.aws_conn_id or ("aws_default" if self.files is not None else hook.connection.aws_conn_id)
            not_ended: list[str] = []
            ids, load = self._source(hook, aws_conn_id, not_ended)
            try:
                manifest = write_many(
                    load,
                    ids,
                    Folder.at(object_storage_path(self.target, aws_conn_id)),
                    file_format=self.file_format,
                    memory_bytes=self.memory_mib * MIB,
                    side_by_side=self.side_by_side,
                    leave_out_unread=self.on_unread == "report",
                    progress=lambda done: self.log.info("%d of %d operations are done", done, len(ids)),
                )
            except AnswerUnreadableError:
                if len(not_ended) == len(ids):
                    raise AirflowSkipException(f"None of the {len(ids)} operations has ended yet") from None
                raise
        for table, written in manifest.tables.items():
            self.log.info("%s: %d rows in %d files below %s", table, written.rows, len(written.paths), manifest.target)
        if unread := manifest.unread:
            named = "; ".join(f"{one.operation_id}: {one.reason}" for one in unread[: manifest.NAMED])
            self.log.error("%d of %d answers can't be read, and are left out: %s", len(unread), len(ids), named)
        summary = manifest.summary()
        if (events := context.get("outlet_events")) is not None:
            for outlet in self.outlets or ():
                events[outlet].extra = {"manifest": summary["manifest"], "rows": summary["rows"]}
        return summary

    def _source(
        self, hook: SpeechKitHook, aws_conn_id: str, not_ended: list[str]
    ) -> tuple[list[str], Callable[[str], Loaded]]:
        """Return which answers to read, and how one is fetched.

        :param not_ended: gets the operations of a prefix that have not ended, while they are fetched
        """
        from airflow_speechkit.results.many import largest_answer

        given = [one for one in ("operation_id", "operation_prefix", "files") if getattr(self, one) is not None]
        if len(given) != 1:
            raise SettingsError(
                f"Exactly one of `operation_id`, `operation_prefix` and `files` must be set, not {len(given)}"
            )
        memory_bytes = self.memory_mib * MIB
        if self.files is not None:
            paths = [self.files] if isinstance(self.files, str) else list(self.files)
            if not paths:
                raise SettingsError("`files` is an empty list")
            return list(dict.fromkeys(paths)), lambda path: _saved(path, aws_conn_id, memory_bytes)
        archive, prefixes = task_archive(self.archive, hook), self.operation_prefix
        if archive is None:
            if prefixes is not None:
                raise SettingsError("`operation_prefix` reads an archive, and `archive` is False")
            return operation_ids(self.operation_id), lambda one: (hook.get_answer(one), None)
        of_prefix = None
        if prefixes is None:
            ids = operation_ids(self.operation_id)
        else:
            of_prefix = not_ended
            ids = sorted(archive.operations(prefixes if isinstance(prefixes, str) else tuple(prefixes)))
            if not ids:
                raise AirflowSkipException(f"No operation in {archive.url} begins with {prefixes!r}")
        return ids, _ArchivedAnswers(archive, frozenset(ids), largest_answer(memory_bytes), of_prefix).load


@dataclass(frozen=True)
class _ArchivedAnswers:
    """The answers that an archive has.

    :param archive: the archive
    :param given: the operations whose rows are asked for: one of a part brings the rows of the whole recording
    :param most_bytes: how large an answer may be
    :param not_ended: gets the operations that have not ended, or of which another part hasn't: of a prefix, there is
        always one. Without it they are an error
    """

    archive: Archive
    given: frozenset[str]
    most_bytes: int
    not_ended: list[str] | None = None

    def load(self, operation_id: str) -> Loaded:
        """Fetch an answer: all rows of a recording in parts for the first of its operations, none for the others."""
        from airflow_speechkit.archive.identity import submissions
        from airflow_speechkit.results.schema import Tables

        known = submissions(self.archive, operation_id)
        if not known or known[0].part is None:
            return self._load_one(operation_id, known)
        running: list[str] | None = None if self.not_ended is None else []
        loaded = replace(self, not_ended=running)._load_whole(operation_id, known[0].part)
        # What is only running, or whose rows another part brings, doesn't keep a task from being skipped.
        if self.not_ended is not None and (running or (isinstance(loaded, Tables) and not len(loaded.recognitions))):
            self.not_ended.append(operation_id)
        return loaded

    def _load_whole(self, operation_id: str, part: Part) -> Loaded:
        from airflow_speechkit.archive.identity import all_operations, part_operations, submissions
        from airflow_speechkit.results.flatten import flatten
        from airflow_speechkit.results.manifest import Unread
        from airflow_speechkit.results.many import inflated_answer
        from airflow_speechkit.results.parts import join_parts
        from airflow_speechkit.results.schema import Tables

        operations = part_operations(self.archive, part, self.given)
        each = [*operations, *all_operations(self.archive, part)]
        if operation_id != next((one for one in each if one in self.given), None):
            return Tables.empty()
        parts = []
        for one in operations:
            known = submissions(self.archive, one)
            loaded = self._load_one(one, known)
            if isinstance(loaded, Unread):
                return loaded
            submission = known[0] if known else None
            if isinstance(loaded, tuple):
                loaded = flatten(inflated_answer(loaded[0], self.most_bytes), submission)
            if submission is None or submission.part is None or not len(loaded.recognitions):
                # It has just been deleted.
                return Tables.empty()
            parts.append((submission.part, loaded))
        return join_parts(parts)

    def _load_one(self, operation_id: str, known: Sequence[Submission]) -> Loaded:
        from airflow_speechkit.archive.layout import operation_file
        from airflow_speechkit.archive.ledger import AttemptState
        from airflow_speechkit.results.flatten import failed_row
        from airflow_speechkit.results.manifest import Unread
        from airflow_speechkit.results.schema import Status, Tables

        archive = self.archive
        outcome = archive.outcome(operation_id)
        if outcome is None:
            if not known and archive.is_forgotten(operation_id):
                return Unread(operation_id, "It was removed by `archive forget`")
            what = "The archive has no answer of this operation"
            if self.not_ended is None:
                raise NotFinishedError(
                    what,
                    operation_id=operation_id,
                    hint="SpeechKitRecognitionSensor waits for it and archives it; both need the same archive",
                )
            self.not_ended.append(operation_id)
            if any(archive.folder.names(operation_file(operation_id))):
                return Unread(operation_id, what, retry_can_help=True)
            # The folder that is left on a disk of an operation that was removed.
            return Tables.empty()
        answer, failure = archive.answer(operation_id, self.most_bytes), outcome.failure
        if answer is not None:
            if failure is not None and answer.recognition is None:
                # A v3 result that broke off was not kept, only what it broke off with; v2 has none.
                ended = {"code": failure.code, "message": failure.message}
                answer = replace(answer, recognition=json.dumps({"error": ended}).encode())
            return (answer, *known) if known else (answer, None)
        if not known:
            # It is only partly removed.
            raise ResultExpiredError("The archive has neither its answer nor its submission", operation_id=operation_id)
        status = Status.REFUSED if outcome.state is AttemptState.REFUSED else Status.LOST
        if known[0].filter_reason is not None:
            status = Status.FILTERED
        why = (failure.code, failure.message) if failure else ()
        return Tables.concat([failed_row(one, status, *why) for one in known])


def _saved(path: str, aws_conn_id: str, memory_bytes: int) -> Loaded:
    from airflow_speechkit.results.many import answer_in, largest_answer

    # One byte more than may be read says that there are too many.
    raw = Folder.at(object_storage_path(path, aws_conn_id)).read("", most_bytes=largest_answer(memory_bytes) + 1)
    return answer_in(path, raw, memory_bytes)
