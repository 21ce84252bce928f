"""Many answers to the tables' files, fetched side by side, in memory that a setting bounds."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from more_itertools import constrained_batches

from airflow_speechkit.errors import (
    AnswerUnreadableError,
    AuthenticationError,
    InvalidRequestError,
    PermissionDeniedError,
    SettingsError,
    SpeechKitError,
)
from airflow_speechkit.results.files import FileFormat, ahead
from airflow_speechkit.results.flatten import BATCH_BYTES, id_of, read_many, size_bytes
from airflow_speechkit.results.manifest import Manifest, Unread, name_after
from airflow_speechkit.results.saved import read_saved
from airflow_speechkit.results.schema import Tables
from airflow_speechkit.results.write import Writing
from airflow_speechkit.storage.compressed import Packed, check_size, inflated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_speechkit.models import Answer, Submission
    from airflow_speechkit.results.speech import Submitted
    from airflow_speechkit.storage import Folder

    #: An operation's answer with its submission and those of others that share it, its rows if it has no answer, or why
    #: it is left out.
    Loaded = tuple[Answer, *tuple[Submission | None, ...]] | Tables | Unread

#: How many bytes one task uses for answers and rows, besides the interpreter and its libraries.
MEMORY_BYTES = 256 << 20

#: Answers that are fetched at the same time.
SIDE_BY_SIDE = 8

#: An answer takes up to so many times its size while it is read: itself, its columns, its rows in order.
_READING = 4

#: The largest answer that the service can give is read in however little memory: see `LARGEST_ANSWER_BYTES`.
_READ_ALWAYS_BYTES = 16 << 20


def write_many(
    load: Callable[[str], Loaded],
    operation_ids: Iterable[str],
    target: Folder,
    *,
    file_format: FileFormat | str = FileFormat.PARQUET,
    memory_bytes: int = MEMORY_BYTES,
    side_by_side: int = SIDE_BY_SIDE,
    leave_out_unread: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Read answers and write their rows: a file for each operation and table, and a manifest of these files.

    An operation that is written again replaces its files; other files of it below the target are removed. An operation
    that is given twice, such as in two saved files, is written once: the second one counts as unread.

    :param load: fetches an operation's answer; it is called in several threads. An answer that can't be read or that
        the service or the archive no longer has, and a file that is missing, count as unread. Any other error ends the
        call, since a retry, a key or a permission can still bring the answer
    :param operation_ids: the operations, or the files of their answers
    :param target: where the files go: ``TABLE/day=2026-11-22/OPERATION.parquet``, by the UTC date of ``created_at``,
        else of ``finished_at``, else ``day=1970-01-01``
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param memory_bytes: how many bytes answers and rows may take, whatever their number. Where answers larger than all
        before follow each other, up to `side_by_side` of them come on top. One larger than `largest_answer` is unread
    :param side_by_side: how many answers are fetched at the same time
    :param leave_out_unread: write the others if some are unread; otherwise nothing is written then
    :param progress: called now and then with the number of operations that are done
    :return: the manifest; its `unread` has the operations that were left out
    :raises SettingsError: a number or the format is invalid
    :raises AnswerUnreadableError: nothing could be read, or something couldn't without `leave_out_unread`; the target
        is unchanged
    :raises StorageError: a file can't be read, or the target can't be written
    """
    if memory_bytes < 1 or side_by_side < 1:
        raise SettingsError("`memory_bytes` and `side_by_side` count from 1")
    most_bytes = largest_answer(memory_bytes)
    largest = 0

    def most() -> int:
        """Return how many to fetch ahead: as many as fit if they are like the largest so far, one to begin with."""
        return max(min(side_by_side, memory_bytes // 4 // largest), 1) if largest else 1

    def fetched(pool: ThreadPoolExecutor) -> Iterator[tuple[str, Loaded]]:
        nonlocal largest
        for origin, loaded in ahead(pool, lambda one: (one, _load(load, one, most_bytes)), operation_ids, most):
            largest = max(largest, _size(loaded))
            yield origin, loaded
            # Don't hold it here too while waiting for the next one.
            del loaded

    reader = _Reader()
    batch_bytes = max(min(memory_bytes // (4 * _READING), BATCH_BYTES), 1)
    with (
        ThreadPoolExecutor(side_by_side, thread_name_prefix="answers") as pool,
        tempfile.TemporaryDirectory(prefix="airflow-speechkit-") as folder,
    ):
        writing = Writing(target, file_format, Path(folder))
        try:
            for batch in constrained_batches(fetched(pool), batch_bytes, get_len=lambda it: _size(it[1]), strict=False):
                writing.add(reader.rows(batch))
                if progress:
                    progress(reader.operations)
            if reader.unread and not (leave_out_unread and writing.operations):
                raise _refusal(reader, others=bool(writing.operations))
            return writing.finish(name_after(reader.ids), reader.unread)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def largest_answer(memory_bytes: int) -> int:
    """Return how many bytes an answer may have, inflated, to be read in so much memory."""
    return max(memory_bytes // _READING, _READ_ALWAYS_BYTES)


def answer_in(path: str, raw: bytes, memory_bytes: int = MEMORY_BYTES) -> Loaded:
    """Read a saved answer for `write_many`.

    :param path: its file; its name is the operation id if the answer has none
    :param raw: what is in the file: a retry reads the same
    :param memory_bytes: what `write_many` may take
    """
    try:
        return read_saved(raw, _stem(path), largest_answer(memory_bytes // 2)), None
    except AnswerUnreadableError as error:
        return Unread(path, error.what)


def inflated_answer(answer: Answer, most_bytes: int) -> Answer:
    """Inflate what was too large to be read when it came.

    :param answer: as the archive has it
    :param most_bytes: how large it may be
    :raises AnswerUnreadableError: it still is, or is damaged
    """
    try:
        operation, recognition = (
            inflated(part, most_bytes) if isinstance(part, Packed) else part
            for part in (answer.operation, answer.recognition)
        )
    except ValueError:
        raise AnswerUnreadableError("It is damaged", retry_can_help=False) from None
    answer = replace(answer, operation=operation or b"", recognition=recognition)
    check_size(size_bytes(answer), most_bytes)
    return answer


def _stem(path: str) -> str:
    return PurePath(path).name.partition(".")[0]


def _refusal(reader: _Reader, *, others: bool) -> AnswerUnreadableError:
    named = "; ".join(f"{one.operation_id}: {one.reason}" for one in reader.unread[: Manifest.NAMED])
    return AnswerUnreadableError(
        f"{len(reader.unread)} of {reader.operations} answers can't be read, so nothing is written, and earlier files "
        f"are kept: {named}",
        hint="Inspect these answers" + (", or leave them out with `on_unread='report'`" if others else ""),
        retry="reads all of them again",
        retry_can_help=any(one.retry_can_help for one in reader.unread),
    )


def _load(load: Callable[[str], Loaded], operation_id: str, most_bytes: int) -> Loaded:
    try:
        loaded = load(operation_id)
        return (inflated_answer(loaded[0], most_bytes), *loaded[1:]) if isinstance(loaded, tuple) else loaded
    except FileNotFoundError:
        return Unread(operation_id, "There is no such file")
    except SpeechKitError as error:
        # The answer can still be had later: its rows must not be left out.
        needs_person = isinstance(error, (AuthenticationError, PermissionDeniedError, InvalidRequestError))
        if error.retry_can_help or needs_person or isinstance(error.__cause__, PermissionError):
            raise
        return Unread(operation_id, error.what)


def _size(loaded: Loaded) -> int:
    if isinstance(loaded, Unread):
        return 0
    return loaded.nbytes if isinstance(loaded, Tables) else size_bytes(loaded[0]) * len(loaded[1:])


class _Reader:
    """Reads batches, and counts what became of the answers."""

    def __init__(self) -> None:
        self.operations = 0
        self.ids: set[str] = set()
        self.unread: list[Unread] = []
        self._origins: dict[str, str] = {}

    def rows(self, batch: Sequence[tuple[str, Loaded]]) -> Tables:
        """Return the rows of a batch, without those of operations that were given before."""
        self.operations += len(batch)
        pieces: list[Tables] = []
        answers: list[tuple[str, Submitted]] = []
        for origin, one in batch:
            if isinstance(one, Unread):
                self.unread.append(one)
                self.ids.add(_stem(origin))
                continue
            if isinstance(one, Tables):
                ids = one.recognitions["recognition_id"].to_pylist()
            else:
                ids = [id_of(one[0], submission) for submission in one[1:]]
            # Others that share an operation don't change the manifest's name.
            self.ids.update(ids[:1])
            if twice := [known for known in ids if known in self._origins]:
                reason = f"It holds operation {twice[0]}, as {self._origins[twice[0]]} does"
                self.unread.append(Unread(origin, reason))
                continue
            self._origins.update(dict.fromkeys(ids, origin))
            if isinstance(one, Tables):
                pieces.append(one)
            else:
                answers += ((origin, (one[0], submission)) for submission in one[1:])
        read = read_many([one for _, one in answers])
        for number, error in read.unreadable.items():
            origin, (_, submission) = answers[number]
            if submission is None or submission.recognition_id is None:
                self.unread.append(Unread(origin, error.what))
        return Tables.concat([*pieces, read.tables])
