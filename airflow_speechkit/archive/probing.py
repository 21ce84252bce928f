"""Whether an archive can be relied on, checked before anything is submitted."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import PROBE_FILE, ROOT_FILE
from airflow_speechkit.archive.records import load, pack, read
from airflow_speechkit.errors import ArchiveError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_speechkit.storage import Folder

log = logging.getLogger(__name__)


def probe(folder: Folder, now: datetime) -> None:
    """Check that an archive can be read and written, and that the second of two exclusive writers fails.

    :param folder: where it lies
    :param now: UTC
    :raises ArchiveError: it cannot be relied on; nothing may be submitted
    """
    if read(folder, ROOT_FILE) is None and folder.create(ROOT_FILE, _root(now)):
        log.warning(
            "A new archive is created at %s. If there should be one already, stop here: without it everything is paid "
            "for again",
            folder.url,
        )
    root = _checked_root(folder)
    # The root's own bytes, so that nothing is lost if the store does overwrite. The file among the claims, where other
    # rules and disks may apply, stays: the role that may write objects (storage.uploader) may not delete any.
    if root is None or not all(_excludes(folder, name, root) for name in (ROOT_FILE, PROBE_FILE)):
        raise _overwritable(folder)


def try_out(folder: Folder, now: datetime) -> None:
    """Check the same without creating an archive. What is written is removed again, where that is allowed.

    :param folder: where the archive lies, or will lie
    :param now: UTC
    :raises ArchiveError: it cannot be relied on
    """
    content = _checked_root(folder) or _root(now)
    kept = folder.exists(PROBE_FILE)
    try:
        if not _excludes(folder, PROBE_FILE, content):
            raise _overwritable(folder)
    finally:
        if not kept:
            with suppress(ArchiveError):
                folder.delete(PROBE_FILE)
                for name in (PROBE_FILE.partition("/")[0], ""):
                    folder.prune(name)


def _root(now: datetime) -> bytes:
    return pack({"created_at": now})


def _checked_root(folder: Folder) -> bytes | None:
    return None if load(folder, ROOT_FILE, dict) is None else read(folder, ROOT_FILE)


def _overwritable(folder: Folder) -> ArchiveError:
    return ArchiveError(
        f"The store at {folder.url} lets a second writer overwrite the first: two runs would both pay",
        hint="Keep the archive on a local disk, or in a bucket whose store honours `If-None-Match: *` "
        "(Object Storage and S3 do)",
        retry="fails in the same way",
        retry_can_help=False,
    )


def _excludes(folder: Folder, name: str, content: bytes) -> bool:
    """Tell whether the second of two exclusive writes fails."""
    return not (folder.create(name, content) and folder.create(name, content))
