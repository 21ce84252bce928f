"""The files of a manifest, read as Arrow batches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import pyarrow as pa


def batches(
    urls: Iterable[str], file_format: str, schema: pa.Schema, columns: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """Read files as batches of the table's own types; those of a bucket are fetched a few dozen ahead.

    :param urls: any paths that Airflow's ``ObjectStoragePath`` reaches
    :param file_format: what they are
    :param schema: the table's schema
    :param columns: only these
    :raises StorageError: one of them can't be read
    :raises SettingsError: they are in a bucket, and the extra for it isn't installed
    """
    from airflow_speechkit.results.rows import rows_of

    return rows_of(urls, _fetch, file_format, schema, columns)


def _fetch(url: str, copy: str) -> str:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_speechkit.hooks.storage import check_s3fs

    check_s3fs(url)
    path: Any = ObjectStoragePath(url)
    if path.protocol in ("", "file"):
        if not os.path.isfile(path.path):
            raise _missing(url)
        return str(path.path)
    try:
        path.fs.get_file(path.path, copy)
    except FileNotFoundError:
        missing = True
    except Exception as error:
        raise StorageError(
            f"The file {url} can't be fetched: {type(error).__name__}",
            todo="Check the connection in its path, and that it may read the bucket",
            retry="fetches it again",
        ) from error
    else:
        missing = False
    if missing:
        raise _missing(url)
    return copy


def _missing(url: str) -> StorageError:
    return StorageError(
        f"The file {url} is not there any more",
        todo="Run the transform again: it writes the same files from the archive",
        retry="ends in the same way",
        retry_can_help=False,
    )
