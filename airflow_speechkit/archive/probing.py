"""Whether an archive can be relied on, seen before anything is submitted."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import PROBE_FILE, ROOT_FILE
from airflow_speechkit.archive.reading import parsed, read
from airflow_speechkit.archive.records import pack, unpack
from airflow_speechkit.errors import ArchiveError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_speechkit.storage import Folder

log = logging.getLogger(__name__)


def probe(folder: Folder, now: datetime) -> None:
    """See that an archive can be read and written, and that of two who claim the same thing one loses.

    :param folder: where it lies
    :param now: UTC
    :raises ArchiveError: it can't be relied on; nothing may be submitted
    """
    if read(folder, ROOT_FILE) is None and folder.create(ROOT_FILE, pack({"created_at": now.isoformat()})):
        log.warning(
            "A new archive begins at %s. If there should be one already, stop here: without it everything "
            "is paid for again",
            folder.url,
        )
    root = _root(folder)
    # The root's own bytes, so that nothing is lost where this does overwrite. The file among the claims, where rules
    # and disks may be others, stays: the role that may write objects (storage.uploader) may not delete any.
    if root is None or not all(_excludes(folder, name, root) for name in (ROOT_FILE, PROBE_FILE)):
        raise _overwritable(folder)


def try_out(folder: Folder, now: datetime) -> None:
    """See the same without beginning an archive. What is written is removed again, where that is allowed.

    :param folder: where it lies, or will lie
    :param now: UTC
    :raises ArchiveError: it can't be relied on
    """
    content = _root(folder) or pack({"created_at": now.isoformat()})
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


def _root(folder: Folder) -> bytes | None:
    root = read(folder, ROOT_FILE)
    if root is not None:
        parsed(folder, ROOT_FILE, lambda: unpack(root, folder.url_of(ROOT_FILE)))
    return root


def _overwritable(folder: Folder) -> ArchiveError:
    return ArchiveError(
        f"The store under {folder.url} lets a second writer overwrite the first: two runs would both pay",
        hint="Keep the archive on a local disk, or in a bucket whose store honours `If-None-Match: *` "
        "(Object Storage and S3 do)",
        retry="ends in the same way",
        retry_can_help=False,
    )


def _excludes(folder: Folder, name: str, content: bytes) -> bool:
    """Tell whether a second create finds what the first has written."""
    return not (folder.create(name, content) and folder.create(name, content))
