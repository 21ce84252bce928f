"""What transforms pass on through XCom: for each a manifest, which names the files of every table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from airflow_speechkit.warehouse.source import Source


def read_manifests(tables: Any) -> list[Source]:
    """Read one manifest, a list of them, or the lazy sequence that a mapped transform returns.

    :param tables: what `SpeechKitTransformOperator` returned, or the manifest's path, or several of these
    :raises SettingsError: a value does not lead to a manifest
    :raises StorageError: a manifest can't be read
    """
    if isinstance(tables, (Mapping, str, bytes)) or not isinstance(tables, Iterable):
        return [_read(tables)]
    return [_read(one) for one in tables]


def _read(given: Any) -> Source:
    from airflow_speechkit.hooks.storage import object_storage_path
    from airflow_speechkit.results.manifest import MANIFESTS
    from airflow_speechkit.storage import Folder
    from airflow_speechkit.warehouse.source import Source

    if isinstance(given, Mapping) and "tables" in given:
        raise SettingsError(
            "`tables` is what a transform of an older version returned, whose files may not exist any more",
            hint="Run the transform again: clear its task. It reads the archive, at no cost",
        )
    url = given.get("manifest") if isinstance(given, Mapping) else given
    if not isinstance(url, str) or f"/{MANIFESTS}/" not in url or not url.endswith(".json"):
        raise SettingsError(
            f"`tables` takes what SpeechKitTransformOperator returned, not this {type(given).__name__}",
            hint=f"Give `tables=rows.output`, the path of a manifest (…/{MANIFESTS}/….json), or a list of these",
        )
    target, _, name = url.rpartition(f"/{MANIFESTS}/")
    return Source.read(Folder.at(object_storage_path(target)), f"{MANIFESTS}/{name}")
