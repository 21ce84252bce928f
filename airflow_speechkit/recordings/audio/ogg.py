"""Ogg Opus: read through packet by packet, or from its head and tail where it is long and nothing depends on more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import (
    CONVERT,
    SMALL_BYTES,
    UPLOAD_AGAIN,
    WRITE_AGAIN,
    AudioFacts,
    Scan,
    samples_to_ms,
)
from airflow_speechkit.recordings.audio.opus import (
    LONGEST_PAGE,
    NO_PACKET_ENDS,
    OPUS_RATE_HERTZ,
    OpusHead,
    Page,
    codec_name,
    find_page,
    packet_samples,
    read_head,
    read_page,
)
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

#: So much after the last page, of a stream that doesn't end there, is no tag any more.
_MOST_BEHIND = 8 * LONGEST_PAGE
#: How far the bytes a second of what isn't read may differ from those of what is.
_USUAL_RATIO = 1.2


def read_ogg(reader: RangedReader, size: int, *, exact: bool) -> AudioFacts:
    """Read the facts of an Ogg Opus file.

    :param size: the whole file's size in bytes
    :param exact: whether to read it through, however long it is
    :raises RecordingError: it holds another codec, is cut off, or has no sound
    """
    if size > SMALL_BYTES and not exact and (facts := _from_head_and_tail(reader, size)) is not None:
        return facts
    return _count(reader, size)


@dataclass
class _Link:
    """One of the streams that a file is made of, one after the other, as far as it was read.

    :param tags_left: whether the stream's second packet, which is no sound, is still to come
    :param unfinished: the beginning of a packet that ends on a later page
    :param samples: in all packets
    :param on_last_page: those of them that end on the last page
    :param first_granule: the writer's count at the beginning, which isn't zero where it joined a running stream
    :param last_granule: the writer's count at the end
    """

    head: OpusHead
    serial: int
    tags_left: bool = True
    unfinished: bytes | None = None
    samples: int = 0
    on_last_page: int = 0
    first_granule: int | None = None
    last_granule: int = 0
    ended: bool = False

    def add(self, page: Page) -> None:
        """Add the packets that end on a page."""
        here = 0
        lost = page.continues and self.unfinished is None
        for beginning, whole in page.beginnings:
            begun = beginning if self.unfinished is None else self.unfinished
            self.unfinished = None if whole else begun
            if not whole:
                break
            if lost:
                lost = False
            elif self.tags_left:
                self.tags_left = False
            else:
                here += packet_samples(begun)
        self.ended = page.last
        if not here:
            return
        self.samples += here
        self.on_last_page = here
        self.last_granule = page.granule
        if self.first_granule is None:
            self.first_granule = 0 if page.last else max(0, page.granule - here)

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
        return max(0, (self.declared if self.agrees else self.samples) - self.head.pre_skip)


def _count(reader: RangedReader, size: int) -> AudioFacts:
    """Count the packets of all streams.

    :raises RecordingError: it holds another codec, is cut off, or has no sound
    """
    links: list[_Link] = []
    scan = Scan(reader, size)
    place = between = behind = 0
    beginnings: list[Page] = []
    while place < size:
        data, at = scan.at(place, LONGEST_PAGE)
        begins = find_page(data, at)
        if begins != at:
            # What may begin at the piece's end is searched again in the next.
            last = place + len(data) - at >= size
            ahead = begins - at if begins > at else len(data) - at - (0 if last else 4)
            behind += ahead
            place += ahead
            continue
        between, behind = between + behind, 0
        page = read_page(data, at)
        if page is None:
            raise RecordingError("The Ogg is truncated: its last page is cut off", hint=UPLOAD_AGAIN)
        place += page.length
        if page.first:
            beginnings.append(page)
            continue
        if beginnings or not links:
            links.append(_link(beginnings))
            beginnings = []
        if page.serial == links[-1].serial:
            links[-1].add(page)
    if beginnings:
        links.append(_link(beginnings))
    if behind > _MOST_BEHIND and not (links and links[-1].ended):
        raise RecordingError(
            f"The Ogg's last {behind:,} bytes aren't Ogg: it is damaged, or was never written to its end",
            hint=UPLOAD_AGAIN,
        )
    samples = sum(link.length for link in links)
    if not samples:
        raise RecordingError("The Ogg Opus has no sound in it", hint=WRITE_AGAIN)
    notes = (f"{between:,} bytes between its pages are no Ogg: it is damaged",) if between else ()
    return _facts(max(link.head.channels for link in links), samples, size, notes)


def _link(beginnings: list[Page]) -> _Link:
    """Return the Opus stream among those that begin together.

    :raises RecordingError: there is none, or more than one
    """
    if not beginnings:
        raise RecordingError(
            "The Ogg's beginning is missing: no stream begins with its first page",
            hint=f"{UPLOAD_AGAIN}, or find out what cuts it",
        )
    found = [_Link(head, page.serial) for page in beginnings if (head := read_head(page.body)) is not None]
    if not found:
        names = " and ".join(dict.fromkeys(codec_name(page.body) for page in beginnings))
        raise RecordingError(f"The Ogg holds {names}, and the service takes Opus only", hint=CONVERT)
    if len(found) > 1:
        raise RecordingError(
            f"The Ogg holds {len(found)} Opus streams at the same time, and only one of them would be recognised",
            hint="Separate them (ffmpeg -i IN -map 0:a:0 -c copy OUT.ogg), or make channels of them",
        )
    return found[0]


def _from_head_and_tail(reader: RangedReader, size: int) -> AudioFacts | None:
    """Read the facts from the first pages and the last, None where these leave a doubt.

    A file may be several streams, joined. So what lies between has to hold about as much sound, by its bytes, as the
    counts before and after it say.
    """
    start = size - LONGEST_PAGE
    end_bytes = reader.read(start, LONGEST_PAGE)
    head = _pages(reader.read(0, LONGEST_PAGE), 0, 0)
    tail = _pages(end_bytes, max(0, find_page(end_bytes, 0)), start)
    if not head or not tail or not head[0][1].first or tail[-1][0] != size:
        return None
    first = head[0][1]
    if any(page.first or page.serial != first.serial for _, page in [*head[1:], *tail]):
        return None
    link = _link([first])
    behind = _Link(link.head, link.serial, tags_left=False)
    for one, pages in ((link, head[1:]), (behind, tail)):
        for _, page in pages:
            one.add(page)
    if link.first_granule is None or tail[0][1].sequence <= head[-1][1].sequence:
        return None
    if not (link.agrees and behind.agrees):
        return None
    marks = [(end, page.granule) for end, page in head if page.granule > 0]
    marks_behind = [(end, page.granule) for end, page in tail if page.granule != NO_PACKET_ENDS]
    seen = [_bytes_a_sample(marks), _bytes_a_sample(marks_behind)]
    between = _bytes_a_sample([*marks[-1:], *marks_behind[:1]])
    if not between or not all(seen) or not min(seen) / _USUAL_RATIO <= between <= max(seen) * _USUAL_RATIO:
        return None
    samples = marks_behind[-1][1] - link.first_granule - link.head.pre_skip
    return _facts(link.head.channels, samples, size) if samples > 0 else None


def _pages(data: bytes, place: int, offset: int) -> list[tuple[int, Page]]:
    """Return the pages that follow one another from a place on, each with where it ends in the file."""
    pages: list[tuple[int, Page]] = []
    while find_page(data[place : place + 6], 0) == 0 and (page := read_page(data, place)) is not None:
        place += page.length
        pages.append((offset + place, page))
    return pages


def _bytes_a_sample(marks: list[tuple[int, int]]) -> float:
    """Return what a sample takes between the first and the last of these ends and counts, 0 where that is nonsense."""
    if len(marks) < 2:
        return 0.0
    (start, first), (end, last) = marks[0], marks[-1]
    return (end - start) / (last - first) if last > first else 0.0


def _facts(channels: int, samples: int, size: int, notes: tuple[str, ...] = ()) -> AudioFacts:
    return AudioFacts(
        encoding=AudioEncoding.OGG_OPUS,
        sample_rate_hertz=OPUS_RATE_HERTZ,
        channels=channels,
        duration_ms=samples_to_ms(samples, OPUS_RATE_HERTZ),
        size_bytes=size,
        notes=notes,
    )
