"""Opus inside Ogg (RFC 6716, RFC 7845): the header, and how much sound a packet holds."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from airflow_speechkit.errors import RecordingError

#: Opus always decodes to this.
OPUS_RATE_HERTZ = 48_000

_LONGEST_PACKET = 5760
_CODECS = {
    b"\x01vorbis": "Vorbis",
    b"Speex   ": "Speex",
    b"\x7fFLAC": "FLAC",
    b"fLaC": "FLAC",
    b"CELT    ": "CELT",
    b"PCM     ": "PCM",
    b"\x80theora": "Theora video",
    b"fishead\0": "an index (Skeleton)",
}


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
            f"The Opus header is damaged (version {version}, {channels} channels, mapping {body[18]})",
            hint="Write or upload the recording again",
        )
    return OpusHead(channels, pre_skip)


def codec_name(body: bytes) -> str:
    """Return what the stream is called that begins so."""
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
