"""Requirements on lossy recordings that become OggOpus: no sample moves, and no channel is heard in another."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_speechkit.settings import ApiVersion, AudioEncoding
from tests.unit.recordings.clicks import AUDIO, converted, decoded, speech, written

#: One of two speakers.
CALL = "doctor.ogg"
#: Where both are compared.
HERTZ = 8_000
#: A word's time is right to this; nearly all kinds have no lag at all.
MOST_LAG_MS = 20

#: Codec, container, rate, channels.
KINDS = [
    ("aac", "mp4", 44_100, 2),
    ("aac", "matroska", 48_000, 2),
    ("aac", "mpegts", 44_100, 2),
    ("aac", "adts", 44_100, 2),
    ("libmp3lame", "matroska", 44_100, 2),
    ("libopus", "webm", 48_000, 2),
    ("vorbis", "ogg", 44_100, 2),
    ("mp2", "mp2", 44_100, 2),
    ("ac3", "ac3", 48_000, 2),
    ("adpcm_ima_wav", "wav", 16_000, 2),
    ("g722", "wav", 16_000, 1),
    ("amr_nb", "3gp", 8_000, 1),
]


def convert(folder: Path, content: bytes, container: str) -> np.ndarray[Any, Any]:
    path = folder / f"1.{container}"
    path.write_bytes(content)
    with converted(path, ApiVersion.V3) as (copy, facts):
        assert facts.encoding is AudioEncoding.OGG_OPUS
        return at_one_rate(*decoded(copy))


def at_one_rate(samples: np.ndarray[Any, Any], rate: int) -> np.ndarray[Any, Any]:
    """Return samples at the rate at which they are compared. What is above doesn't matter for a lag."""
    places = np.arange(0, samples.shape[1] - 1, rate / HERTZ)
    return np.vstack([np.interp(places, np.arange(samples.shape[1]), channel) for channel in samples])


def lag_ms(samples: np.ndarray[Any, Any], late: np.ndarray[Any, Any]) -> float:
    """Return where the cross-correlation of two signals is highest: how much later the second one is."""
    size = 1 << (len(samples) + len(late)).bit_length()
    product = np.fft.rfft(late, size) * np.conj(np.fft.rfft(samples, size))
    place = int(np.argmax(np.fft.irfft(product, size)))
    return (place if place < size // 2 else place - size) * 1000 / HERTZ


@pytest.mark.parametrize(("codec", "container", "rate", "channels"), KINDS)
def test_no_sample_moves(tmp_path: Path, codec: str, container: str, rate: int, channels: int) -> None:
    samples = None if codec == "amr_nb" else speech(CALL, rate)[:channels]
    content = written(codec, container, rate, channels, samples=samples)
    own = at_one_rate(*decoded(io.BytesIO(content)))
    copy = convert(tmp_path, content, container)
    assert len(own) == len(copy) == channels
    for channel in range(channels):
        assert abs(lag_ms(own[channel], copy[channel])) <= MOST_LAG_MS
        # Nobody is in the other's channel.
        heard = [abs(np.corrcoef(own[channel][: copy.shape[1]], one[: own.shape[1]])[0, 1]) for one in copy]
        assert int(np.argmax(heard)) == channel


def test_no_sample_of_vorbis_moves_where_its_blocks_become_shorter(tmp_path: Path) -> None:
    # libavformat dates each such block 10 ms late. That is no gap.
    content = (AUDIO / "libvorbis.ogg").read_bytes()
    own = at_one_rate(*decoded(io.BytesIO(content)))
    copy = convert(tmp_path, content, "ogg")
    assert copy.shape[1] == pytest.approx(own.shape[1], abs=HERTZ / 100)
    for second in (0, 1):
        there = slice(second * HERTZ, (second + 1) * HERTZ)
        assert lag_ms(own[0][there], copy[0][there]) == 0


@pytest.mark.parametrize("silent", [0, 1])
@pytest.mark.parametrize(("codec", "container"), [("aac", "mp4"), ("adpcm_ima_wav", "wav")])
def test_a_channel_is_not_heard_in_another(tmp_path: Path, codec: str, container: str, silent: int) -> None:
    samples = speech(CALL, 16_000)
    samples[silent] = 0
    copy = convert(tmp_path, written(codec, container, 16_000, samples=samples), container)
    power = np.mean(copy**2, axis=1)
    # 40 dB are a ten-thousandth of the power.
    assert power[silent] <= power[1 - silent] / 10_000
