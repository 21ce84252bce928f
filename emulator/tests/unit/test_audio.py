"""The duration of a recording is that of its decoded samples, whatever its headers say."""

from __future__ import annotations

import io
import wave
from typing import Any

import av
import numpy
import pytest

from speechkit_emulator.audio import Facts, UndecodableError, channels_of, measure

FORMATS = {"OGG_OPUS": ("ogg", "libopus"), "MP3": ("mp3", "libmp3lame")}


def encoded(encoding: str, seconds: float, *, rate: int = 48000, layout: str = "mono") -> bytes:
    """A tone as an encoded file."""
    container_format, codec = FORMATS[encoding]
    file = io.BytesIO()
    samples = (8000 * numpy.sin(numpy.arange(int(seconds * rate)) / 20)).astype("<i2")
    channels = 2 if layout == "stereo" else 1
    with av.open(file, "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(numpy.repeat(samples, channels).reshape(1, -1), "s16", layout)
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def without_end(ogg: bytes) -> bytes:
    """An Ogg file without its last page, which marks the end."""
    return ogg[: ogg.rindex(b"OggS")]


def is_about(facts: Facts, seconds: float, channels: int = 1) -> bool:
    """Whether the duration is right, except for the encoder's padding of two frames per file."""
    return abs(facts.duration_ms - seconds * 1000) < 100 and facts.channels == channels


@pytest.mark.parametrize("encoding", ["OGG_OPUS", "MP3"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_joined_files_have_the_sum_of_their_durations(encoding: str, layout: str) -> None:
    one = encoded(encoding, 2, layout=layout)
    channels = 2 if layout == "stereo" else 1
    assert is_about(measure(one, encoding, 48000, None), 2, channels)
    # The same file three times: for Ogg, a chain of equal serial numbers.
    assert is_about(measure(3 * one, encoding, 48000, None), 6, channels)
    assert is_about(measure(encoded(encoding, 5, layout=layout) + one, encoding, 48000, None), 7, channels)


def test_a_chained_ogg_link_without_its_end_is_measured_to_its_last_page() -> None:
    short, long = encoded("OGG_OPUS", 2), without_end(encoded("OGG_OPUS", 5))
    alone = measure(long, "OGG_OPUS", 48000, None).duration_ms / 1000
    assert 3 < alone < 5
    assert is_about(measure(long + short, "OGG_OPUS", 48000, None), alone + 2)
    assert is_about(measure(long + long, "OGG_OPUS", 48000, None), 2 * alone)


def test_joined_files_can_differ_in_sample_rate_and_channels() -> None:
    mono, stereo = encoded("OGG_OPUS", 2), encoded("OGG_OPUS", 3, layout="stereo")
    assert is_about(measure(mono + stereo, "OGG_OPUS", 48000, None), 5)
    assert is_about(measure(stereo + mono, "OGG_OPUS", 48000, None), 5, 2)
    mono, stereo = encoded("MP3", 2, rate=16000), encoded("MP3", 3, layout="stereo")
    # A decoder can lose the frame at which the format changes.
    assert abs(measure(mono + stereo, "MP3", 48000, None).duration_ms - 5000) < 200
    for content, encoding, channels in ((mono + stereo, "MP3", 1), (stereo + mono, "MP3", 2)):
        decoded = channels_of(content, encoding, 48000, None)
        assert [abs(len(channel) / 32 - 5000) < 200 for channel in decoded] == channels * [True]


def test_the_duration_does_not_depend_on_a_headers_frame_count() -> None:
    mp3 = encoded("MP3", 5)
    info = next(mp3.index(name) for name in (b"Info", b"Xing") if name in mp3)
    assert mp3[info + 7] & 1, "the header has a frame count"
    three_frames = mp3[: info + 8] + (3).to_bytes(4, "big") + mp3[info + 12 :]
    assert is_about(measure(three_frames, "MP3", 48000, None), 5)


def test_damaged_frames_are_left_out() -> None:
    mp3 = encoded("MP3", 5)
    damaged = mp3[:8000] + bytes(1000) + mp3[8000:] + b"junk" * 300
    assert is_about(measure(damaged, "MP3", 48000, None), 5)
    tag = b"ID3\3\0\0\0\0\x10\0" + bytes(2048)
    assert is_about(measure(mp3 + tag + mp3, "MP3", 48000, None), 10)


@pytest.mark.parametrize("declared", [0, 40_000, 80_100, 2**32 - 1])
def test_the_duration_of_a_wav_is_that_of_its_samples(declared: int) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, 8000, 0, "NONE", ""))
        written.writeframes(bytes(80_000))
    content = file.getvalue()
    content = content[:40] + declared.to_bytes(4, "little") + content[44:]
    # With a size that is too small, a decoder does not read the other samples; 0 and the largest mean "to the end".
    seconds = 2.5 if declared == 40_000 else 5
    assert is_about(measure(content, "WAV", 48000, None), seconds)


def test_the_duration_of_raw_audio_is_that_of_its_samples() -> None:
    assert measure(bytes(64_001), "LINEAR16_PCM", 16000, 2) == Facts(1000, 2)


@pytest.mark.parametrize("encoding", ["OGG_OPUS", "MP3", "WAV"])
@pytest.mark.parametrize("content", [b"", b"OggS\x00", b"OggS\x00\x02" + bytes(100), b"ID3", b"RIFF", b"x" * 999])
def test_a_recording_without_samples_is_undecodable(encoding: str, content: bytes) -> None:
    with pytest.raises(UndecodableError):
        measure(content, encoding, 48000, None)
