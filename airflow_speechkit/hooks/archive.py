"""The archive that a task uses: which one it is, and reading it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow.providers.common.compat.sdk import conf

from airflow_speechkit.archive.layout import read_each
from airflow_speechkit.errors import ArchiveError, SettingsError
from airflow_speechkit.hooks.storage import check_no_credentials
from airflow_speechkit.redaction import clean_address
from airflow_speechkit.retry import FailureStreak, policy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Submission

_T = TypeVar("_T")

log = logging.getLogger(__name__)


class NamesArchive(Protocol):
    """A SpeechKit hook, or its connection."""

    @property
    def archive(self) -> str | None:
        """Path or URL of the archive."""

    @property
    def aws_conn_id(self) -> str:
        """The storage's connection."""


def archive_url(given: str | bool | None, hook: NamesArchive) -> str | None:
    """Return the archive that a task uses: the operator's, else the connection's, else ``[speechkit] archive``.

    :param given: the operator's `archive`; ``False`` for none
    :param hook: of the task's connection, which is read only where that is needed; or the connection
    :return: a URL with the id of the storage connection (never a secret), ``None`` for ``False``
    :raises SettingsError: there is none, or it isn't valid
    """
    if given is False:
        return None
    if given is not None and str(given).strip() in ("", "None"):
        # The connection's isn't used instead: in another archive everything is new, and is paid for again.
        raise SettingsError(
            f"`archive` is the text {given!r}: a template found nothing",
            hint="Correct the template, or remove `archive` to use the connection's or the configuration's",
        )
    url = given or hook.archive or conf.get("speechkit", "archive", fallback=None)
    if not url:
        raise SettingsError(
            "There is no archive to keep submissions and answers in",
            hint="Set `archive` in the connection's extra, in [speechkit] of Airflow's configuration, or on the "
            "operator, for example 's3://my-bucket/speechkit-archive'. With `archive=False` there is none: a retry or "
            "a second run pays again, and results that aren't loaded within three days are lost",
        )
    url = clean_address(str(url))
    check_no_credentials(url, "The archive's address")
    scheme, separator, rest = url.partition("://")
    is_local = not separator or scheme.lower() == "file"
    # `file://folder` is relative too: for Airflow the host is the first folder.
    if is_local and not (rest if separator else url).startswith("/"):
        raise SettingsError(
            f"The archive's path {url!r} is relative: each worker would begin its own archive in its working "
            "directory, and pay for everything again",
            hint="Write an absolute path, as /folder or file:///folder (on a disk that all workers share), or "
            "s3://bucket/folder",
        )
    if scheme.lower().startswith("s3") and "@" not in rest.partition("/")[0]:
        # Written into the URL, since a trigger gets the URL alone.
        return f"{scheme}://{hook.aws_conn_id}@{rest}"
    return url


def task_archive(given: str | bool | None, hook: NamesArchive) -> Archive | None:
    """Open the archive of `archive_url`; None for ``False``."""
    url = archive_url(given, hook)
    return None if url is None else open_archive(url)


def open_archive(url: str) -> Archive:
    """Open the archive at a URL of `archive_url`.

    :raises ArchiveError: it can't be reached
    :raises SettingsError: `[speechkit] archive_mode` isn't valid
    """
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.storage import object_storage_path

    return Archive.at(object_storage_path(url), conf.get("speechkit", "archive_mode", fallback=None))


def read_submissions(archive: Archive, operation_ids: Iterable[str]) -> Mapping[str, Submission | None]:
    """Read the submissions of operations, without the labels that were added later."""
    entries = read_each(archive.entry, operation_ids)
    return {one: None if entry is None else entry.submission for one, entry in entries.items()}


def when_reachable(do: Callable[[], _T]) -> _T:
    """Call a function that reads an archive, again while the archive can't be reached.

    :param do: may be called again after an `ArchiveError`
    :raises ArchiveError: a retry can't help, or the archive could not be reached for too long
    """
    streak = FailureStreak()
    while True:
        try:
            return do()
        except ArchiveError as error:
            policy = policy_for(error)
            if not error.retry_can_help or streak.add(policy, time.monotonic()):
                raise
            pause_s = policy.pause_s(streak.failures)
            log.warning("The archive is read again in %g s: %s", pause_s, error)
            time.sleep(pause_s)
