"""What `audio` matches: where each recording is, before anything of it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_speechkit.models import Recording, RecordingAddress
from airflow_speechkit.recordings.bucket import StoredObject

if TYPE_CHECKING:
    from collections.abc import Sequence

#: An address, with what a listing says about it, or a local file; or the recording itself, with an error.
Place = RecordingAddress | StoredObject | Path | Recording


@dataclass(frozen=True)
class Findings:
    """What `audio` matches.

    :param places: of each recording
    :param by_pattern: whether there is a prefix or a glob
    """

    places: Sequence[Place]
    by_pattern: bool = False

    @property
    def uris(self) -> list[str]:
        """The address of each, as `RecordingSource.uri_of` returns it."""
        return [uri_of(place) for place in self.places]


def uri_of(place: Place) -> str:
    """Return an address as archives and tables have it."""
    if isinstance(place, Recording):
        return place.audio_uri
    where = address_of(place)
    return where.absolute().as_uri() if isinstance(where, Path) else where.uri


def address_of(place: RecordingAddress | StoredObject | Path) -> RecordingAddress | Path:
    """Return where an object or a local file is."""
    return place.address if isinstance(place, StoredObject) else place
