"""The pages of an Ogg file (RFC 3533)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: No page is longer: 27 bytes of header, 255 segment lengths, 255 segments of 255 bytes.
LONGEST_PAGE = 27 + 255 + 255 * 255

NO_PACKET_ENDS = -1
_CONTINUES = 0x01
_FIRST_OF_STREAM = 0x02
_LAST_OF_STREAM = 0x04


@dataclass(frozen=True)
class Page:
    """A page.

    :param granule: the stream's samples up to the last packet that ends on it, as the writer counted them
    :param sequence: its number in its stream
    :param segments: the lengths of the pieces of its packets
    """

    flags: int
    granule: int
    serial: int
    sequence: int
    segments: bytes
    body: bytes

    @property
    def length(self) -> int:
        """Return how many bytes the whole page takes."""
        return 27 + len(self.segments) + len(self.body)

    @property
    def first(self) -> bool:
        """Tell whether a stream begins with it."""
        return bool(self.flags & _FIRST_OF_STREAM)

    @property
    def last(self) -> bool:
        """Tell whether its stream ends with it."""
        return bool(self.flags & _LAST_OF_STREAM)

    @property
    def continues(self) -> bool:
        """Tell whether it begins within a packet."""
        return bool(self.flags & _CONTINUES)

    @property
    def beginnings(self) -> Iterator[tuple[bytes, bool]]:
        """Give the first two bytes of each packet, or of its rest, and whether it ends on this page."""
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
    """Return the page that begins at a place, None where it goes on behind the data's end."""
    header = data[place : place + 27]
    if len(header) < 27 or len(data) < place + 27 + header[26]:
        return None
    body = place + 27 + header[26]
    segments = data[place + 27 : body]
    end = body + sum(segments)
    if end > len(data):
        return None
    granule, serial, sequence = struct.unpack_from("<qII", header, 6)
    return Page(header[5], granule, serial, sequence, segments, data[body:end])
