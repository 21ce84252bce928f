"""Recordings with clicks at known times, and where the clicks are in another recording of the same sound."""

from __future__ import annotations

import io
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from airflow_speechkit.recordings.audio.facts import AudioFacts
from airflow_speechkit.recordings.conversion.convert import Converter
from airflow_speechkit.recordings.conversion.decoding import open_source
from airflow_speechkit.recordings.conversion.joining import open_pair
from airflow_speechkit.settings import ApiVersion
from tests.fixtures.environment import ROOT

#: In seconds, one list for each channel.
TIMES = ((0.5, 1.31, 2.222, 3.7, 4.85, 6.043, 7.501), (0.9, 1.777, 2.6, 3.3, 5.55, 6.66, 7.2), (2.0,), (3.0,))
SECONDS = 8.0
#: The same sound, written by other programs.
AUDIO = ROOT / "tests/fixtures/audio"
_CALLS = ROOT / "emulator/speechkit_emulator/samples"
_CLICK_S, _HERTZ = 0.02, 1000


def _click(rate: int) -> np.ndarray[Any, Any]:
    place = np.arange(round(_CLICK_S * rate))
    return np.exp(-place / (0.004 * rate)) * np.exp(2j * np.pi * _HERTZ * place / rate)


def sound(rate: int, channels: int) -> np.ndarray[Any, Any]:
    """Return the samples of a recording with clicks and a little noise, between -1 and 1, a row for each channel."""
    samples = np.random.default_rng(7).normal(scale=0.005, size=(channels, round(SECONDS * rate)))
    click = 0.7 * _click(rate).real
    for channel in range(channels):
        for time in TIMES[channel]:
            place = round(time * rate)
            samples[channel, place : place + len(click)] += click
    return samples


@contextmanager
def converted(
    paths: Path | list[Path], api_version: ApiVersion, *, audio_stream: int | None = None, **about: Any
) -> Iterator[tuple[BinaryIO, AudioFacts]]:
    """Convert a file, or join two."""
    if isinstance(paths, Path):
        opened: Any = partial(open_source, paths, audio_stream)
        name = str(paths)
    else:
        names = [str(path) for path in paths]
        opened, name = partial(open_pair, paths, names, audio_stream), names[0]
    with Converter(opened, api_version, name, **about).whole() as made:
        yield made.content, made.facts


def speech(call: str, rate: int) -> np.ndarray[Any, Any]:
    """Return the samples of one of the emulator's calls, between -1 and 1, a row for each channel."""
    with av.open(str(_CALLS / call)) as container:
        resampler = av.AudioResampler("dblp", rate=rate)
        frames = [one for frame in container.decode(audio=0) for one in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray() for frame in [*frames, *resampler.resample(None)]], axis=1)


def written(
    codec: str,
    container: str,
    rate: int,
    channels: int = 2,
    *,
    offset_s: float = 0.0,
    gap: tuple[float, float] | None = None,
    video: bool = False,
    samples: np.ndarray[Any, Any] | None = None,
    **options: str,
) -> bytes:
    """Return a recording with clicks.

    :param offset_s: when the sound begins, on the file's timeline
    :param gap: at which second of the sound its timestamps jump, and by how many seconds
    :param video: whether there is a picture that begins at zero
    :param samples: another sound in place of the clicks, between -1 and 1, a row for each channel
    :param options: the container's
    """
    if codec == "amr_nb":
        # PyAV 19 has no encoder.
        assert (rate, channels, samples) == (8_000, 1, None)
        return (AUDIO / {"amr": "pyav.amr", "3gp": "ffmpeg.3gp"}[container]).read_bytes()
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        layout = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0"}[channels]
        # Of several decoders one is still called experimental.
        stream: Any = output.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        picture: Any = output.add_stream("mpeg4", rate=5, width=16, height=16) if video else None
        kind = stream.codec_context.codec.audio_formats[0].name
        output.start_encoding()
        if picture is not None:
            for number in range(round(SECONDS * 5)):
                image = av.VideoFrame(16, 16, "yuv420p")
                image.pts = number
                output.mux(picture.encode(image))
            output.mux(picture.encode(None))
        samples = sound(rate, channels) if samples is None else samples
        step = stream.codec_context.frame_size or 1024
        to_kind = av.AudioResampler(kind, layout=layout, rate=rate)
        for start in range(0, samples.shape[1], step):
            piece = np.ascontiguousarray(samples[:, start : start + step])
            frame = av.AudioFrame.from_ndarray(piece, format="dblp", layout=layout)
            frame.sample_rate = rate
            for one in to_kind.resample(frame):
                late = offset_s + (gap[1] if gap and start >= gap[0] * rate else 0)
                one.pts, one.time_base = start + round(late * rate), Fraction(1, rate)
                output.mux(stream.encode(one))
        output.mux(stream.encode(None))
    return file.getvalue()


def decoded(file: BinaryIO) -> tuple[np.ndarray[Any, Any], int]:
    """Return all samples of a recording, a row for each channel, and its rate."""
    with av.open(file) as container:
        stream = container.streams.audio[0]
        to_samples = av.AudioResampler("s16p", rate=stream.rate)
        frames = [one for frame in container.decode(stream) for one in to_samples.resample(frame)]
        frames += to_samples.resample(None)
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), stream.rate


def errors_ms(samples: np.ndarray[Any, Any], rate: int, channel: int, late_s: float = 0.0) -> np.ndarray[Any, Any]:
    """Return how late each click of a channel is, in milliseconds."""
    click, errors = _click(rate), []
    for time in TIMES[channel]:
        if time + late_s < 0:
            # It was before what the recording has.
            continue
        begin = max(0, round((time + late_s - 0.15) * rate))
        piece = samples[channel, begin : begin + round(0.35 * rate)].astype(float)
        place = int(np.argmax(np.abs(np.correlate(piece, click, "valid"))))
        errors.append((begin + place) * 1000 / rate - (time + late_s) * 1000)
    return np.array(errors)


def wav_of(samples: np.ndarray[Any, Any], rate: int) -> bytes:
    """Return a WAV of 16-bit samples, a row for each channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((len(samples), 2, rate, 0, "NONE", ""))
        wav.writeframes(samples.T.astype("<i2").tobytes())
    return file.getvalue()


if __name__ == "__main__":
    # For tests/fixtures/audio/make.sh: RATE CHANNELS FILE
    clicks = sound(int(sys.argv[1]), int(sys.argv[2]))
    Path(sys.argv[3]).write_bytes(wav_of(np.round(clicks * 32767), int(sys.argv[1])))
