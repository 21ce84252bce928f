"""MP3: found among tags, its length from the first frame where that proves to be right, else counted frame by frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts, samples_to_ms
from airflow_speechkit.recordings.audio.mpeg import LONGEST_FRAME, Frame, Row, find_row, free_format, row_at
from airflow_speechkit.recordings.audio.scanning import Scan, worth_scanning
from airflow_speechkit.recordings.audio.tags import skip_tags, tag_length
from airflow_speechkit.recordings.audio.xing import Declared, read_declared
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

#: So many frames in a row make an MP3, a fifth of a second: two or three could be a coincidence in raw samples.
_ENOUGH_FRAMES = 8
#: Behind a tag, and behind what is damaged in an MP3, fewer do.
_ENOUGH_FRAMES_INSIDE = 3
_LOOK = 32 * 1024
#: No sound is lost with a tag of this many bytes: ID3v1 and what extends it have fixed lengths.
_SHORT_TAG = 256
#: 8 kbit/s is the lowest bitrate, and two channels may share it.
_LEAST_BYTES_PER_S = 500
_UPLOAD_AGAIN = "Upload the recording again"
_CONVERT = "Convert it: ffmpeg -i IN -c:a libmp3lame OUT.mp3, or to OggOpus: ffmpeg -i IN -c:a libopus OUT.ogg"
_LAYERS = {1: "Layer I (mp1)", 2: "Layer II (mp2)"}


def read_mp3(reader: RangedReader, size: int, *, exact: bool = False) -> AudioFacts | None:
    """Read the facts of an MP3, None where it isn't one.

    :param size: the whole file's size in bytes
    :param exact: whether to read it through if its length isn't proven otherwise
    :raises RecordingError: it is cut off, has no sound, or is MPEG audio of another kind
    """
    tagged = tag_length(reader.read(0, _LOOK)) > 0
    tags_end = skip_tags(reader, 0, size) if tagged else 0
    if tags_end >= size:
        raise RecordingError("The MP3 is truncated: nothing comes after its tags", hint=_UPLOAD_AGAIN)
    data = reader.read(tags_end, _LOOK)
    row = _first_row(data, last=tags_end + len(data) >= size, tagged=tagged)
    if row is None:
        if free_format(data):
            raise RecordingError(
                "The recording is an MP3 of free bitrate (free format), which hardly any decoder takes",
                hint="Convert it: mpg123 -w OUT.wav IN, then ffmpeg -i OUT.wav -c:a libopus OUT.ogg",
            )
        return None
    first = row.frames[0]
    if first.layer != 3:
        raise RecordingError(
            f"The recording is MPEG audio {_LAYERS[first.layer]}, and the service takes Layer III (MP3) only",
            hint=_CONVERT,
        )
    start = tags_end + row.place
    declared = read_declared(data[row.place : row.place + first.length], first)
    samples = None if declared is None else _proven_samples(reader, row, declared, start, size, exact=exact)
    if samples is not None:
        if samples <= 0:
            raise _no_sound()
        return _facts(first, first.channels, samples_to_ms(samples, first.rate), size)
    start += 0 if declared is None else first.length
    if not worth_scanning(size - start, _LEAST_BYTES_PER_S, exact=exact):
        return _facts(first, first.channels, None, size, longest_ms=(size - start) * 1000 // (2 * _LEAST_BYTES_PER_S))
    return _count(reader, first, start, size)


def _first_row(data: bytes, *, last: bool, tagged: bool) -> Row | None:
    """Find the first frames; a few are enough where nothing but they is in the recording."""
    row = row_at(data, 0, _ENOUGH_FRAMES)
    if row is not None and last and len(row.frames) < _ENOUGH_FRAMES:
        whole = len(row.frames) - (row.end > len(data))
        rest = data[row.end :].lstrip(b"\0")
        if whole and (not rest or tag_length(rest)):
            return row
    return find_row(data, 0, _ENOUGH_FRAMES_INSIDE if tagged else _ENOUGH_FRAMES, last=False)


def _facts(
    first: Frame,
    channels: int,
    duration_ms: int | None,
    size: int,
    *,
    longest_ms: int | None = None,
    notes: tuple[str, ...] = (),
) -> AudioFacts:
    return AudioFacts(
        encoding=AudioEncoding.MP3,
        sample_rate_hertz=first.rate,
        channels=channels,
        duration_ms=duration_ms,
        size_bytes=size,
        longest_ms=longest_ms,
        notes=notes,
    )


def _no_sound() -> RecordingError:
    return RecordingError("The MP3 has no sound in it: not one whole frame", hint="Write or upload the recording again")


def _proven_samples(
    reader: RangedReader, row: Row, declared: Declared, start: int, size: int, *, exact: bool
) -> int | None:
    """Return the samples that the first frame declares; None where it contradicts itself or the bytes that are there.

    :raises RecordingError: it is right, and the recording is shorter
    """
    first = row.frames[0]
    if not declared.frames or not declared.length:
        return None
    if declared.checked is None:
        # Without a checksum it has to fit the frames that are seen, and is no proof of what something depends on.
        usual = (row.end - row.place) / len(row.frames)
        plausible = usual / 1.5 <= declared.length / declared.frames <= usual * 1.5
    else:
        plausible = declared.checked
    if not plausible or (exact and not declared.checked):
        return None
    there = size - start
    if declared.length > there + first.length:
        raise RecordingError(
            f"The MP3 is truncated: its header promises {declared.length:,} bytes, {there:,} are there",
            hint=_UPLOAD_AGAIN,
        )
    # Encoders differ on whether the first frame counts. Tags may follow, and nothing else.
    for end in (start + declared.length, start + declared.length + first.length):
        if end >= size - first.length or _only_tags(reader, end, size):
            return declared.frames * first.samples - declared.trimmed
    return None


def _only_tags(reader: RangedReader, place: int, size: int) -> bool:
    """Tell whether nothing but tags follows. What a long one says of its own length proves nothing."""
    if size - place > 4 * _LOOK or skip_tags(reader, place, size) < size:
        return False
    return find_row(reader.read(place, size - place), 0, _ENOUGH_FRAMES_INSIDE, last=True) is None


@dataclass
class _Counted:
    """What was found so far.

    :param samples: by their rate
    :param taken: bytes of frames
    :param skipped: bytes that are neither frames nor tags nor zero
    """

    channels: int = 0
    samples: Counter[int] = field(default_factory=Counter)
    taken: int = 0
    skipped: int = 0

    @property
    def ms(self) -> int:
        return ceil(sum(Fraction(count * 1000, rate) for rate, count in self.samples.items()))

    def take(self, row: Row) -> None:
        first = row.frames[0]
        self.channels = max(self.channels, first.channels)
        self.samples[first.rate] += len(row.frames) * first.samples
        self.taken += row.end - row.place


def _count(reader: RangedReader, first: Frame, start: int, size: int) -> AudioFacts:
    """Count the frames from a place on, whatever stands between them.

    :raises RecordingError: there is none
    """
    counted = _Counted()
    before: Frame | None = first
    scan = Scan(reader, size)
    place = tag_end = start
    while place < size:
        data, at = scan.at(place, _LOOK)
        last = place + len(data) - at >= size
        row = row_at(data, at)
        if row is not None and (
            len(row.frames) >= _ENOUGH_FRAMES_INSIDE
            or (before is not None and row.frames[0].same_stream(before))
            or (last and row.end >= len(data))
        ):
            # A last frame that is cut off counts: some decoders fill it up.
            counted.take(row)
            before = row.frames[0]
            place += row.end - row.place
        elif length := tag_length(data[at : at + _LOOK]):
            # A tag can claim to be longer than it is: what looks like frames inside of one is sound.
            tag_end = max(tag_end, place + length)
            place += min(length, _SHORT_TAG)
        else:
            found = find_row(data, at + 1, _ENOUGH_FRAMES_INSIDE, last=last)
            before = None
            if found is not None:
                ahead = found.place - at
            else:
                # A row that begins at the piece's end is found in the next one.
                ahead = len(data) - at - (0 if last else _ENOUGH_FRAMES_INSIDE * LONGEST_FRAME)
            in_tag = min(max(tag_end - place, 0), ahead)
            counted.skipped += ahead - in_tag - data.count(0, at + in_tag, at + ahead)
            place += ahead
    if not counted.taken:
        raise _no_sound()
    if counted.skipped * 10 <= counted.taken:
        return _facts(first, counted.channels, counted.ms, size)
    return _facts(
        first,
        counted.channels,
        None,
        size,
        longest_ms=counted.ms + counted.skipped * 1000 // (2 * _LEAST_BYTES_PER_S),
        notes=(f"{counted.skipped:,} of its {size:,} bytes are no MP3 frames, so its length is unknown",),
    )
