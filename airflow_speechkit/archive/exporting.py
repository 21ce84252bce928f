"""Take an archive elsewhere: as an archive, or as plain files."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import OUTCOME_FILE, ROOT_FILE
from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from airflow_speechkit.archive.ledger import Failure
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Answer
    from airflow_speechkit.storage import Folder

_SIDE_BY_SIDE = 16


def copy_archive(archive: Archive, target: Folder) -> int:
    """Copy an archive to another place, where it is an archive again. What is there already is left as it is.

    :param target: a folder; another archive's is added to
    :return: how many files were copied
    """
    names = list(archive.folder.names())
    # What says that something is complete comes after all of it.
    last = [name for name in names if name.endswith(OUTCOME_FILE) or name == ROOT_FILE]

    def copy(name: str) -> bool:
        return target.create(name, archive.folder.read(name))

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        copied = sum(pool.map(copy, sorted(set(names) - set(last))))
        return copied + sum(pool.map(copy, last))


def copy_answers(archive: Archive, target: Folder) -> tuple[int, list[str]]:
    """Write each answer as a plain file that ``airflow-speechkit transform`` takes, named by its operation.

    :return: how many there are, and the operations whose answers are too large
    """
    too_large = []

    def write(operation_id: str) -> bool:
        try:
            answer = archive.answer(operation_id)
        except AnswerUnreadableError:
            too_large.append(operation_id)
            return False
        if answer is None:
            return False
        failure = archive.failure(operation_id) if answer.recognition is None else None
        target.replace(f"{operation_id}.json", _plain(answer, failure))
        return True

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return sum(pool.map(write, archive.operations())), sorted(too_large)


def _plain(answer: Answer, failure: Failure | None) -> bytes:
    """Return an answer as one file that needs no archive to be read."""
    stream = answer.recognition
    if stream is None and failure is not None and answer.api_version == ApiVersion.V3:
        # A result that broke off was not kept, only what it broke off with.
        stream = json.dumps({"error": {"code": failure.code, "message": failure.message}}).encode()
    elif stream is not None and not stream.strip():
        # An operation with nothing behind it would be one of which nobody saved the result.
        stream = b"{}"
    return answer.operation if stream is None else answer.operation + b"\n" + stream
