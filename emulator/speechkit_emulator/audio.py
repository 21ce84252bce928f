"""Recordings: what their first bytes say, how long they are, and their channels at the recogniser's rate."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

#: The rate that the recogniser's acoustic model was trained at.
MODEL_RATE = 16000

_FORMATS = {"OGG_OPUS": "ogg", "MP3": "mp3", "WAV": "wav"}


class UndecodableError(Exception):
    """The bytes are not what they were said to be, past their first ones."""


@dataclass(frozen=True)
class Facts:
    """How long a recording is, and how many channels it has."""

    duration_ms: int
    channels: int


def wrong_container(head: bytes, encoding: str) -> str | None:
    """What the service says about a recording whose first bytes are not of its encoding; None if they are.

    :param head: the recording's first 64 bytes
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
    """Duration and channels of a recording, without decoding it.

    :raises UndecodableError: if it can't be read
    """
    if encoding == "LINEAR16_PCM":
        count = channels or 1
        return Facts(len(content) // (2 * count) * 1000 // sample_rate, count)
    import av

    try:
        with av.open(io.BytesIO(content), mode="r", format=_FORMATS[encoding]) as container:
            stream = container.streams.audio[0]
            count = stream.codec_context.layout.nb_channels
            if encoding == "OGG_OPUS":
                return Facts(_opus_ms(content), count)
            ticks = sum(int(packet.duration or 0) for packet in container.demux(stream))
            return Facts(round(ticks * float(stream.time_base or 0) * 1000), count)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise UndecodableError(type(error).__name__) from error


def _opus_ms(content: bytes) -> int:
    last_page = content.rfind(b"OggS")
    granule = int.from_bytes(content[last_page + 6 : last_page + 14], "little", signed=True)
    head = content.index(b"OpusHead")
    pre_skip = int.from_bytes(content[head + 10 : head + 12], "little")
    return max(0, granule - pre_skip) * 1000 // 48000


def channels_of(content: bytes, encoding: str, sample_rate: int, channels: int | None) -> list[bytes]:
    """Each channel as 16-bit PCM at the model's rate.

    :raises UndecodableError: if it can't be decoded
    """
    import av
    import numpy

    try:
        if encoding == "LINEAR16_PCM":
            parts = [_resampled_raw(content, sample_rate, channels or 1)]
        else:
            parts = []
            with av.open(io.BytesIO(content), mode="r", format=_FORMATS[encoding]) as container:
                resampler: Any = None
                for frame in container.decode(container.streams.audio[0]):
                    if resampler is None:
                        resampler = av.AudioResampler(format="s16p", layout=frame.layout, rate=MODEL_RATE)
                    parts.extend(part.to_ndarray() for part in resampler.resample(frame))
                if resampler is not None:
                    parts.extend(part.to_ndarray() for part in resampler.resample(None))
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise UndecodableError(type(error).__name__) from error
    if not parts:
        return []
    return [channel.tobytes() for channel in numpy.concatenate(parts, axis=1)]


def _resampled_raw(content: bytes, sample_rate: int, channels: int) -> Any:
    import av
    import numpy

    whole = len(content) // (2 * channels) * 2 * channels
    samples = numpy.frombuffer(content[:whole], dtype="<i2").reshape(-1, channels)
    if sample_rate == MODEL_RATE:
        return samples.T
    done = []
    # One channel at a time: raw audio may have more channels than there are names for layouts.
    for channel in samples.T:
        resampler = av.AudioResampler(format="s16p", layout="mono", rate=MODEL_RATE)
        frame = av.AudioFrame.from_ndarray(
            numpy.ascontiguousarray(channel).reshape(1, -1), format="s16p", layout="mono"
        )
        frame.sample_rate = sample_rate
        pieces = [*resampler.resample(frame), *resampler.resample(None)]
        done.append(numpy.concatenate([piece.to_ndarray() for piece in pieces], axis=1))
    return numpy.concatenate(done, axis=0)
