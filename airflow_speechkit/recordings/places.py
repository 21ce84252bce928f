"""What `audio` matches: where each recording is, before anything of it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from airflow_speechkit.models import Recording, RecordingAddress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object, as the storage describes it.

    :param address: where it is
    :param etag: its ETag, without the quotes, which changes when the object is replaced; None where there is none
    :param size_bytes: its size
    :param metadata: its metadata, which a listing doesn't have
    """

    address: RecordingAddress
    etag: str | None
    size_bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)


#: An address, with what a listing says about it, or a local file; or the recording itself, with an error.
Place = RecordingAddress | StoredObject | Path | Recording


class Pair(NamedTuple):
    """Two mono recordings of one call, which are submitted as one stereo recording.

    :param first: becomes channel 0
    :param second: becomes channel 1
    """

    first: Place
    second: Place


@dataclass(frozen=True)
class Findings:
    """What `audio` matches.

    :param places: of each recording, or pair of recordings
    :param by_pattern: whether there is a prefix or a glob
    :param roles: of the channels of each, whether they are the first (0) or second (1) side of a call
    """

    places: Sequence[Place | Pair]
    by_pattern: bool = False
    roles: Sequence[tuple[int, ...]] = ()

    @property
    def uris(self) -> list[tuple[str, ...]]:
        """The address of each, as `RecordingSource.uri_of` returns it; both addresses of a pair."""
        return [tuple(map(uri_of, sides_of(place))) for place in self.places]


def sides_of(place: Place | Pair) -> tuple[Place, ...]:
    """Return both recordings of a pair, otherwise the one."""
    return place if isinstance(place, Pair) else (place,)


def uri_of(place: Place) -> str:
    """Return an address as archives and tables have it."""
    if isinstance(place, Recording):
        return place.audio_uri
    where = address_of(place)
    return where.absolute().as_uri() if isinstance(where, Path) else where.uri


def root_and_key(where: RecordingAddress | Path) -> tuple[str, str]:
    """Return an object's bucket, as ``s3://bucket/``, and key; of a local file nothing and its path."""
    return (f"s3://{where.bucket}/", where.key) if isinstance(where, RecordingAddress) else ("", str(where.absolute()))


def address_of(place: RecordingAddress | StoredObject | Path) -> RecordingAddress | Path:
    """Return where an object or a local file is."""
    return place.address if isinstance(place, StoredObject) else place
