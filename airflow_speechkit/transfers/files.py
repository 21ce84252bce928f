"""The files of a manifest, read as Arrow batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Generator

    import pyarrow as pa

    from airflow_speechkit.results.manifest import Manifest
    from airflow_speechkit.results.schema import TableSchema


def batches(manifest: Manifest, table: TableSchema) -> Generator[pa.RecordBatch]:
    """Read a table's files as batches of the table's own types; those of a bucket are fetched a few dozen ahead.

    Close what you don't read to its end.

    :raises StorageError: one of them can't be read
    :raises SettingsError: they are in a bucket, and the extra for it isn't installed
    """
    from airflow_speechkit.hooks.storage import object_storage_path
    from airflow_speechkit.results.rows import rows_of
    from airflow_speechkit.storage import Folder

    target = Folder.at(object_storage_path(manifest.target))

    def fetch(name: str, copy: str) -> str:
        try:
            return target.fetch(name, copy)
        except FileNotFoundError:
            raise StorageError(
                f"The file {target.url_of(name)} is not there any more",
                hint="Run the transform again: it writes the same files from the archive",
                retry="ends in the same way",
                retry_can_help=False,
            ) from None

    return rows_of(manifest.tables[table.name].paths, fetch, manifest.file_format, table.arrow)
