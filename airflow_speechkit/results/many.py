"""Thousands of answers to one set of files, side by side, in memory that a setting bounds."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from airflow_speechkit.errors import AnswerUnreadableError, SettingsError, SpeechKitError, StorageError
from airflow_speechkit.results.flatten import BATCH_BYTES, read_many, tables
from airflow_speechkit.results.formats import FileFormat
from airflow_speechkit.results.schema import Tables
from airflow_speechkit.results.write import ROW_GROUP_ROWS, Manifest, Unread, Writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_speechkit.folder import Folder
    from airflow_speechkit.results.answer import Answer
    from airflow_speechkit.submission import Submission

    Loaded = tuple[Answer, Submission | None] | Tables

#: What one task takes for its answers and rows, besides the interpreter and its libraries.
MEMORY_BYTES = 256 << 20

#: Answers that are fetched at the same time.
SIDE_BY_SIDE = 8

#: An answer that is being read takes up to so many times its size: itself, its columns, its rows in order.
_READING = 4


def write_many(
    load: Callable[[str], Loaded],
    operation_ids: Iterable[str],
    target: Folder,
    *,
    name: str,
    file_format: FileFormat | str = FileFormat.PARQUET,
    partition_by_date: bool = False,
    row_group_rows: int = ROW_GROUP_ROWS,
    memory_bytes: int = MEMORY_BYTES,
    side_by_side: int = SIDE_BY_SIDE,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Read many answers and write their rows, in the order of the ids.

    :param load: fetches an operation's answer with its submission, or its rows where it has no answer; it is called
        in several threads at once. What it raises as a `SpeechKitError` or `LookupError` or `OSError` is reported.
    :param operation_ids: the operations
    :param target: where the files go, see `write_tables`
    :param name: what the files are named after
    :param file_format: ``parquet``, ``csv`` or ``jsonl``
    :param partition_by_date: a folder for each UTC date of ``created_at``
    :param row_group_rows: rows in a row group of Parquet
    :param memory_bytes: what answers and rows may take, whatever their number; a single answer that needs more than
        that is read alone
    :param side_by_side: how many answers are fetched at the same time
    :param progress: is told how many operations are done, now and then
    :return: what was written; its `unread` has the operations that could not be read, which stopped nothing
    :raises SettingsError: a number or the format can't be taken
    :raises StorageError: the target can't be written
    """
    if memory_bytes < 1 or side_by_side < 1:
        raise SettingsError("`memory_bytes` and `side_by_side` count from 1")
    unread: list[Unread] = []
    done = 0
    with (
        ThreadPoolExecutor(side_by_side, thread_name_prefix="answers") as pool,
        Writing(
            target,
            name=name,
            file_format=file_format,
            partition_by_date=partition_by_date,
            row_group_rows=row_group_rows,
            buffer_bytes=max(memory_bytes // 4, 1),
        ) as writing,
    ):
        batch_bytes = min(memory_bytes // (4 * _READING), BATCH_BYTES)
        loading = _side_by_side(pool, load, operation_ids, memory_bytes // 4, side_by_side)
        reading: deque[Future[tuple[Tables, list[Unread], int]]] = deque()
        try:
            for batch in _batches(loading, batch_bytes):
                reading.append(pool.submit(_read_batch, batch))
                # One is read while the one before it is written.
                if len(reading) > 1:
                    done += _write(writing, reading.popleft().result(), unread)
                    if progress:
                        progress(done)
            while reading:
                done += _write(writing, reading.popleft().result(), unread)
            manifest = writing.finish()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if progress:
        progress(done)
    return Manifest(
        manifest.file_format,
        manifest.name,
        manifest.tables,
        manifest.operations,
        manifest.identical_channels,
        tuple(unread),
    )


def _side_by_side(
    pool: ThreadPoolExecutor,
    load: Callable[[str], Loaded],
    operation_ids: Iterable[str],
    allowed_bytes: int,
    side_by_side: int,
) -> Iterator[tuple[str, Loaded | Unread]]:
    """Fetch answers ahead, as many at a time as will fit if they are like the largest so far; give them in order."""
    waiting: deque[tuple[str, Future[Loaded | Unread]]] = deque()
    largest, ahead = 1, 1
    for operation_id in operation_ids:
        waiting.append((operation_id, pool.submit(_load, load, operation_id)))
        while len(waiting) >= ahead:
            known, future = waiting.popleft()
            loaded = future.result()
            largest = max(largest, _size(loaded))
            # Begin with a few: how large they are isn't known yet.
            ahead = max(min(side_by_side, ahead * 2, allowed_bytes // largest), 1)
            yield known, loaded
    while waiting:
        known, future = waiting.popleft()
        yield known, future.result()


def _load(load: Callable[[str], Loaded], operation_id: str) -> Loaded | Unread:
    try:
        return load(operation_id)
    except (SpeechKitError, LookupError, OSError) as error:
        if isinstance(error, StorageError) and error.retry_can_help:
            # A storage that is away for a moment must not leave rows out.
            raise
        what = error.what if isinstance(error, SpeechKitError) else f"It can't be fetched ({type(error).__name__})"
        return Unread(operation_id, what)


def _size(loaded: Loaded | Unread) -> int:
    if isinstance(loaded, Unread):
        return 0
    if isinstance(loaded, Tables):
        return loaded.nbytes
    return len(loaded[0].operation) + len(loaded[0].recognition or b"")


def _batches(
    loaded: Iterable[tuple[str, Loaded | Unread]], batch_bytes: int
) -> Iterator[list[tuple[str, Loaded | Unread]]]:
    batch: list[tuple[str, Loaded | Unread]] = []
    size = 0
    for operation_id, one in loaded:
        if batch and size + _size(one) > batch_bytes:
            yield batch
            batch, size = [], 0
        batch.append((operation_id, one))
        size += _size(one)
    if batch:
        yield batch


def _read_batch(batch: list[tuple[str, Loaded | Unread]]) -> tuple[Tables, list[Unread], int]:
    pieces: list[Tables] = []
    unread: list[Unread] = []
    answers = [one for _, one in batch if isinstance(one, tuple)]
    readings = []
    for (answer, _), reading in zip(answers, read_many(answers), strict=True):
        if isinstance(reading, AnswerUnreadableError):
            unread.append(Unread(answer.operation_id, reading.what))
        else:
            readings.append(reading)
    if readings:
        pieces.append(tables(readings))
    for _, one in batch:
        if isinstance(one, Unread):
            unread.append(one)
        elif isinstance(one, Tables):
            pieces.append(one)
    return Tables.concat(pieces), unread, len(batch)


def _write(writing: Writing, batch: tuple[Tables, list[Unread], int], unread: list[Unread]) -> int:
    rows, unreadable, operations = batch
    writing.add(rows)
    unread += unreadable
    return operations
