"""Which archive a task uses, and how it is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow.providers.common.compat.sdk import conf

from airflow_speechkit.errors import ArchiveError, SettingsError
from airflow_speechkit.hooks.storage import DEFAULT_AWS_CONN_ID, check_no_credentials
from airflow_speechkit.redaction import clean_address
from airflow_speechkit.retry import FailureStreak, policy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.models import Submission

_T = TypeVar("_T")

log = logging.getLogger(__name__)

#: How many small files of an archive are read side by side: a bucket answers each in its own good time.
READERS = 16


class NamesArchive(Protocol):
    """What a connection says about its archive: a hook, or the connection that it has read."""

    @property
    def archive(self) -> str | None:
        """Where it lies."""

    @property
    def aws_conn_id(self) -> str | None:
        """The connection of its bucket."""


def archive_url(given: str | bool | None, hook: NamesArchive) -> str | None:
    """Say which archive a task uses: the operator's, else the connection's, else ``[speechkit] archive``.

    :param given: the operator's `archive`; ``False`` does without one
    :param hook: of the task's connection
    :return: a URL that names the storage connection it needs (never a secret), ``None`` for ``False``
    :raises SettingsError: none of the three names one, or what they name can't be an archive
    """
    if given is False:
        return None
    if given is True:
        raise SettingsError("`archive` is True; it is a URL, or False")
    if given is not None and (not given.strip() or given.strip() == "None"):
        # Not the connection's in its place: in another archive everything is new, and is paid for again.
        raise SettingsError(
            f"`archive` is the text {given!r}: a template found nothing",
            hint="Look at the template; leave `archive` out (None) to use the connection's or the configuration's",
        )
    url = given or hook.archive or conf.get("speechkit", "archive", fallback=None)
    if not url:
        raise SettingsError(
            "There is no archive to keep submissions and answers in",
            hint="Name one as `archive` in the connection's extra, in [speechkit] of Airflow's configuration, or on "
            "the operator, say 's3://my-bucket/speechkit-archive'. `archive=False` does without: then a retry or a "
            "second run pays again, and results that are not loaded within three days are gone",
        )
    url = clean_address(str(url))
    _check_archive(url)
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower().startswith("s3") and "@" not in rest.partition("/")[0]:
        # Written into the URL, since a trigger gets the URL alone.
        return f"{scheme}://{hook.aws_conn_id or DEFAULT_AWS_CONN_ID}@{rest}"
    return url


def _check_archive(url: str) -> None:
    check_no_credentials(url, "The archive's address")
    scheme, separator, rest = url.partition("://")
    local = not separator or scheme.lower() == "file"
    # `file://folder` is relative too: Airflow takes the host's place for the first folder.
    if local and not (rest if separator else url).startswith("/"):
        raise SettingsError(
            f"The archive's path {url!r} is relative: each worker would begin an archive of its own, wherever it was "
            "started, and pay for everything again",
            hint="Write it in full, as /folder or file:///folder (on a disk that all workers share), or as "
            "s3://bucket/folder",
        )


def open_archive(url: str) -> Archive:
    """Open the archive at a URL that `archive_url` gave.

    :raises ArchiveError: it can't be reached
    :raises SettingsError: `[speechkit] archive_mode` is none
    """
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.storage import object_storage_path

    return Archive.at(object_storage_path(url), conf.get("speechkit", "archive_mode", fallback=None))


def correct_labels(archive: Archive, labels: Mapping[str, Mapping[str, Any]], storage_endpoint: str) -> int:
    """Correct labels, on behalf of the task that runs or of the user: see `SpeechKitHook.label`."""
    from airflow_speechkit.api.endpoints import Endpoints
    from airflow_speechkit.archive.labels import LabelChange, current_user, label
    from airflow_speechkit.models import is_operation_id
    from airflow_speechkit.recordings.address import uri_on_record

    given = []
    for about, wanted in labels.items():
        if not isinstance(about, str) or not isinstance(wanted, Mapping) or not all(map(_is_name, wanted)):
            raise SettingsError("`labels` holds something that isn't a mapping of names to texts")
        texts = {name: None if text is None else str(text) for name, text in wanted.items()}
        uri = about if is_operation_id(about) else uri_on_record(about, (Endpoints().storage, storage_endpoint))
        given.append(LabelChange(about=uri, labels=texts))
    return label(archive, given, by=_task_instance() or current_user(), now=datetime.now(UTC))[0]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _task_instance() -> str | None:
    # On Airflow 2.11 it comes with all that PythonOperator needs: not when a DAG file is parsed.
    from airflow.providers.common.compat.sdk import get_current_context

    from airflow_speechkit.archive.batch import Origin

    try:
        ti = get_current_context()["ti"]
    except Exception:  # noqa: BLE001 - Airflow 2.11 and 3 raise different ones outside of a task
        return None
    return Origin(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index).scope


def read_each(read: Callable[[str], _T], operation_ids: Iterable[str]) -> Mapping[str, _T]:
    """Read something small about each operation, side by side.

    :param read: such as ``archive.outcome``
    """
    ids = list(operation_ids)
    if len(ids) == 1:
        return {ids[0]: read(ids[0])}
    with ThreadPoolExecutor(READERS, thread_name_prefix="speechkit-archive") as pool:
        return dict(zip(ids, pool.map(read, ids), strict=True))


def read_submissions(archive: Archive, operation_ids: Iterable[str]) -> Mapping[str, Submission | None]:
    """Read what was submitted, side by side, as it was sent: whoever waits has no use for labels that came later."""
    entries = read_each(archive.entry, operation_ids)
    return {one: None if entry is None else entry.submission for one, entry in entries.items()}


def when_reachable(do: Callable[[], _T]) -> _T:
    """Do something with an archive that was there before; do it again while the archive is out of reach.

    :param do: may be called again after a `ArchiveError`
    :raises ArchiveError: it isn't out of reach, or has been for too long
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
