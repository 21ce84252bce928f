"""Real recordings, made by real encoders, small enough to make anew in every run."""

from __future__ import annotations

import io
import struct
from collections import Counter
from contextlib import suppress
from functools import cache

import av
import numpy as np


@cache
def encoded(
    codec: str,
    container: str,
    *,
    seconds: float = 2.0,
    rate: int = 48_000,
    channels: int = 1,
    sample_format: str = "s16",
    bit_rate: int | None = 32_000,
    quality: int | None = None,
    **options: str,
) -> bytes:
    """Return a recording of a tone, silence and noise in turn (so that a variable bitrate does vary).

    :param quality: of a variable bitrate
    :param options: the container's
    """
    count = round(seconds * rate)
    time = np.arange(count) / rate
    turn = (time * 2).astype(int) % 3
    noise = np.random.default_rng(7).normal(size=count)
    wave = np.where(turn == 0, np.sin(time * 2765), np.where(turn == 1, 0.0, noise * 0.3)) * 12_000
    samples = np.repeat(wave.astype("<i2")[:, None], channels, axis=1).reshape(1, -1)
    layout = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0"}[channels]
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        if bit_rate:
            stream.bit_rate = bit_rate
        if quality is not None:
            stream.codec_context.qscale = True
            stream.codec_context.global_quality = quality * 118
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def of_samples(samples: np.ndarray, codec: str, container: str, rate: int = 48_000) -> bytes:
    """Return a recording of these samples.

    :param samples: of 16 bit, a row for each channel
    """
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        flat = np.ascontiguousarray(samples.T.astype("<i2")).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(flat, format="s16", layout=layout)
        frame.sample_rate = rate
        frame.pts = 0
        resampled = av.AudioResampler(stream.codec_context.format, layout, rate).resample(frame)
        for each in [*resampled, None]:
            for packet in stream.encode(each):
                output.mux(packet)
    return file.getvalue()


def ogg(**about: object) -> bytes:
    """Return an Ogg Opus recording."""
    return encoded("libopus", "ogg", **about)  # type: ignore[arg-type]


def mp3(**about: object) -> bytes:
    """Return an MP3 recording."""
    return encoded("libmp3lame", "mp3", **about)  # type: ignore[arg-type]


def wav(rate: int = 8000, channels: int = 1, seconds: float = 2.0, codec: str = "pcm_s16le") -> bytes:
    """Return a WAV as ffmpeg writes it, with its LIST chunk before the samples."""
    return encoded(codec, "wav", rate=rate, channels=channels, seconds=seconds, bit_rate=None)


def wav_of_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WAV of just these chunks."""
    body = b"".join(struct.pack("<4sI", name, len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WAVE") + body


def wav_format(rate: int = 8000, channels: int = 1, *, form: int = 1, bits: int = 16) -> bytes:
    """Return the chunk that says what a WAV's samples are."""
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", form, channels, rate, rate * frame, frame, bits)


def extensible_format(rate: int, channels: int, *, form: int = 1) -> bytes:
    """Return the same chunk in WAVE_FORMAT_EXTENSIBLE."""
    tail = bytes.fromhex("000000001000800000aa00389b71")
    return wav_format(rate, channels, form=0xFFFE) + struct.pack("<HHIH", 22, 16, 3, form) + tail


def decoded_seconds(data: bytes) -> float:
    """Return how much sound a decoder really gets out of a recording, stepping over what it can't decode."""
    samples: Counter[int] = Counter()
    with av.open(io.BytesIO(data)) as file:
        for packet in file.demux(audio=0):
            with suppress(av.error.InvalidDataError, av.error.EOFError):
                for frame in packet.decode():
                    samples[frame.sample_rate] += frame.samples
    return sum(count / rate for rate, count in samples.items())


_OGG_CRC = [0] * 256
for _byte in range(256):
    _crc = _byte << 24
    for _ in range(8):
        _crc = (_crc << 1 ^ (0x04C11DB7 if _crc & 0x80000000 else 0)) & 0xFFFFFFFF
    _OGG_CRC[_byte] = _crc


def with_checksum(page: bytes) -> bytes:
    """Return an Ogg page with the checksum that decoders want to see."""
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _OGG_CRC[crc >> 24 ^ byte]
    return page[:22] + struct.pack("<I", crc) + page[26:]


class InMemory:
    """Bytes that are read in pieces, and the record of these reads."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        piece = self.data[start : start + length]
        self.reads.append((start, len(piece)))
        return piece
