"""What transforms handed on through XCom: a manifest each, which says what files hold which table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import SettingsError, StorageError

if TYPE_CHECKING:
    from airflow_speechkit.results.manifest import Manifest


def read_manifests(tables: Any) -> list[Manifest]:
    """Read one manifest, a list of them, or the lazy sequence that a mapped transform hands on.

    :param tables: what `SpeechKitTransformOperator` returned, or the manifest's path, or several of these
    :raises SettingsError: something among them leads to no manifest
    :raises StorageError: a manifest can't be read
    """
    if isinstance(tables, (Mapping, str, bytes)) or not isinstance(tables, Iterable):
        return [_read(tables)]
    return [_read(one) for one in tables]


def _read(given: Any) -> Manifest:
    from airflow_speechkit.results.manifest import MANIFESTS, Manifest

    if isinstance(given, Mapping) and "tables" in given:
        raise SettingsError(
            "`tables` has what a transform of an older version returned, whose files may be there no more",
            hint="Run the transform again: clear its task. It reads the archive, at no cost",
        )
    url = given.get("manifest") if isinstance(given, Mapping) else given
    if not isinstance(url, str) or f"/{MANIFESTS}/" not in url or not url.endswith(".json"):
        raise SettingsError(
            f"`tables` takes what SpeechKitTransformOperator returned, which this {type(given).__name__} is not",
            hint=f"Give `tables=rows.output`, the path of a manifest (…/{MANIFESTS}/….json), or a list of these",
        )
    raw = _raw(url)
    damaged = StorageError(f"{url} is no manifest, or is damaged", hint="Run the transform again", retry_can_help=False)
    try:
        manifest = Manifest.from_json(json.loads(raw), url)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise damaged from None
    if "recognitions" not in manifest.tables:
        # It alone lists every operation, those that failed or were silent too.
        raise damaged
    return manifest


def _raw(url: str) -> bytes:
    from airflow_speechkit.hooks.storage import object_storage_path
    from airflow_speechkit.storage import Folder

    folder, _, name = url.rpartition("/")
    try:
        return Folder.at(object_storage_path(folder)).read(name)
    except FileNotFoundError:
        raise StorageError(
            f"The manifest {url} is not there any more",
            hint="Run the transform again: it writes the same files from the archive",
            retry="ends in the same way",
            retry_can_help=False,
        ) from None
