"""Requirements on joined recordings: each side keeps its channel, its times and, where it can be, its samples."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_speechkit.errors import RecordingError, TruncatedError
from airflow_speechkit.recordings.audio.facts import AudioFacts
from airflow_speechkit.recordings.conversion.convert import OnTruncated
from airflow_speechkit.settings import ApiVersion, AudioEncoding
from tests.unit.recordings.clicks import SECONDS, TIMES, converted, decoded, errors_ms, sound, written

V2, V3 = ApiVersion.V2, ApiVersion.V3
LPCM, WAV, OPUS = AudioEncoding.LINEAR16_PCM, AudioEncoding.WAV, AudioEncoding.OGG_OPUS


def join(
    folder: Path, sides: list[tuple[str, bytes]], api_version: ApiVersion = V3, **about: Any
) -> tuple[bytes, AudioFacts]:
    paths = []
    for number, (container, data) in enumerate(sides):
        paths.append(folder / f"{number}.{container}")
        paths[-1].write_bytes(data)
    with converted(paths, api_version, **about) as (file, facts):
        return file.read(), facts


def a_wav(samples: np.ndarray[Any, Any], rate: int = 8_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(rate)
        target.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def second_side(rate: int) -> np.ndarray[Any, Any]:
    """The samples of a recording with the clicks of the second channel."""
    return np.asarray(sound(rate, 2)[1] * 30_000)


@pytest.mark.parametrize(
    ("first", "second", "encoding", "rate"),
    [
        (("pcm_alaw", "wav", 8_000), 8_000, WAV, 8_000),
        (("pcm_mulaw", "wav", 8_000), 16_000, WAV, 16_000),
        (("flac", "flac", 44_100), 8_000, WAV, 48_000),
        (("pcm_s16le", "wav", 11_025), 8_000, WAV, 16_000),
        (("aac", "mp4", 44_100), 8_000, OPUS, 48_000),
        (("libopus", "webm", 48_000), 16_000, OPUS, 48_000),
        (("libmp3lame", "mp3", 16_000), 8_000, OPUS, 48_000),
    ],
    ids=["alaw", "mulaw", "flac", "11025", "aac", "opus", "mp3"],
)
def test_each_side_is_in_its_channel_at_its_times(
    tmp_path: Path, first: tuple[str, str, int], second: int, encoding: AudioEncoding, rate: int
) -> None:
    codec, container, first_rate = first
    data = written(codec, container, first_rate, 1)
    copy, facts = join(tmp_path, [(container, data), ("wav", a_wav(second_side(second), second))])
    samples, copy_rate = decoded(io.BytesIO(copy))
    assert (facts.encoding, facts.channels, copy_rate) == (encoding, 2, rate)
    for channel in (0, 1):
        assert np.abs(errors_ms(samples, copy_rate, channel)).max() < 7
        # Nothing of the other side is in it.
        for time in TIMES[1 - channel]:
            place = round(time * copy_rate)
            if min(abs(time - own) for own in TIMES[channel]) > 0.1:
                assert np.abs(samples[channel, place : place + copy_rate // 50]).max() < 3_000
    assert facts.duration_ms == pytest.approx(SECONDS * 1000, abs=60)
    assert facts.side_ms == pytest.approx((SECONDS * 1000, SECONDS * 1000), abs=60)


@pytest.mark.parametrize("api_version", [V2, V3])
@pytest.mark.parametrize(("first_length", "second_length"), [(20_001, 8_000), (77, 24_003), (16_000, 16_000)])
def test_lossless_samples_stay_the_same_and_silence_follows_the_shorter_side(
    tmp_path: Path, api_version: ApiVersion, first_length: int, second_length: int
) -> None:
    random = np.random.default_rng(5)
    sides = [random.integers(-32_768, 32_767, length) for length in (first_length, second_length)]
    copy, facts = join(tmp_path, [("wav", a_wav(one)) for one in sides], api_version)
    length = max(first_length, second_length)
    samples = np.frombuffer(copy[facts.data_offset :], "<i2").reshape(-1, 2)
    assert facts.encoding is (LPCM if api_version is V2 else WAV)
    assert len(samples) == length
    for channel, one in enumerate(sides):
        assert (samples[: len(one), channel] == one).all()
        assert not samples[len(one) :, channel].any()
    assert facts.side_ms == (first_length // 8, second_length // 8)
    assert facts.duration_ms == -(-length // 8)


def test_sides_of_different_rates_and_lengths(tmp_path: Path) -> None:
    short = second_side(16_000)[: 16_000 * 4]
    copy, facts = join(tmp_path, [("wav", written("pcm_s16le", "wav", 8_000, 1)), ("wav", a_wav(short, 16_000))])
    samples, rate = decoded(io.BytesIO(copy))
    assert rate == 16_000
    assert facts.side_ms == (8_000, 4_000)
    assert facts.duration_ms == 8_000
    assert np.abs(errors_ms(samples, rate, 0)).max() < 5
    assert np.abs(errors_ms(samples, rate, 1)[:4]).max() < 5
    assert not samples[1, rate * 4 :].any()


def test_each_side_begins_at_its_own_zero(tmp_path: Path) -> None:
    late = written("aac", "mp4", 48_000, 1, offset_s=1.5, video=True)
    copy, _ = join(tmp_path, [("mp4", late), ("wav", a_wav(second_side(8_000)))])
    samples, rate = decoded(io.BytesIO(copy))
    assert np.abs(errors_ms(samples, rate, 0, 1.5)).max() < 7
    assert np.abs(errors_ms(samples, rate, 1)).max() < 7


@pytest.mark.parametrize("place", [0, 1])
def test_a_side_that_is_not_mono_is_refused(tmp_path: Path, place: int) -> None:
    sides = [("wav", written("pcm_s16le", "wav", 8_000, 1 + (one == place))) for one in (0, 1)]
    with pytest.raises(RecordingError, match=rf"has to be mono, and this recording has 2 channels.*{place}\.wav"):
        join(tmp_path, sides)


@pytest.mark.parametrize("place", [0, 1])
def test_a_side_that_is_cut_off_is_refused_or_taken_by_a_keyword(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    data = written("pcm_s16le", "wav", 8_000, 1)
    sides = [("wav", data[: len(data) // 2] if one == place else data) for one in (0, 1)]
    with pytest.raises(TruncatedError, match=rf"{place}\.wav.*on_truncated='convert'"):
        join(tmp_path, sides)
    _, facts = join(tmp_path, sides, on_truncated=OnTruncated.CONVERT)
    assert facts.side_ms[place] == pytest.approx(4_000, abs=10)
    assert facts.duration_ms == 8_000
    assert f"{place}.wav" in caplog.text


@pytest.mark.parametrize("place", [0, 1])
def test_the_side_that_cannot_be_decoded_is_named(tmp_path: Path, place: int) -> None:
    good = written("pcm_s16le", "wav", 8_000, 1)
    with pytest.raises(RecordingError, match=rf"can't be decoded.*{place}\.wav"):
        join(tmp_path, [("wav", b"no sound at all" * 50 if one == place else good) for one in (0, 1)])


def test_channels_add_up_to_the_four_hours(tmp_path: Path) -> None:
    long = a_wav(np.zeros(8_000 * 2 * 3_601))
    with pytest.raises(RecordingError, match="2 channels: the service takes 4 h"):
        join(tmp_path, [("wav", long), ("wav", a_wav(np.zeros(8_000)))])
