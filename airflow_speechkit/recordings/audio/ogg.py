"""Ogg Opus (RFC 3533, 7845, 6716): packets are counted, or head and tail are enough if nothing depends on more."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, TruncatedError, UnsupportedFormatError
from airflow_speechkit.recordings.audio.facts import (
    CONVERT,
    SMALL_BYTES,
    TAKE_WHAT_IS_THERE,
    UPLOAD_AGAIN,
    WRITE_AGAIN,
    AudioFacts,
    Scan,
    samples_to_ms,
)
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import Read

#: Opus always decodes to this.
_RATE_HERTZ = 48_000
#: No page is longer: 27 bytes of header, 255 segment lengths, 255 segments of 255 bytes.
_LONGEST_PAGE = 27 + 255 + 255 * 255
_LONGEST_PACKET = 5760
_CONTINUES, _FIRST_OF_STREAM, _LAST_OF_STREAM = 0x01, 0x02, 0x04
_CODECS = {b"\x01vorbis": "Vorbis", b"Speex   ": "Speex", b"\x7fFLAC": "FLAC", b"fLaC": "FLAC"}

#: So much after the last page, of a stream that doesn't end there, is no tag any more.
_MOST_BEHIND = 8 * _LONGEST_PAGE
#: How far the bytes a second of the whole may differ from those of what is read.
_USUAL_RATIO = 1.2


@dataclass(frozen=True)
class _Page:
    """A page.

    :param granule: the stream's samples up to the last packet that ends on it, as the writer counted them
    :param segments: the lengths of the pieces of its packets
    """

    flags: int
    granule: int
    serial: int
    segments: bytes
    body: bytes

    @property
    def length(self) -> int:
        return 27 + len(self.segments) + len(self.body)


@dataclass
class _Stream:
    """One of the Opus streams that a file is made of, one after the other, as far as it was read.

    :param pre_skip: samples at its beginning that a decoder drops
    :param tags_left: whether the stream's second packet, which is no sound, is still to come
    :param unfinished: the first two bytes of a packet that ends on a later page
    :param samples: in all packets
    :param on_last_page: those of them that end on the last page
    :param first_granule: the writer's count at the beginning, which isn't zero where it joined a running stream
    :param last_granule: the writer's count at the end
    """

    serial: int
    channels: int
    pre_skip: int
    tags_left: bool = True
    unfinished: bytes = b""
    samples: int = 0
    on_last_page: int = 0
    first_granule: int | None = None
    last_granule: int = 0
    ended: bool = False

    def add(self, page: _Page) -> None:
        """Add the packets that end on a page."""
        here = start = end = 0
        # The rest of a packet whose beginning isn't there is no packet.
        skip = bool(page.flags & _CONTINUES) and not self.unfinished
        for segment in page.segments:
            end += segment
            if segment == 255:
                continue
            if skip:
                skip = False
            elif self.tags_left:
                self.tags_left = False
            else:
                here += packet_samples(self.unfinished or page.body[start : min(start + 2, end)])
            self.unfinished, start = b"", end
        if start < end:
            self.unfinished = self.unfinished or page.body[start : start + 2]
        self.ended = bool(page.flags & _LAST_OF_STREAM)
        if not here:
            return
        self.samples += here
        self.on_last_page = here
        self.last_granule = page.granule
        if self.first_granule is None:
            self.first_granule = 0 if self.ended else max(0, page.granule - here)

    @property
    def declared(self) -> int:
        """Its length in samples by the writer's counts."""
        return self.last_granule - (self.first_granule or 0)

    @property
    def agrees(self) -> bool:
        """Whether the counts and the packets agree; the count of a stream's last page may cut its end off."""
        least = self.samples - self.on_last_page + 1 if self.ended else self.samples
        return least <= self.declared <= self.samples

    @property
    def length(self) -> int:
        """Its length in samples, as decoders play it."""
        return max(0, (self.declared if self.agrees else self.samples) - self.pre_skip)


def read_ogg(read: Read, size: int, *, exact: bool) -> AudioFacts:
    """Read the facts of an Ogg Opus file.

    :param read: reads the recording
    :param size: the whole file's size in bytes
    :param exact: whether to read all of it, however long it is
    :raises RecordingError: it holds another codec, is cut off, or has no sound
    """
    if size > SMALL_BYTES and not exact and (facts := _from_head_and_tail(read, size)) is not None:
        return facts
    return _count(read, size)


def _count(read: Read, size: int) -> AudioFacts:
    """Count the packets of all streams.

    :raises RecordingError: it holds another codec, is cut off, or has no sound
    """
    streams: list[_Stream] = []
    others: list[str] = []
    scan = Scan(read, size)
    place = behind = 0
    while place < size:
        data, at, last = scan.at(place, _LONGEST_PAGE)
        begins = _find_page(data, at)
        if begins != at:
            # What may begin at the piece's end is searched again in the next.
            ahead = begins - at if begins > at else len(data) - at - (0 if last else 4)
            behind += ahead
            place += ahead
            continue
        page = _read_page(data, at)
        if page is None:
            raise TruncatedError("The Ogg is truncated: its last page is cut off", hint=TAKE_WHAT_IS_THERE)
        behind = 0
        place += page.length
        if page.flags & _FIRST_OF_STREAM:
            if (stream := _read_head(page)) is not None:
                streams.append(stream)
            else:
                others += [name for magic, name in _CODECS.items() if page.body.startswith(magic)] or ["another codec"]
        elif streams and page.serial == streams[-1].serial:
            streams[-1].add(page)
    if not streams and others:
        raise UnsupportedFormatError(f"The Ogg holds {others[0]}, and the service takes Opus only", hint=CONVERT)
    if not streams:
        raise RecordingError("The Ogg's beginning is missing: no stream begins with its first page", hint=UPLOAD_AGAIN)
    if behind > _MOST_BEHIND and not streams[-1].ended:
        raise RecordingError(
            f"The Ogg's last {behind:,} bytes aren't Ogg: it is damaged, or was never written to its end",
            hint=UPLOAD_AGAIN,
        )
    samples = sum(stream.length for stream in streams)
    if not samples:
        raise RecordingError("The Ogg Opus has no sound in it", hint=WRITE_AGAIN)
    return _facts(max(stream.channels for stream in streams), samples, size)


def _from_head_and_tail(read: Read, size: int) -> AudioFacts | None:
    """Read the facts from the first pages and the last, None where these leave a doubt.

    A file may be several streams, joined. So the whole has to hold about as much sound as the counts say, by the bytes
    that a second takes at its beginning and at its end.
    """
    head, _ = _pages(read(0, _LONGEST_PAGE))
    tail, tail_end = _pages(read(size - _LONGEST_PAGE, _LONGEST_PAGE))
    first = _read_head(head[0]) if head and head[0].flags & _FIRST_OF_STREAM else None
    if first is None or tail_end != _LONGEST_PAGE:
        return None
    if any(page.flags & _FIRST_OF_STREAM or page.serial != first.serial for page in [*head[1:], *tail]):
        return None
    last = _Stream(first.serial, first.channels, first.pre_skip, tags_left=False)
    bytes_a_sample = []
    for stream, pages in ((first, head[1:]), (last, tail)):
        for page in pages:
            stream.add(page)
        if not (stream.samples and stream.agrees):
            return None
        bytes_a_sample.append(sum(page.length for page in pages if page.granule > 0) / stream.samples)
    samples = last.last_granule - (first.first_granule or 0)
    least, most = samples * min(bytes_a_sample), samples * max(bytes_a_sample)
    if not least / _USUAL_RATIO <= size <= most * _USUAL_RATIO:
        return None
    return _facts(first.channels, samples - first.pre_skip, size) if samples > first.pre_skip else None


def _pages(data: bytes) -> tuple[list[_Page], int]:
    """Return the pages that follow one another from the first one on, and where the last of them ends."""
    pages: list[_Page] = []
    place = max(0, _find_page(data, 0))
    while _find_page(data[place : place + 6], 0) == 0 and (page := _read_page(data, place)) is not None:
        place += page.length
        pages.append(page)
    return pages, place


def _find_page(data: bytes, place: int) -> int:
    """Return where the next page begins, from a place on; -1 where none does."""
    while (place := data.find(b"OggS", place)) >= 0:
        # Four bytes of sound may spell a page's beginning.
        if len(data) < place + 6 or (data[place + 4] == 0 and data[place + 5] <= 7):
            return place
        place += 4
    return place


def _read_page(data: bytes, place: int) -> _Page | None:
    """Return the page that begins at a place, None where it continues after the data's end."""
    header = data[place : place + 27]
    if len(header) < 27:
        return None
    body = place + 27 + header[26]
    segments = data[place + 27 : body]
    end = body + sum(segments)
    if len(segments) < header[26] or end > len(data):
        return None
    granule, serial = struct.unpack_from("<qI", header, 6)
    return _Page(header[5], granule, serial, segments, data[body:end])


def _read_head(page: _Page) -> _Stream | None:
    """Return the Opus stream that begins with a page, None where it is another codec's.

    :raises RecordingError: its header is damaged
    """
    if not page.body.startswith(b"OpusHead") or len(page.body) < 19:
        return None
    version, channels, pre_skip = struct.unpack_from("<BBH", page.body, 8)
    if version >> 4 or not channels or (page.body[18] == 0 and channels > 2):
        raise RecordingError(f"The Opus header is damaged (version {version}, {channels} channels)", hint=WRITE_AGAIN)
    return _Stream(page.serial, channels, pre_skip)


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


def _facts(channels: int, samples: int, size: int) -> AudioFacts:
    return AudioFacts(
        encoding=AudioEncoding.OGG_OPUS,
        sample_rate_hertz=_RATE_HERTZ,
        channels=channels,
        duration_ms=samples_to_ms(samples, _RATE_HERTZ),
        size_bytes=size,
    )
