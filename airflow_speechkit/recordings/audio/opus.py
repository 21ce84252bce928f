"""The parts of an Ogg Opus file: pages (RFC 3533), the stream's header (RFC 7845), and packets (RFC 6716)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import WRITE_AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Opus always decodes to this.
OPUS_RATE_HERTZ = 48_000

#: No page is longer: 27 bytes of header, 255 segment lengths, 255 segments of 255 bytes.
LONGEST_PAGE = 27 + 255 + 255 * 255

NO_PACKET_ENDS = -1
_CONTINUES, _FIRST_OF_STREAM, _LAST_OF_STREAM = 0x01, 0x02, 0x04

_LONGEST_PACKET = 5760
_CODECS = {
    b"\x01vorbis": "Vorbis", b"Speex   ": "Speex", b"\x7fFLAC": "FLAC", b"fLaC": "FLAC", b"CELT    ": "CELT",
    b"PCM     ": "PCM", b"\x80theora": "Theora video", b"fishead\0": "an index (Skeleton)",
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """A page.

    :param continues: whether it begins within a packet
    :param first: whether a stream begins with it
    :param last: whether its stream ends with it
    :param granule: the stream's samples up to the last packet that ends on it, as the writer counted them
    :param sequence: its number in its stream
    :param segments: the lengths of the pieces of its packets
    """

    continues: bool
    first: bool
    last: bool
    granule: int
    serial: int
    sequence: int
    segments: bytes
    body: bytes

    @property
    def length(self) -> int:
        """How many bytes the whole page takes."""
        return 27 + len(self.segments) + len(self.body)

    @property
    def beginnings(self) -> Iterator[tuple[bytes, bool]]:
        """The first two bytes of each packet, or of its rest, and whether it ends on this page."""
        start = end = 0
        for length in self.segments:
            end += length
            if length < 255:
                yield self.body[start : min(start + 2, end)], True
                start = end
        if self.segments and self.segments[-1] == 255:
            yield self.body[start : start + 2], False


def find_page(data: bytes, place: int) -> int:
    """Return where the next page begins, from a place on; -1 where none does."""
    while (place := data.find(b"OggS", place)) >= 0:
        # Four bytes of sound may spell a page's beginning.
        if len(data) < place + 6 or (data[place + 4] == 0 and data[place + 5] <= 7):
            return place
        place += 4
    return place


def read_page(data: bytes, place: int) -> Page | None:
    """Return the page that begins at a place, None where it goes on after the data's end."""
    header = data[place : place + 27]
    if len(header) < 27 or len(data) < place + 27 + header[26]:
        return None
    body = place + 27 + header[26]
    segments = data[place + 27 : body]
    end = body + sum(segments)
    if end > len(data):
        return None
    flags, (granule, serial, sequence) = header[5], struct.unpack_from("<qII", header, 6)
    return Page(
        continues=bool(flags & _CONTINUES),
        first=bool(flags & _FIRST_OF_STREAM),
        last=bool(flags & _LAST_OF_STREAM),
        granule=granule,
        serial=serial,
        sequence=sequence,
        segments=segments,
        body=data[body:end],
    )


@dataclass(frozen=True)
class OpusHead:
    """What the header of an Opus stream says.

    :param pre_skip: samples at its beginning that a decoder drops
    """

    channels: int
    pre_skip: int


def read_head(body: bytes) -> OpusHead | None:
    """Read an Opus stream's header, None where it is another codec's.

    :raises RecordingError: it is damaged
    """
    if not body.startswith(b"OpusHead") or len(body) < 19:
        return None
    version, channels, pre_skip = struct.unpack_from("<BBH", body, 8)
    if version >> 4 or not channels or (body[18] == 0 and channels > 2):
        raise RecordingError(
            f"The Opus header is damaged (version {version}, {channels} channels, mapping {body[18]})", hint=WRITE_AGAIN
        )
    return OpusHead(channels, pre_skip)


def codec_name(body: bytes) -> str:
    """Return the name of the codec whose stream begins so."""
    return next((name for magic, name in _CODECS.items() if body.startswith(magic)), "no Opus stream")


@lru_cache(maxsize=4096)
def packet_samples(beginning: bytes) -> int:
    """Return how much sound a packet holds (RFC 6716, 3.1 and 3.2), in samples; 0 where no decoder would take it.

    :param beginning: its first two bytes
    """
    if not beginning:
        return 0
    mode, frames = beginning[0] >> 3, beginning[0] & 3
    if mode < 12:
        length = (480, 960, 1920, 2880)[mode & 3]
    elif mode < 16:
        length = (480, 960)[mode & 1]
    else:
        length = (120, 240, 480, 960)[mode & 3]
    if frames == 3:
        samples = length * (beginning[1] & 63) if len(beginning) > 1 else 0
        return samples if samples <= _LONGEST_PACKET else 0
    return length * (1 if frames == 0 else 2)
