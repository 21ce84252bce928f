"""Ogg Opus: the first pages and the last (RFC 3533, RFC 7845)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts, samples_to_ms
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_speechkit.recordings.audio.facts import RangedReader

#: No page is longer: 27 bytes of header, 255 segment lengths, 255 segments of 255 bytes.
_LONGEST_PAGE = 27 + 255 + 255 * 255
_OPUS_RATE = 48_000
_NO_PACKET_ENDS = -1
_FIRST_OF_STREAM = 0x02
_LAST_OF_STREAM = 0x04
_CODECS = {
    b"\x01vorbis": "Vorbis",
    b"Speex   ": "Speex",
    b"\x7fFLAC": "FLAC",
    b"\x80theora": "Theora video",
}
_UPLOAD_AGAIN = "Upload the recording again"


@dataclass(frozen=True)
class _Page:
    flags: int
    granule: int
    serial: int
    segments: bytes
    body: bytes

    @property
    def packets(self) -> Iterator[bytes]:
        """Give the packets that end on this page."""
        start = end = 0
        for length in self.segments:
            end += length
            if length < 255:
                yield self.body[start:end]
                start = end


def read_ogg(reader: RangedReader, size: int) -> AudioFacts:
    """Read the facts of an Ogg Opus file from its head and its tail.

    :param size: the whole file's size in bytes
    :raises RecordingError: it holds another codec, or is cut off
    """
    # Long enough for the description, its tags and the first sound, unless the tags hold a picture.
    head = list(_pages(reader.read(0, _LONGEST_PAGE), 0, size))
    serial, channels, pre_skip = _description(head)
    last_granule = _last_granule(_tail(reader, size), serial)
    duration_ms: int | None = None
    if last_granule is not None:
        samples = last_granule - _first_sample(head, serial) - pre_skip
        if samples <= 0:
            raise RecordingError("The Ogg Opus has no sound in it", todo="Write or upload the recording again")
        duration_ms = samples_to_ms(samples, _OPUS_RATE)
    return AudioFacts(
        encoding=AudioEncoding.OGG_OPUS,
        sample_rate_hertz=_OPUS_RATE,
        channels=channels,
        duration_ms=duration_ms,
        size_bytes=size,
    )


def _description(head: list[_Page]) -> tuple[int, int, int]:
    codec = "no Opus stream"
    for page in head:
        if not page.flags & _FIRST_OF_STREAM:
            break
        if page.body.startswith(b"OpusHead") and len(page.body) >= 19:
            version, channels, pre_skip = struct.unpack_from("<BBH", page.body, 8)
            if version >> 4 or not channels:
                raise RecordingError(f"The Opus header is damaged (version {version}, {channels} channels)")
            return page.serial, channels, pre_skip
        codec = next((name for magic, name in _CODECS.items() if page.body.startswith(magic)), codec)
    raise RecordingError(
        f"The Ogg holds {codec}, and the service takes Opus only",
        todo="Convert it: ffmpeg -i IN -c:a libopus OUT.ogg",
    )


def _tail(reader: RangedReader, size: int) -> list[_Page]:
    # A whole page, however long, lies within the first reach; the second looks past what was added behind it.
    for reach in (_LONGEST_PAGE, 8 * _LONGEST_PAGE):
        start = max(0, size - reach)
        pages = list(_pages(reader.read(start, size - start), start, size))
        if any(page.granule != _NO_PACKET_ENDS for page in pages):
            return pages
    raise RecordingError(
        "The Ogg's last bytes aren't Ogg: it is damaged, or was never written to its end", todo=_UPLOAD_AGAIN
    )


def _last_granule(tail: list[_Page], serial: int) -> int | None:
    """Return where the sound ends, in samples; None where more streams follow this one, each with its own count."""
    granule: int | None = None
    ended = False
    for page in tail:
        if page.serial == serial:
            ended = bool(page.flags & _LAST_OF_STREAM)
            if page.granule != _NO_PACKET_ENDS:
                granule = page.granule
        elif ended and page.flags & _FIRST_OF_STREAM:
            return None
    return granule


def _first_sample(head: list[_Page], serial: int) -> int:
    """Return the count at which the sound begins: not zero where a recorder joined a running stream."""
    for page in head:
        if page.serial == serial and page.granule > 0:
            if page.flags & _LAST_OF_STREAM:
                return 0
            return max(0, page.granule - sum(_samples(packet) for packet in page.packets))
    return 0


def _samples(packet: bytes) -> int:
    """Return how much sound an Opus packet holds (RFC 6716, 3.1), in samples at 48 kHz."""
    if not packet:
        return 0
    mode, frames = packet[0] >> 3, packet[0] & 3
    if mode < 12:
        length = (480, 960, 1920, 2880)[mode & 3]
    elif mode < 16:
        length = (480, 960)[mode & 1]
    else:
        length = (120, 240, 480, 960)[mode & 3]
    if frames == 3:
        return length * (packet[1] & 63) if len(packet) > 1 else 0
    return length * (1 if frames == 0 else 2)


def _pages(data: bytes, offset: int, size: int) -> Iterator[_Page]:
    """Give the whole pages in a piece of a file.

    :param offset: where the piece begins
    :param size: the whole file's size in bytes
    :raises RecordingError: the file ends within a page
    """
    place = data.find(b"OggS")
    while place >= 0:
        header = data[place : place + 27]
        if len(header) > 5 and (header[4] or header[5] > 7):
            # Four bytes of sound that happen to spell a page's beginning.
            place = data.find(b"OggS", place + 4)
            continue
        segments = data[place + 27 : place + 27 + header[26]] if len(header) == 27 else b""
        body = place + 27 + len(segments)
        end = body + sum(segments)
        if len(header) < 27 or len(segments) < header[26] or end > len(data):
            if offset + len(data) >= size:
                raise RecordingError("The Ogg is truncated: its last page is cut off", todo=_UPLOAD_AGAIN)
            return
        granule, serial = struct.unpack_from("<qI", header, 6)
        yield _Page(header[5], granule, serial, segments, data[body:end])
        place = data.find(b"OggS", end)
