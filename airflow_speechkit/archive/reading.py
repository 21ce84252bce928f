"""Read the archive's files: what isn't there is None, what is damaged is an error, and never the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_speechkit.archive.records import unpack
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.parsing import SURPRISES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from airflow_speechkit.storage import Folder

    _T = TypeVar("_T")


def read(folder: Folder, name: str) -> bytes | None:
    """Return a file's bytes, or None if there is no such file.

    :raises StorageError: it can't be told, or can't be read
    """
    try:
        return folder.read(name)
    except FileNotFoundError:
        return None


def load(folder: Folder, name: str, build: Callable[[dict[str, Any]], _T]) -> _T | None:
    """Return what a record says, or None if there is no such file.

    :param build: makes it of the record's JSON
    :raises ArchiveError: it is damaged
    """
    raw = read(folder, name)
    if raw is None:
        return None
    return parsed(folder, name, lambda: build(unpack(raw, folder.url_of(name))))


def parsed(folder: Folder, name: str, build: Callable[[], _T]) -> _T:
    """Return what `build` makes of a file's contents.

    :raises ArchiveError: they are damaged
    """
    try:
        return build()
    except SURPRISES as error:
        kind = type(error).__name__
    # Not from within `except`: what is damaged can stand in the error.
    raise damage(
        f"{folder.url_of(name)} is damaged: {kind}",
        "Inspect the file, and restore it from a backup if there is one",
    )


def damage(what: str, hint: str, *, operation_id: str | None = None, recording: str | None = None) -> ArchiveError:
    """Make the error for a file that is broken.

    :param what: what is wrong with it
    :param hint: what a person can do about it
    :param operation_id: whose file it is
    :param recording: which recording it is about
    """
    # An archive that can't be reached may be there again in a minute; a file that is broken stays so.
    return ArchiveError(
        what,
        hint=hint,
        operation_id=operation_id,
        recording=recording,
        retry="ends in the same way until then",
        retry_can_help=False,
    )
