"""MP3: found among tags; its length is what the first frame declares where that is proven, else frames are counted."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import (
    MAX_CHANNEL_MS,
    SMALL_BYTES,
    UPLOAD_AGAIN,
    WRITE_AGAIN,
    AudioFacts,
    Scan,
    samples_to_ms,
)
from airflow_speechkit.recordings.audio.mpeg import (
    LONGEST_FRAME,
    LOOK_BYTES,
    Declared,
    Row,
    Stream,
    find_row,
    read_declared,
    row_at,
    skip_tags,
    tag_length,
)
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

#: So many frames in a row make an MP3, a fifth of a second: two or three could be a coincidence in raw samples.
_ENOUGH_FRAMES = 8
#: After a tag, and after damage within an MP3, fewer do.
_ENOUGH_FRAMES_INSIDE = 3
#: No sound is lost with a tag of this many bytes: ID3v1 and what extends it have fixed lengths.
_SHORT_TAG = 256
#: 8 kbit/s is the lowest bitrate, and two channels may share it.
_LEAST_BYTES_PER_S = 500
_CONVERT = "Convert it: ffmpeg -i IN -c:a libmp3lame OUT.mp3, or to OggOpus: ffmpeg -i IN -c:a libopus OUT.ogg"


def read_mp3(reader: RangedReader, size: int, *, exact: bool = False) -> AudioFacts | None:
    """Read the facts of an MP3, None where it isn't one.

    :param size: the whole file's size in bytes
    :param exact: whether to read it through if its length isn't proven otherwise
    :raises RecordingError: it is cut off, has no sound, or is MPEG audio of layer II
    """
    tags_end = skip_tags(reader, 0, size) if tag_length(reader.read(0, LOOK_BYTES)) else 0
    if tags_end >= size:
        raise RecordingError("The MP3 is truncated: nothing comes after its tags", hint=UPLOAD_AGAIN)
    data = reader.read(tags_end, LOOK_BYTES)
    row = _first_row(data, last=tags_end + len(data) >= size, tagged=tags_end > 0)
    if row is None:
        return None
    first = row.first
    if first.stream.layer != 3:
        raise RecordingError(
            "The recording is MPEG audio Layer II (mp2), and the service takes Layer III (MP3) only", hint=_CONVERT
        )
    start = tags_end + row.place
    declared = read_declared(data[row.place : row.place + first.length], first.stream)
    if declared is not None:
        samples = _proven_samples(reader, row, declared, start, size, exact=exact)
        if samples is not None:
            if samples <= 0:
                raise _no_sound()
            return _facts(first.stream, size, duration_ms=samples_to_ms(samples, first.stream.rate))
        start += first.length
    sound = size - start
    if exact or sound <= SMALL_BYTES or sound * 1000 > MAX_CHANNEL_MS * _LEAST_BYTES_PER_S:
        return _count(reader, first.stream, start, size)
    return _facts(first.stream, size, duration_ms=None, longest_ms=sound * 1000 // (2 * _LEAST_BYTES_PER_S))


def _first_row(data: bytes, *, last: bool, tagged: bool) -> Row | None:
    """Find the first frames; a few are enough where the recording has nothing else."""
    row = row_at(data, 0, _ENOUGH_FRAMES)
    if row is not None and last and row.count < _ENOUGH_FRAMES:
        whole = row.count - (row.end > len(data))
        rest = data[row.end :].lstrip(b"\0")
        if whole and (not rest or tag_length(rest)):
            return row
    return find_row(data, 0, _ENOUGH_FRAMES_INSIDE if tagged else _ENOUGH_FRAMES, last=False)


def _facts(first: Stream, size: int, **about: Any) -> AudioFacts:
    shape = {"sample_rate_hertz": first.rate, "channels": first.channels, **about}
    return AudioFacts(encoding=AudioEncoding.MP3, size_bytes=size, **shape)


def _no_sound() -> RecordingError:
    return RecordingError("The MP3 has no sound in it: not one whole frame", hint=WRITE_AGAIN)


def _proven_samples(
    reader: RangedReader, row: Row, declared: Declared, start: int, size: int, *, exact: bool
) -> int | None:
    """Return the samples that the first frame declares; None where it contradicts itself or the bytes that are there.

    :raises RecordingError: it is right, and the recording is shorter
    """
    first = row.first
    if not declared.frames or not declared.length:
        return None
    plausible = declared.checked
    if plausible is None:
        # Without a checksum it has to fit the frames that are seen, and proves nothing that a limit depends on.
        usual = (row.end - row.place) / row.count
        plausible = not exact and usual / 1.5 <= declared.length / declared.frames <= usual * 1.5
    if not plausible:
        return None
    if declared.length > size - start + first.length:
        raise RecordingError(
            f"The MP3 is truncated: its header promises {declared.length:,} bytes, {size - start:,} are there",
            hint=UPLOAD_AGAIN,
        )
    # Encoders differ on whether the first frame counts. Tags may follow, and nothing else.
    for end in (start + declared.length, start + declared.length + first.length):
        if end >= size - first.length or _only_tags(reader, end, size):
            return declared.frames * first.stream.frame_samples - declared.trimmed
    return None


def _only_tags(reader: RangedReader, place: int, size: int) -> bool:
    """Return whether nothing but tags follows. The length that a long tag declares proves nothing."""
    if size - place > 4 * LOOK_BYTES or skip_tags(reader, place, size) < size:
        return False
    return find_row(reader.read(place, size - place), 0, _ENOUGH_FRAMES_INSIDE, last=True) is None


def _count(reader: RangedReader, first: Stream, start: int, size: int) -> AudioFacts:
    """Count the frames from a place on, whatever is between them.

    :raises RecordingError: there is none
    """
    samples: Counter[int] = Counter()  # by their rate
    channels = sound = skipped = 0  # bytes of frames; bytes that are neither frames nor tags nor zero
    stream: Stream | None = first
    scan = Scan(reader, size)
    place = tag_end = start
    while place < size:
        data, at = scan.at(place, LOOK_BYTES)
        last = place + len(data) - at >= size
        row = row_at(data, at)
        if row is not None and (
            row.count >= _ENOUGH_FRAMES_INSIDE or row.first.stream == stream or (last and row.end >= len(data))
        ):
            # A last frame that is cut off counts: some decoders fill it up.
            stream = row.first.stream
            channels = max(channels, stream.channels)
            samples[stream.rate] += row.count * stream.frame_samples
            sound += row.end - row.place
            place += row.end - row.place
        elif length := tag_length(data[at : at + LOOK_BYTES]):
            # A tag can declare to be longer than it is: what looks like frames inside of one is sound.
            tag_end = max(tag_end, place + length)
            place += min(length, _SHORT_TAG)
        else:
            stream = None
            if found := find_row(data, at + 1, _ENOUGH_FRAMES_INSIDE, last=last):
                ahead = found.place - at
            else:
                # A row that begins at the piece's end is found in the next one.
                ahead = len(data) - at - (0 if last else _ENOUGH_FRAMES_INSIDE * LONGEST_FRAME)
            in_tag = min(max(tag_end - place, 0), ahead)
            skipped += ahead - in_tag - data.count(0, at + in_tag, at + ahead)
            place += ahead
    if not sound:
        raise _no_sound()
    ms = ceil(sum(Fraction(count * 1000, rate) for rate, count in samples.items()))
    if skipped * 10 <= sound:
        return _facts(first, size, channels=channels, duration_ms=ms)
    return _facts(
        first,
        size,
        channels=channels,
        duration_ms=None,
        longest_ms=ms + skipped * 1000 // (2 * _LEAST_BYTES_PER_S),
        notes=(f"{skipped:,} of its {size:,} bytes are no MP3 frames, so its length is unknown",),
    )
