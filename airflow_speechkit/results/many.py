"""Thousands of answers to the tables' files, side by side, in memory that a setting bounds."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.errors import (
    AnswerUnreadableError,
    AuthenticationError,
    InvalidRequestError,
    PermissionDeniedError,
    SettingsError,
    SpeechKitError,
    StorageError,
)
from airflow_speechkit.results.flatten import BATCH_BYTES, read_many
from airflow_speechkit.results.formats import FileFormat
from airflow_speechkit.results.manifest import Manifest, Unread, name_after, stem
from airflow_speechkit.results.saved import read_saved
from airflow_speechkit.results.schema import Tables
from airflow_speechkit.results.write import Writing
from airflow_speechkit.storage.compressed import Packed, check_size, inflated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_speechkit.models import Answer, Submission
    from airflow_speechkit.storage import Folder

    #: An operation's answer with its submission, its rows where it has no answer, or why it is left out.
    Loaded = tuple[Answer, Submission | None] | Tables | Unread

#: What one task takes for its answers and rows, besides the interpreter and its libraries.
MEMORY_BYTES = 256 << 20

#: Answers that are fetched at the same time.
SIDE_BY_SIDE = 8

#: An answer that is being read takes up to so many times its size: itself, its columns, its rows in order.
_READING = 4

#: The largest answer that there can be is read in however little memory: see `compressed.LARGEST_ANSWER_BYTES`.
_READ_ALWAYS_BYTES = 16 << 20


def write_many(
    load: Callable[[str], Loaded],
    operation_ids: Iterable[str],
    target: Folder,
    *,
    name: str | None = None,
    file_format: FileFormat | str = FileFormat.PARQUET,
    memory_bytes: int = MEMORY_BYTES,
    side_by_side: int = SIDE_BY_SIDE,
    leave_out_unread: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Read many answers and write their rows, a file for each operation and table, and a manifest of these files.

    Whoever writes an operation again replaces its files, and what else there is of it below the target is removed.
    Where there is nothing else the right to remove isn't needed.

    An operation that is given twice, say in two saved files, is written once: the second one counts as unread.

    :param load: fetches an operation's answer; it is called in several threads at once. An answer that can't be read,
        that the service or the archive hasn't any more, and a file that is missing or may not be read are unread.
        Whatever else it raises stops everything: what another try, a key, or a right may bring must not be left out
    :param operation_ids: the operations, or the files of their answers
    :param target: where the files go: ``TABLE/day=2026-11-22/OPERATION.parquet``, by the UTC date of ``created_at``;
        ``finished_at`` stands in for one that is missing, and rows without either go to ``day=1970-01-01``
    :param name: what the manifest is named after; by default the operation, or a hash of several ones' ids
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param memory_bytes: what answers and rows may take, whatever their number. Only what is there tells how large
        answers are, so where larger ones than all before follow each other, as many as `side_by_side` of them come on
        top of that. An answer that is larger than `largest_answer` is unread
    :param side_by_side: how many answers are fetched at the same time
    :param leave_out_unread: write the others where some are unread; otherwise nothing is put in place then
    :param progress: is told how many operations are done, now and then
    :return: the manifest; its `unread` has the operations that were left out
    :raises SettingsError: a number or the format can't be taken
    :raises AnswerUnreadableError: nothing could be read, or something couldn't with `leave_out_unread` off; the target
        is as it was
    :raises StorageError: a file can't be read, or the target not be written
    """
    if memory_bytes < 1 or side_by_side < 1:
        raise SettingsError("`memory_bytes` and `side_by_side` count from 1")
    taken = _Taken()
    with (
        ThreadPoolExecutor(side_by_side, thread_name_prefix="answers") as pool,
        Writing(target, file_format) as writing,
    ):
        most_at_once = memory_bytes // (4 * _READING)
        most_bytes = largest_answer(memory_bytes)
        loading = _side_by_side(
            pool, lambda one: _load(load, one, most_bytes), operation_ids, memory_bytes // 4, side_by_side
        )
        reading: deque[Future[_Batch]] = deque()

        def write_all_but(behind: int) -> None:
            while len(reading) > behind:
                writing.add(taken.of(reading.popleft().result()))
                if progress:
                    progress(taken.operations)

        try:
            for batch in _batches(loading, min(most_at_once, BATCH_BYTES)):
                alone = sum(_size(one) for _, one in batch) > most_at_once
                if alone:
                    write_all_but(0)
                reading.append(pool.submit(_read_batch, batch))
                # One is read while the one before it is written.
                write_all_but(0 if alone else 1)
            write_all_but(0)
            if taken.unread and not (leave_out_unread and writing.operations):
                raise _refusal(taken, others=bool(writing.operations))
            return writing.finish(name_after(taken.ids) if name is None else stem(name), taken.unread)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def largest_answer(memory_bytes: int) -> int:
    """Return how many bytes an answer may have, inflated, to be read in so much memory."""
    return max(memory_bytes // _READING, _READ_ALWAYS_BYTES)


def answer_in(path: str, raw: bytes, memory_bytes: int = MEMORY_BYTES) -> Loaded:
    """Read a saved answer for `write_many`.

    :param path: its file, which is named after the operation where nothing in it tells that
    :param raw: what is in the file: the same the next time, so what can't be read stays so
    :param memory_bytes: what `write_many` may take
    """
    try:
        return read_saved(raw, _stem(path), largest_answer(memory_bytes // 2)), None
    except AnswerUnreadableError as error:
        return Unread(path, error.what)


def _stem(path: str) -> str:
    return PurePath(path).name.partition(".")[0]


def _refusal(taken: _Taken, *, others: bool) -> AnswerUnreadableError:
    named = "; ".join(f"{one.operation_id}: {one.reason}" for one in taken.unread[: Manifest.NAMED])
    return AnswerUnreadableError(
        f"{len(taken.unread)} of {taken.operations} answers can't be read, so nothing is written, and what an earlier "
        f"run wrote is as it was: {named}",
        hint="Look at these answers" + (", or leave them out with `on_unread='report'`" if others else ""),
        retry="reads all of them again",
        retry_can_help=any(one.retry_can_help for one in taken.unread),
    )


def _side_by_side(
    pool: ThreadPoolExecutor,
    load: Callable[[str], Loaded],
    operation_ids: Iterable[str],
    allowed_bytes: int,
    side_by_side: int,
) -> Iterator[tuple[str, Loaded]]:
    """Fetch answers ahead, as many at a time as will fit if they are like the largest so far; give them in order."""
    waiting: deque[tuple[str, Future[Loaded]]] = deque()
    largest, ahead = 1, 1
    for operation_id in operation_ids:
        waiting.append((operation_id, pool.submit(load, operation_id)))
        while len(waiting) >= ahead:
            known, future = waiting.popleft()
            loaded = future.result()
            largest = max(largest, _size(loaded))
            # Begin with a few: how large they are isn't known yet.
            ahead = max(min(side_by_side, ahead * 2, allowed_bytes // largest), 1)
            yield known, loaded
            # What is being read is not to be held here too while the next one is waited for.
            del loaded, future
    while waiting:
        known, future = waiting.popleft()
        yield known, future.result()


def _load(load: Callable[[str], Loaded], operation_id: str, most_bytes: int) -> Loaded:
    try:
        return _unpacked(load(operation_id), most_bytes)
    except SpeechKitError as error:
        if _concerns_all(error):
            raise
        return Unread(operation_id, error.what, error.retry_can_help)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        return Unread(operation_id, f"It can't be fetched ({type(error).__name__})")
    except OSError as error:
        raise StorageError(
            f"{operation_id} can't be read: {error.strerror or 'the storage failed'} ({type(error).__name__})",
            hint="See whether the storage is there",
            retry="reads everything again; nothing was written",
        ) from error


def _unpacked(loaded: Loaded, most_bytes: int) -> Loaded:
    """Inflate what was too large to be read when it came.

    :raises AnswerUnreadableError: it still is
    """
    if not isinstance(loaded, tuple):
        return loaded
    answer, submission = loaded
    try:
        operation, recognition = (
            inflated(part, most_bytes) if isinstance(part, Packed) else part
            for part in (answer.operation, answer.recognition)
        )
    except ValueError:
        raise AnswerUnreadableError("It is damaged", retry_can_help=False) from None
    check_size(_size(loaded), most_bytes)
    return replace(answer, operation=operation or b"", recognition=recognition), submission


def _concerns_all(error: SpeechKitError) -> bool:
    """Tell whether an answer that was not had may be had yet, so that its rows must not be left out.

    That takes in an operation that is not finished: its rows are to come.
    """
    if isinstance(error, (AuthenticationError, PermissionDeniedError, InvalidRequestError)):
        return True
    return error.retry_can_help or isinstance(error.__cause__, PermissionError)


def _size(loaded: Loaded) -> int:
    if isinstance(loaded, Unread):
        return 0
    if isinstance(loaded, Tables):
        return loaded.nbytes
    return len(loaded[0].operation) + len(loaded[0].recognition or b"")


def _ids(asked_for: str, loaded: Loaded) -> list[str]:
    """Return the operations that were loaded, as far as that can be told."""
    if isinstance(loaded, Unread):
        return [_stem(asked_for)]
    if isinstance(loaded, Tables):
        ids: list[str] = loaded.recognitions["recognition_id"].to_pylist()
        return ids
    return [loaded[0].operation_id]


def _batches(loaded: Iterable[tuple[str, Loaded]], batch_bytes: int) -> Iterator[list[tuple[str, Loaded]]]:
    batch: list[tuple[str, Loaded]] = []
    ids: set[str] = set()
    size = 0
    for asked_for, one in loaded:
        # The same operation twice is for `_Taken` to notice, from one batch to the next.
        if batch and (size + _size(one) > batch_bytes or not ids.isdisjoint(_ids(asked_for, one))):
            yield batch
            batch, ids, size = [], set(), 0
        batch.append((asked_for, one))
        ids.update(_ids(asked_for, one))
        size += _size(one)
    if batch:
        yield batch


@dataclass(frozen=True)
class _Batch:
    """Some answers, read.

    :param rows: what is in them
    :param unread: those that can't be read
    :param asked_for: what each operation with rows was asked for by
    :param ids: all operations
    :param operations: how many there were to read
    """

    rows: Tables
    unread: list[Unread]
    asked_for: dict[str, str]
    ids: list[str]
    operations: int


def _read_batch(batch: list[tuple[str, Loaded]]) -> _Batch:
    answers = [(asked_for, one) for asked_for, one in batch if isinstance(one, tuple)]
    read = read_many([one for _, one in answers])
    unread = [Unread(answers[number][0], error.what) for number, error in read.unreadable.items()]
    asked_for_by = {
        answer.operation_id: asked_for
        for number, (asked_for, (answer, _)) in enumerate(answers)
        if number not in read.unreadable
    }
    pieces = [read.tables]
    for asked_for, one in batch:
        if isinstance(one, Unread):
            unread.append(one)
        elif isinstance(one, Tables):
            pieces.append(one)
            asked_for_by.update(dict.fromkeys(_ids(asked_for, one), asked_for))
    ids = [operation_id for asked_for, one in batch for operation_id in _ids(asked_for, one)]
    return _Batch(Tables.concat(pieces), unread, asked_for_by, ids, len(batch))


class _Taken:
    """What became of the operations so far."""

    def __init__(self) -> None:
        self.operations = 0
        self.ids: set[str] = set()
        self.unread: list[Unread] = []
        self._asked_for: dict[str, str] = {}

    def of(self, batch: _Batch) -> Tables:
        """Count a batch in, and return its rows but for those of operations that have some already."""
        self.operations += batch.operations
        self.ids.update(batch.ids)
        self.unread += batch.unread
        doubled = [one for one in batch.asked_for if one in self._asked_for]
        for one in doubled:
            reason = f"It holds operation {one}, as {self._asked_for[one]} does"
            self.unread.append(Unread(batch.asked_for[one], reason))
        self._asked_for.update({one: by for one, by in batch.asked_for.items() if one not in self._asked_for})
        return _without(batch.rows, doubled) if doubled else batch.rows


def _without(rows: Tables, operation_ids: list[str]) -> Tables:
    theirs = pa.array(operation_ids, pa.string())
    return Tables(
        **{
            schema.name: table.filter(pc.invert(pc.is_in(table["recognition_id"], theirs)))
            for schema, table in rows.items()
        }
    )
