"""Recordings: check their first bytes, measure them, and decode their channels for the recogniser."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The sample rate of the recogniser's acoustic model.
MODEL_RATE = 16000

_FORMATS = {"OGG_OPUS": "ogg", "MP3": "mp3", "WAV": "wav"}


class UndecodableError(Exception):
    """The recording can't be decoded, although its first bytes fit the encoding."""


@dataclass(frozen=True)
class Facts:
    """Duration and number of channels of a recording."""

    duration_ms: int
    channels: int


def wrong_container(head: bytes, encoding: str) -> str | None:
    """The service's error for a recording whose first bytes don't fit its encoding.

    :param head: the recording's first 64 bytes
    :return: None if they fit
    """
    if encoding == "OGG_OPUS" and not (head.startswith(b"OggS") and b"OpusHead" in head):
        return "ogg header has not been found"
    mp3 = head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)
    if encoding == "MP3" and not mp3:
        return "mp3 header has not been found"
    if encoding == "WAV" and not (head.startswith(b"RIFF") and head[8:12] == b"WAVE"):
        return "wav header has not been found"
    return None


def measure(content: bytes, encoding: str, sample_rate: int, channels: int | None) -> Facts:
    """Measure a recording: decode all of it and count its samples, whatever its headers say.

    :param sample_rate: of LINEAR16_PCM, in hertz
    :param channels: of LINEAR16_PCM
    :raises UndecodableError: if nothing in it can be decoded
    """
    if encoding == "LINEAR16_PCM":
        count = channels or 1
        return Facts(len(content) // (2 * count) * 1000 // sample_rate, count)
    samples: Counter[int] = Counter()
    count = 0
    for frame in _frames(content, encoding):
        samples[frame.sample_rate] += frame.samples
        count = count or frame.layout.nb_channels
    return Facts(round(sum(number * 1000 / rate for rate, number in samples.items())), count or 1)


def _frames(content: bytes, encoding: str) -> Iterator[Any]:
    """All frames of decoded samples, as ``ffmpeg`` returns them; damaged packets are left out.

    :raises UndecodableError: if all packets are damaged
    """
    import av

    decoded, damage = False, ""
    for part in _links(content) if encoding == "OGG_OPUS" else [content]:
        try:
            with av.open(io.BytesIO(part), mode="r", format=_FORMATS[encoding]) as container:
                for packet in container.demux(container.streams.audio[0]):
                    try:
                        frames = packet.decode()
                    except av.FFmpegError as error:
                        damage = type(error).__name__
                        continue
                    decoded = decoded or bool(frames)
                    yield from frames
        except (av.FFmpegError, IndexError, ValueError) as error:
            damage = type(error).__name__
    if damage and not decoded:
        raise UndecodableError(damage)


def _links(content: bytes) -> list[bytes]:
    """Split a chained Ogg file into its links, because a decoder stops where the number of channels changes.

    A link begins at a page that begins a stream and follows a page that doesn't.
    """
    pages = [found.start() for found in re.finditer(rb"OggS\0", content)]
    begins = [bool(flags and flags[0] & 2) for flags in (content[page + 5 : page + 6] for page in pages)]
    starts = [
        page for page, first, before in zip(pages, begins, [False, *begins], strict=False) if first and not before
    ]
    return [content[start:end] for start, end in itertools.pairwise([*(starts or [0]), len(content)])]


def channels_of(content: bytes, encoding: str, sample_rate: int, channels: int | None) -> list[bytes]:
    """Decode each channel to 16-bit PCM at the model's rate.

    :raises UndecodableError: if nothing in it can be decoded
    """
    import numpy

    if encoding == "LINEAR16_PCM":
        parts = [_resampled_raw(content, sample_rate, channels or 1)]
    else:
        parts = [part.to_ndarray() for part in _resampled(_frames(content, encoding))]
    if not parts:
        return []
    return [channel.tobytes() for channel in numpy.concatenate(parts, axis=1)]


def _resampled(frames: Iterator[Any]) -> Iterator[Any]:
    """Frames at the model's rate, with the channels of the first frame: both can change within joined files."""
    import av

    layout: Any = None
    for _, alike in itertools.groupby(frames, lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        resampler: Any = None
        for frame in alike:
            layout = layout or frame.layout
            resampler = resampler or av.AudioResampler(format="s16p", layout=layout, rate=MODEL_RATE)
            yield from resampler.resample(frame)
        yield from resampler.resample(None)


def _resampled_raw(content: bytes, sample_rate: int, channels: int) -> Any:
    import av
    import numpy

    whole = len(content) // (2 * channels) * 2 * channels
    samples = numpy.frombuffer(content[:whole], dtype="<i2").reshape(-1, channels)
    if sample_rate == MODEL_RATE:
        return samples.T
    done = []
    # One channel at a time: raw audio can have more channels than any named layout.
    for channel in samples.T:
        resampler = av.AudioResampler(format="s16p", layout="mono", rate=MODEL_RATE)
        frame = av.AudioFrame.from_ndarray(
            numpy.ascontiguousarray(channel).reshape(1, -1), format="s16p", layout="mono"
        )
        frame.sample_rate = sample_rate
        pieces = [*resampler.resample(frame), *resampler.resample(None)]
        done.append(numpy.concatenate([piece.to_ndarray() for piece in pieces], axis=1))
    return numpy.concatenate(done, axis=0)
