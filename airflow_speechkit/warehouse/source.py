"""What a transform wrote, as a load reads it: a manifest and the files that it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Generator

    import pyarrow as pa

    from airflow_speechkit.results.manifest import Manifest
    from airflow_speechkit.results.schema import TableSchema
    from airflow_speechkit.storage import Folder


@dataclass(frozen=True)
class Source:
    """The output of one transform.

    :param manifest: which files hold which table
    :param folder: the folder that the files are in
    """

    manifest: Manifest
    folder: Folder

    @classmethod
    def read(cls, folder: Folder, place: str) -> Source:
        """Read a manifest.

        :param folder: the folder that the transform wrote to
        :param place: the manifest's path in it
        :raises StorageError: the manifest is missing, damaged, or can't be read
        """
        from airflow_speechkit.results.manifest import Manifest

        url = folder.url_of(place)
        try:
            raw = folder.read(place)
        except FileNotFoundError:
            raise _missing(f"The manifest {url} does not exist") from None
        damaged = StorageError(
            f"{url} is not a manifest, or is damaged", hint="Run the transform again", retry_can_help=False
        )
        try:
            manifest = Manifest.from_json(json.loads(raw), url)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise damaged from None
        if "recognitions" not in manifest.tables:
            # Only `recognitions` lists every operation, also those that failed or have no utterances.
            raise damaged
        return cls(manifest, folder)

    def batches(self, table: TableSchema) -> Generator[pa.RecordBatch]:
        """Read a table's files as batches of the table's own types; files in a bucket are fetched in advance.

        Close the generator if you don't exhaust it.

        :raises StorageError: a file can't be read
        """
        from airflow_speechkit.results.files import rows_of

        def fetch(name: str, copy: str) -> str:
            try:
                return self.folder.fetch(name, copy)
            except FileNotFoundError:
                raise _missing(f"The file {self.folder.url_of(name)} does not exist") from None

        return rows_of(self.manifest.tables[table.name].paths, fetch, self.manifest.file_format, table.arrow)


def _missing(what: str) -> StorageError:
    return StorageError(
        what,
        hint="Run the transform again: it writes the same files from the archive",
        retry="fails in the same way",
        retry_can_help=False,
    )
