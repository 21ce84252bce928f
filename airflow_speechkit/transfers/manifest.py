"""What transforms handed on through XCom: which files hold which table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from airflow_speechkit.results.write import Manifest


def read_manifests(tables: Any) -> list[Manifest]:
    """Read one manifest, a list of them, or the lazy sequence that a mapped transform hands on.

    :raises SettingsError: something among them isn't a manifest
    """
    if isinstance(tables, (Mapping, str, bytes)) or not isinstance(tables, Iterable):
        return [_read(tables)]
    return [_read(one) for one in tables]


def _read(data: Any) -> Manifest:
    from airflow_speechkit.results.write import Manifest

    try:
        manifest = Manifest.from_json(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"`tables` takes what SpeechKitTransformOperator returned, which this {type(data).__name__} is not",
            todo="Give `tables=rows.output`, or a list of such manifests",
        ) from error
    if "recognitions" not in manifest.tables:
        # It alone lists every operation, those that failed or were silent too.
        raise SettingsError(
            f"The manifest {manifest.name!r} has no table `recognitions`, which says whose rows are to be replaced",
            todo="Let the transform write all its tables",
        )
    return manifest
