"""Requirements on converted recordings: the times of what is said, the samples, and what is never taken silently."""

from __future__ import annotations

import errno
import io
import os
import random
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from airflow_speechkit.errors import RecordingError, SettingsError, SpeechKitError, StorageError, TruncatedError
from airflow_speechkit.recordings.audio.facts import AudioFacts
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.recordings.conversion.convert import OnTruncated
from airflow_speechkit.recordings.conversion.decoding import open_source
from airflow_speechkit.recordings.conversion.plan import AudioStream, plan_conversion
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings
from tests.unit.recordings.clicks import SECONDS, TIMES, converted, decoded, errors_ms, sound, written

V2, V3 = ApiVersion.V2, ApiVersion.V3
LPCM, WAV, OPUS = AudioEncoding.LINEAR16_PCM, AudioEncoding.WAV, AudioEncoding.OGG_OPUS


def convert(
    folder: Path, data: bytes, name: str, api_version: ApiVersion = V3, **about: Any
) -> tuple[bytes, AudioFacts]:
    path = folder / name
    path.write_bytes(data)
    with converted(path, api_version, **about) as (file, facts):
        return file.read(), facts


# Codec, container, rate, channels, what it becomes, and by how many ms an encoder's own delay makes it late.
KINDS = [
    ("pcm_alaw", "wav", 8_000, 2, WAV, 0),
    ("pcm_mulaw", "wav", 8_000, 1, WAV, 0),
    ("pcm_u8", "wav", 11_025, 1, WAV, 0),
    ("pcm_s24le", "wav", 44_100, 2, WAV, 0),
    ("pcm_f32le", "wav", 16_000, 2, WAV, 0),
    ("pcm_s16le", "wav", 96_000, 1, WAV, 0),
    ("pcm_s16be", "aiff", 44_100, 2, WAV, 0),
    ("pcm_s16be", "au", 8_000, 1, WAV, 0),
    ("pcm_s16le", "w64", 16_000, 2, WAV, 0),
    ("pcm_s16le", "caf", 48_000, 2, WAV, 0),
    ("flac", "flac", 44_100, 2, WAV, 0),
    ("flac", "ogg", 16_000, 1, WAV, 0),
    ("alac", "mov", 44_100, 2, WAV, 0),
    ("aac", "mp4", 44_100, 2, OPUS, 0),
    ("aac", "mov", 48_000, 1, OPUS, 0),
    ("aac", "matroska", 44_100, 2, OPUS, 0),
    ("aac", "mpegts", 44_100, 2, OPUS, 23),
    ("aac", "adts", 44_100, 2, OPUS, 23),
    ("libmp3lame", "matroska", 44_100, 2, OPUS, 0),
    ("libopus", "webm", 48_000, 2, OPUS, 0),
    ("libopus", "matroska", 16_000, 1, OPUS, 0),
    ("vorbis", "ogg", 44_100, 2, OPUS, 0),
    ("mp2", "mp2", 44_100, 2, OPUS, 11),
    ("g722", "wav", 16_000, 1, OPUS, 0),
    ("g722", "g722", 16_000, 1, OPUS, 0),
    ("ac3", "ac3", 48_000, 2, OPUS, 5),
    ("adpcm_ima_wav", "wav", 16_000, 2, OPUS, 0),
]


class TestTimes:
    @pytest.mark.parametrize(("codec", "container", "rate", "channels", "encoding", "late_ms"), KINDS)
    def test_what_is_said_keeps_its_time_and_its_channel(
        self, tmp_path: Path, codec: str, container: str, rate: int, channels: int, encoding: str, late_ms: float
    ) -> None:
        data = written(codec, container, rate, channels)
        copy, facts = convert(tmp_path, data, f"1.{container}")
        samples, copy_rate = decoded(io.BytesIO(copy))
        assert (facts.encoding, facts.channels, samples.shape[0]) == (encoding, channels, channels)
        for channel in range(channels):
            assert np.abs(errors_ms(samples, copy_rate, channel) - late_ms).max() < 7
        assert facts.duration_ms == pytest.approx(samples.shape[1] * 1000 / copy_rate, abs=14)
        assert facts.duration_ms == pytest.approx(SECONDS * 1000, abs=40)
        assert facts.size_bytes == len(copy)

    @pytest.mark.parametrize("container", ["matroska", "mp4", "mov", "mpegts"])
    def test_sound_that_begins_later_than_the_picture_is_silent_until_then(
        self, tmp_path: Path, container: str
    ) -> None:
        copy, _ = convert(tmp_path, written("aac", container, 44_100, offset_s=1.5, video=True), "1.video")
        samples, rate = decoded(io.BytesIO(copy))
        assert np.abs(samples[:, : int(1.4 * rate)]).max() < 50
        assert np.abs(errors_ms(samples, rate, 0, 1.5)).max() < 5

    @pytest.mark.parametrize(("codec", "container"), [("aac", "matroska"), ("libopus", "webm"), ("flac", "matroska")])
    def test_a_gap_is_filled_with_silence(self, tmp_path: Path, codec: str, container: str) -> None:
        video = {"video": True} if container != "webm" else {}
        data = written(codec, container, 48_000, gap=(3.0, 0.5), **video)  # type: ignore[arg-type]
        copy, facts = convert(tmp_path, data, f"1.{container}")
        samples, rate = decoded(io.BytesIO(copy))
        before = [place for place, time in enumerate(TIMES[0]) if time < 3]
        late = errors_ms(samples, rate, 0), errors_ms(samples, rate, 0, 0.5)
        for place in range(len(TIMES[0])):
            assert abs(late[0 if place in before else 1][place]) < 5
        assert facts.duration_ms == pytest.approx((SECONDS + 0.5) * 1000, abs=40)

    def test_files_that_were_joined_follow_each_other(self, tmp_path: Path) -> None:
        one = written("aac", "mpegts", 44_100)
        copy, facts = convert(tmp_path, one + one, "1.ts")
        assert facts.duration_ms == pytest.approx(2 * SECONDS * 1000, abs=200)
        samples, rate = decoded(io.BytesIO(copy))
        half = samples[:, samples.shape[1] // 2 :]
        assert np.abs(errors_ms(half, rate, 0) - 23).max() < 60


class TestSamples:
    @pytest.mark.parametrize("container", ["aiff", "w64", "caf", "flac"])
    def test_16_bit_stay_the_same(self, tmp_path: Path, container: str) -> None:
        codec = {"aiff": "pcm_s16be", "flac": "flac"}.get(container, "pcm_s16le")
        data = written(codec, container, 16_000)
        copy, facts = convert(tmp_path, data, f"1.{container}", V2)
        assert (facts.encoding, facts.sample_rate_hertz) == (LPCM, 16_000)
        expected, _ = decoded(io.BytesIO(data))
        assert np.array_equal(np.frombuffer(copy, "<i2").reshape(-1, 2).T, expected)

    def test_24_bits_are_rounded(self, tmp_path: Path) -> None:
        values = [0, 127, 128, 129, 255, 256, -128, -129, 8_388_607, -8_388_608, 1_000_000]
        path = tmp_path / "1.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 3, 16_000, 0, "NONE", ""))
            file.writeframes(b"".join(value.to_bytes(3, "little", signed=True) for value in values) * 400)
        with converted(path, V2) as (copy, _):
            found = np.frombuffer(copy.read(), "<i2")[: len(values)]
        exact = np.clip(np.array(values) / 256, -32768, 32767)
        assert np.abs(found - exact).max() <= 0.5

    def test_a_law_becomes_its_samples(self, tmp_path: Path) -> None:
        data = written("pcm_alaw", "wav", 8_000, 2)
        copy, facts = convert(tmp_path, data, "1.wav", V2)
        expected, _ = decoded(io.BytesIO(data))
        assert np.array_equal(np.frombuffer(copy, "<i2").reshape(-1, 2).T, expected)
        assert (facts.sample_rate_hertz, facts.channels, facts.duration_ms) == (8_000, 2, 8_000)

    @pytest.mark.parametrize("name", ["1.alaw", "1.al", "1.pcma"])
    def test_a_law_without_a_header_goes_by_its_name(self, tmp_path: Path, name: str) -> None:
        _, facts = convert(tmp_path, written("pcm_alaw", "alaw", 8_000, 1), name, V2)
        assert (facts.sample_rate_hertz, facts.channels, facts.duration_ms) == (8_000, 1, 8_000)

    def test_a_wav_that_is_called_gsm_is_a_wav(self, tmp_path: Path) -> None:
        _, facts = convert(tmp_path, written("pcm_alaw", "wav", 8_000, 2), "1.gsm", V2)
        assert (facts.channels, facts.duration_ms) == (2, 8_000)

    @pytest.mark.parametrize("channels", [3, 4])
    def test_channels_keep_their_order(self, tmp_path: Path, channels: int) -> None:
        for codec, container in (("flac", "flac"), ("aac", "matroska")):
            copy, facts = convert(tmp_path, written(codec, container, 48_000, channels), f"1.{container}")
            samples, rate = decoded(io.BytesIO(copy))
            assert facts.channels == channels
            for channel in range(channels):
                assert np.abs(errors_ms(samples, rate, channel)).max() < 5

    def test_a_wav_is_one_that_the_reader_takes(self, tmp_path: Path) -> None:
        copy, facts = convert(tmp_path, written("pcm_s24le", "wav", 44_100), "1.wav", V3)
        settings = RecognitionSettings(api_version=V3)
        found = read_audio(lambda start, length: copy[start : start + length], len(copy), settings)
        assert found == facts

    def test_the_same_sound_gives_the_same_bytes(self, tmp_path: Path) -> None:
        data = written("aac", "mp4", 44_100)
        assert convert(tmp_path, data, "1.mp4")[0] == convert(tmp_path, data, "2.mp4")[0]

    def test_opus_is_copied_and_not_encoded_again(self, tmp_path: Path) -> None:
        data = written("libopus", "webm", 48_000)
        copy, _ = convert(tmp_path, data, "1.webm")
        packets = []
        for file in (data, copy):
            with av.open(io.BytesIO(file)) as container:
                packets.append([bytes(one) for one in container.demux(audio=0) if one.size])
        assert packets[0] == packets[1]


class TestPlan:
    @pytest.mark.parametrize(
        ("rate", "expected"),
        [(6_000, 8_000), (8_000, 8_000), (11_025, 16_000), (22_050, 48_000), (44_100, 48_000), (96_000, 48_000)],
    )
    def test_nothing_is_lost_by_the_rate(self, rate: int, expected: int) -> None:
        stream = AudioStream(container="wav", codec="pcm_s16le", sample_rate_hertz=rate, channels=1, duration_ms=1000)
        assert plan_conversion(stream, V2).sample_rate_hertz == expected

    def test_what_would_pass_1_gb_becomes_opus(self) -> None:
        hours = 3 * 3600 * 1000
        stream = AudioStream(
            container="wav", codec="pcm_s24le", sample_rate_hertz=48_000, channels=1, duration_ms=hours
        )
        assert plan_conversion(stream, V2).encoding is LPCM
        stream = AudioStream(
            container="wav", codec="pcm_s24le", sample_rate_hertz=48_000, channels=2, duration_ms=hours
        )
        assert plan_conversion(stream, V2).encoding is OPUS

    def test_what_passes_1_gb_on_the_way_becomes_opus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # A real gigabyte would take minutes.
        monkeypatch.setattr("airflow_speechkit.recordings.conversion.encoding.MAX_BYTES", 200_000)
        copy, facts = convert(tmp_path, written("pcm_alaw", "alaw", 8_000, 1) * 2, "1.alaw", V2)
        assert (facts.encoding, facts.duration_ms) == (OPUS, 16_000)
        assert copy[:4] == b"OggS"


class TestTruncated:
    """Formats whose length nothing declares aren't among these: MPEG-TS, ADTS, MP2, AC-3."""

    @pytest.mark.parametrize(
        ("codec", "container"),
        [
            ("pcm_alaw", "wav"), ("pcm_s24le", "wav"), ("pcm_s16be", "aiff"), ("pcm_s16be", "au"), ("flac", "flac"),
            ("flac", "ogg"), ("vorbis", "ogg"), ("aac", "matroska"), ("libopus", "webm"), ("g722", "wav"),
            ("amr_nb", "amr"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("part", [0.3, 0.6])
    def test_is_refused_or_taken_to_its_end_with_a_warning(
        self, tmp_path: Path, codec: str, container: str, part: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        whole = written(codec, container, 8_000 if "amr" in codec else 16_000, 2 if codec == "vorbis" else 1)
        data = whole[: int(len(whole) * part) | 1]
        with pytest.raises(TruncatedError, match=rf"cut off|truncated|damaged.*1\.{container}.*on_truncated"):
            convert(tmp_path, data, f"1.{container}")
        _, facts = convert(tmp_path, data, f"1.{container}", on_truncated=OnTruncated.CONVERT)
        assert facts.duration_ms is not None
        assert 1_000 < facts.duration_ms < 1000 * SECONDS * (part + 0.25)
        assert f"1.{container}: " in caplog.text
        assert "What can be decoded is taken" in caplog.text

    def test_an_mp4_without_its_index_is_refused_in_any_case(self, tmp_path: Path) -> None:
        data = written("aac", "mp4", 44_100)
        with pytest.raises(RecordingError, match=r"can't be decoded.*1\.mp4"):
            convert(tmp_path, data[: len(data) // 2], "1.mp4", on_truncated=OnTruncated.CONVERT)

    def test_an_mp4_that_begins_with_its_index_is_cut_off(self, tmp_path: Path) -> None:
        data = written("aac", "mp4", 44_100, moov_size="20000")
        with pytest.raises(TruncatedError, match="cut off"):
            convert(tmp_path, data[: len(data) * 2 // 3], "1.mp4")

    def test_damage_in_the_middle_is_not_taken_silently(self, tmp_path: Path) -> None:
        data = bytearray(written("flac", "flac", 44_100))
        data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
        with pytest.raises(TruncatedError):
            convert(tmp_path, bytes(data), "1.flac")


def test_a_long_gap_takes_no_memory(tmp_path: Path) -> None:
    # Of two hours, `aresample` alone would make 900 MB of silence at once.
    path = tmp_path / "1.mkv"
    path.write_bytes(written("pcm_s16le", "matroska", 16_000, gap=(3.0, 7_200)))
    with open_source(path) as source:
        frames = [frame.samples for frame in source.samples([("aresample", "16000")], 2)]
    assert max(frames) <= 32_000
    assert sum(frames) == pytest.approx((7_200 + SECONDS) * 16_000, abs=16_000)


def test_timestamps_of_another_day_are_damaged(tmp_path: Path) -> None:
    data = written("pcm_s16le", "matroska", 8_000, gap=(3.0, 100_000))
    with pytest.raises(RecordingError, match=r"timestamps are damaged: .* gap of 28 h.*1\.mkv"):
        convert(tmp_path, data, "1.mkv", on_truncated=OnTruncated.CONVERT)


def test_an_ogg_that_joined_a_running_stream_begins_at_zero(tmp_path: Path) -> None:
    _, facts = convert(tmp_path, written("vorbis", "ogg", 44_100, offset_s=200.0), "1.ogg")
    assert facts.duration_ms == pytest.approx(SECONDS * 1000, abs=50)


def test_a_title_may_be_in_any_character_set(tmp_path: Path) -> None:
    title = b"INFOINAM\x04\0\0\0\xcf\xf0\xe8\0"
    data = written("pcm_alaw", "wav", 8_000, 1) + b"LIST" + len(title).to_bytes(4, "little") + title
    _, facts = convert(tmp_path, data, "1.wav")
    assert facts.duration_ms == SECONDS * 1000


@pytest.mark.parametrize(("codec", "container", "name"), [("flac", "flac", "flac"), ("aac", "adts", "aac")])
def test_a_tag_may_come_first(tmp_path: Path, codec: str, container: str, name: str) -> None:
    data = b"ID3\x04\0\0\0\0\x10\0" + bytes(2_048) + written(codec, container, 44_100)
    _, facts = convert(tmp_path, data, f"1.{name}")
    assert facts.duration_ms == pytest.approx(SECONDS * 1000, abs=50)


@pytest.mark.parametrize(("codec", "container"), [("alac", "matroska"), ("wavpack", "matroska")])
def test_packets_without_a_length_are_not_taken_for_missing(tmp_path: Path, codec: str, container: str) -> None:
    content = written(codec, container, 16_000)
    _, facts = convert(tmp_path, content, f"1.{container}")
    assert facts.duration_ms == SECONDS * 1000
    with pytest.raises(TruncatedError):
        convert(tmp_path, content[: len(content) // 2], f"1.{container}")


class TestStreams:
    def test_a_stream_that_there_is_not(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"`audio_stream` is 2, and the number of audio streams.* is 1.*1\.mp4"):
            convert(tmp_path, written("aac", "mp4", 44_100), "1.mp4", audio_stream=2)

    def test_another_than_the_default_stream(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with av.open(file, "w", format="matroska") as output:
            streams = [output.add_stream("pcm_s16le", rate=8_000, layout="mono") for _ in range(2)]
            for number, stream in enumerate(streams):
                samples = np.round(sound(8_000, 2)[number] * 32_000).astype("<i2")[None, :]
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 8_000, 0
                output.mux(stream.encode(frame))
        for number in (1, 2):
            copy, _ = convert(tmp_path, file.getvalue(), "1.mkv", V2, audio_stream=number)
            samples = np.frombuffer(copy, "<i2")[None, :]
            assert np.abs(errors_ms(np.vstack([samples, samples]), 8_000, number - 1)).max() < 1

    def test_a_picture_without_sound(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        with av.open(file, "w", format="matroska") as output:
            stream = output.add_stream("mpeg4", rate=5, width=16, height=16)
            for number in range(10):
                image = av.VideoFrame(16, 16, "yuv420p")
                image.pts = number
                output.mux(stream.encode(image))
            output.mux(stream.encode(None))
        with pytest.raises(RecordingError, match=r"no sound in this file.*1\.mkv"):
            convert(tmp_path, file.getvalue(), "1.mkv")


@pytest.mark.parametrize("data", [b"", b"nothing", bytes(5000), b"\x1aE\xdf\xa3" + bytes(100)])
def test_what_is_no_recording_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RecordingError, match=r"1\.mkv"):
        convert(tmp_path, data, "1.mkv")


@pytest.mark.parametrize("api_version", [V2, V3])
def test_one_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path, api_version: ApiVersion) -> None:
    data = bytearray(written("aac", "adts", 44_100))
    for place in range(7, len(data)):
        # Its frames' headers stay.
        if data[place : place + 2] != b"\xff\xf1" and not any(
            data[place - back : place - back + 2] == b"\xff\xf1" for back in range(1, 7)
        ):
            data[place] = 0xFE
    with pytest.raises(RecordingError, match=r"1\.aac"):
        convert(tmp_path, bytes(data), "1.aac", api_version)


@pytest.mark.parametrize("kind", KINDS[::3], ids=lambda kind: f"{kind[0]}-{kind[1]}")
def test_damage_of_any_kind_raises_nothing_but_our_errors(tmp_path: Path, kind: tuple[Any, ...]) -> None:
    codec, container, rate, channels, *_ = kind
    whole, chance = written(codec, container, rate, channels), random.Random(3)
    for number in range(8):
        data = bytearray(whole)
        if number % 2:
            for _ in range(6):
                data[chance.randrange(400)] = chance.randrange(256)
        else:
            place = chance.randrange(len(data))
            data[place : place + chance.randrange(4000)] = chance.randbytes(chance.randrange(3000))
        with suppress(SpeechKitError):
            _, facts = convert(tmp_path, bytes(data), f"1.{container}", on_truncated=OnTruncated.CONVERT)
            assert facts.duration_ms


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_is_an_error_that_a_retry_may_solve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    class Full(io.BytesIO):
        def __init__(self, **_: object) -> None:
            super().__init__()

        def write(self, data: Any) -> int:
            if self.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr("tempfile.NamedTemporaryFile", Full)
    for codec, container in (("pcm_alaw", "wav"), ("aac", "matroska")):
        with pytest.raises(StorageError, match=r"No space left.*1\.media.*Free some space") as full:
            convert(tmp_path, written(codec, container, 8_000 if container == "wav" else 44_100), "1.media")
        assert full.value.retry_can_help
