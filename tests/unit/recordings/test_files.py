"""Requirements on files that are inspected and converted without Airflow: what is reported is what is submitted."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import av
import pytest

from airflow_speechkit.errors import RecordingError, SettingsError, StorageError, TruncatedError
from airflow_speechkit.models import RecordingAddress
from airflow_speechkit.recordings.bucket import Bucket
from airflow_speechkit.recordings.conversion.copies import CopyFolder
from airflow_speechkit.recordings.cost import billed_seconds
from airflow_speechkit.recordings.files import Action, convert_file, inspect_file
from airflow_speechkit.recordings.upload import upload_local
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings
from tests.unit.recordings.clicks import written
from tests.unit.recordings.sounds import mp3, ogg, wav, wav_format, wav_of_chunks

V2, V3 = RecognitionSettings(), RecognitionSettings(api_version=ApiVersion.V3)
LPCM, WAV, OPUS, MP3 = AudioEncoding.LINEAR16_PCM, AudioEncoding.WAV, AudioEncoding.OGG_OPUS, AudioEncoding.MP3
SUBMIT, CONVERT, REFUSE = Action.SUBMIT, Action.CONVERT, Action.REFUSE


def saved(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def picture() -> bytes:
    """A video without sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("mpeg4", rate=5, width=16, height=16)
        for number in range(10):
            image = av.VideoFrame(16, 16, "yuv420p")
            image.pts = number
            output.mux(stream.encode(image))
        output.mux(stream.encode(None))
    return file.getvalue()


#: Name, codec, container, rate, channels, the format that is reported, what it becomes with v2 and v3 (None: nothing).
KINDS = [
    ("1.wav", "pcm_s16le", "wav", 8_000, 2, "WAV", LPCM, None),
    ("cd.wav", "pcm_s16le", "wav", 44_100, 1, None, LPCM, None),
    ("1.ogg", "libopus", "ogg", 48_000, 1, "OGG_OPUS", None, None),
    ("1.mp3", "libmp3lame", "mp3", 44_100, 2, "MP3", None, None),
    ("alaw.wav", "pcm_alaw", "wav", 8_000, 2, "pcm_alaw in wav", LPCM, WAV),
    ("1.alaw", "pcm_alaw", "alaw", 8_000, 1, "pcm_alaw", LPCM, WAV),
    ("24.wav", "pcm_s24le", "wav", 44_100, 2, "pcm_s24le in wav", LPCM, WAV),
    ("1.flac", "flac", "flac", 44_100, 2, "flac", LPCM, WAV),
    ("1.m4a", "aac", "mp4", 44_100, 2, "aac in m4a", OPUS, OPUS),
    ("1.mov", "alac", "mov", 44_100, 2, "alac in mov", LPCM, WAV),
    ("1.mkv", "aac", "matroska", 44_100, 2, "aac in matroska", OPUS, OPUS),
    ("1.webm", "libopus", "webm", 48_000, 2, "opus in webm", OPUS, OPUS),
    ("1.ts", "aac", "mpegts", 44_100, 2, "aac in mpegts", OPUS, OPUS),
    ("vorbis.ogg", "vorbis", "ogg", 44_100, 2, "vorbis in ogg", OPUS, OPUS),
    ("1.mp2", "mp2", "mp2", 44_100, 2, "mp2", OPUS, OPUS),
    ("1.amr", "amr_nb", "amr", 8_000, 1, "amr_nb in amr", OPUS, OPUS),
]


class TestReports:
    @pytest.mark.parametrize("settings", [V2, V3], ids=["v2", "v3"])
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
    def test_a_report_is_what_the_operator_submits(
        self, s3_client: Any, tmp_path: Path, kind: tuple[Any, ...], settings: RecognitionSettings
    ) -> None:
        name, codec, container, rate, channels, format_, with_v2, with_v3 = kind
        path = saved(tmp_path, name, written(codec, container, rate, channels))
        report = inspect_file(path, settings)

        s3_client.create_bucket(Bucket="calls", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
        bucket, folder = Bucket(s3_client), RecordingAddress("calls", "in/", "own")
        facts = upload_local(CopyFolder(bucket, folder, settings), path).facts
        becomes = with_v2 if settings is V2 else with_v3
        assert (report.action, report.converted_to) == (CONVERT if becomes else SUBMIT, becomes)
        assert facts.encoding == (becomes or report.format)
        assert report.format == format_ or (format_ is None and report.format in ("pcm_s16le in wav", "WAV"))
        assert (report.sample_rate_hertz, report.channels, report.error) == (rate, channels, None)
        assert report.channels == facts.channels
        assert report.duration_ms is not None
        assert facts.duration_ms is not None
        # Opus that is copied begins with what a decoder leaves out.
        assert report.duration_ms == pytest.approx(facts.duration_ms, abs=14 if codec == "libopus" else 1)
        assert report.billed_seconds == billed_seconds(report.duration_ms, channels)

    def test_samples_without_a_header_are_what_the_settings_say(self, tmp_path: Path) -> None:
        path = saved(tmp_path, "1.lpcm", bytes(2 * 2 * 16_000 * 20))
        settings = RecognitionSettings(audio_encoding="LINEAR16_PCM", sample_rate_hertz=16_000, audio_channel_count=2)
        report = inspect_file(path, settings)
        assert (report.action, report.format, report.duration_ms, report.billed_seconds) == (SUBMIT, LPCM, 20_000, 20)
        unknown = inspect_file(path)
        assert unknown.action is REFUSE
        assert "audio_encoding='LINEAR16_PCM'" in str(unknown.error)

    def test_an_unknown_length_has_no_cost(self, tmp_path: Path) -> None:
        data = wav_of_chunks((b"fmt ", wav_format(8000)), (b"data", b"ab" * 8000)) + b"cd" * 24_000
        report = inspect_file(saved(tmp_path, "1.wav", data), V3)
        assert (report.action, report.duration_ms, report.billed_seconds) == (SUBMIT, None, None)


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("1.ogg", b"", "empty"),
            ("1.wav", b"no such call", "a text"),
            ("1.mp4", b"\0\0\0\x18ftypisom" + bytes(400), r"ISO|MP4.*can't be decoded"),
            ("1.mkv", picture(), "no sound in this file"),
            ("1.mp3", mp3(seconds=10)[:-9_000], "truncated"),
            ("1.ogg", ogg(seconds=10)[:-9_000], "truncated|cut"),
            ("1.dat", bytes(5000), "no known format.*audio_encoding='LINEAR16_PCM'"),
            # By that name libavformat takes them for pictures.
            ("1.raw", b"\x12\x34" * 5000, "no known format.*audio_encoding='LINEAR16_PCM'"),
        ],
        ids=["empty", "text", "mp4", "picture", "mp3", "ogg", "zeros", "samples"],
    )
    @pytest.mark.parametrize("settings", [V2, V3], ids=["v2", "v3"])
    def test_a_file_that_is_not_taken_is_reported_and_not_converted(
        self, tmp_path: Path, name: str, data: bytes, message: str, settings: RecognitionSettings
    ) -> None:
        path = saved(tmp_path, name, data)
        with pytest.raises(RecordingError, match=message) as refused:
            convert_file(path, tmp_path / "to", settings)
        report = inspect_file(path, settings)
        assert (report.action, report.billed_seconds) == (REFUSE, None)
        assert str(report.error) == str(refused.value)
        assert report.error.recording == str(path)  # type: ignore[union-attr]
        assert not (tmp_path / "to").exists()

    def test_other_files_that_it_names_are_not_read(self, tmp_path: Path) -> None:
        saved(tmp_path, "other.wav", wav())
        path = saved(tmp_path, "1.wav", b"ffconcat version 1.0\n#\0\nfile other.wav\n")
        with pytest.raises(RecordingError, match="a list of other files"):
            convert_file(path, tmp_path / "to")

    @pytest.mark.timeout(20)
    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "1.wav")
        with pytest.raises(RecordingError, match="isn't a regular file"):
            convert_file(tmp_path / "1.wav", tmp_path / "to")

    def test_its_name_is_not_a_protocol(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        path = saved(Path(), "http:1.flac", written("flac", "flac", 16_000, 1))
        assert inspect_file(path).error is None

    @pytest.mark.parametrize(
        ("codec", "container"), [("flac", "flac"), ("pcm_alaw", "wav"), ("aac", "matroska"), ("libopus", "webm")]
    )
    def test_a_file_that_is_cut_off_is_converted_only_on_request(
        self, tmp_path: Path, codec: str, container: str
    ) -> None:
        whole = written(codec, container, 16_000, 1)
        path = saved(tmp_path, f"1.{container}", whole[: len(whole) // 2 | 1])
        report = inspect_file(path)
        assert isinstance(report.error, TruncatedError)
        with pytest.raises(TruncatedError):
            convert_file(path, tmp_path / "to")
        copy = convert_file(path, tmp_path / "to", on_truncated="convert")
        assert 2_000 < (copy.duration_ms or 0) < 6_000
        assert report.duration_ms in (None, pytest.approx(copy.duration_ms, abs=14))

    def test_damage_in_the_middle_is_found(self, tmp_path: Path) -> None:
        data = bytearray(written("flac", "flac", 44_100))
        data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
        report = inspect_file(saved(tmp_path, "1.flac", bytes(data)))
        assert isinstance(report.error, TruncatedError)
        assert (report.action, report.format, report.channels) == (REFUSE, "flac", 2)

    @pytest.mark.parametrize(
        ("form", "seconds", "channels"),
        [(wav_format(), 5 * 3600, 1), (wav_format(1_000, 16, form=6, bits=8), 1_200, 16)],
        ids=["as it is", "A-law"],
    )
    def test_a_long_recording_is_reported_with_its_length(
        self, tmp_path: Path, form: bytes, seconds: int, channels: int
    ) -> None:
        count = seconds * int.from_bytes(form[8:12], "little")
        path = saved(tmp_path, "1.wav", wav_of_chunks((b"fmt ", form)) + b"data" + count.to_bytes(4, "little"))
        with path.open("r+b") as file:
            # Its samples take no space.
            file.truncate(path.stat().st_size + count)
        report = inspect_file(path, V3)
        assert (report.action, report.duration_ms, report.channels) == (REFUSE, seconds * 1000, channels)
        assert report.billed_seconds is None
        assert "the service takes 4 h at most" in str(report.error)

    @pytest.mark.parametrize("missing", ["no such file", "folder"])
    def test_what_is_no_file(self, tmp_path: Path, missing: str) -> None:
        (tmp_path / "folder").mkdir()
        report = inspect_file(tmp_path / missing)
        assert "No such file" in str(report.error) or "a regular file" in str(report.error)

    def test_the_settings_hold_for_the_copy_too(self, tmp_path: Path) -> None:
        settings = RecognitionSettings(api_version="v3", speaker_labeling=True)
        path = saved(tmp_path, "1.flac", written("flac", "flac", 16_000))
        assert "`speaker_labeling`" in str(inspect_file(path, settings).error)
        with pytest.raises(RecordingError, match="`speaker_labeling`"):
            convert_file(path, tmp_path / "to", settings)

    @pytest.mark.parametrize("number", [0, 2])
    @pytest.mark.parametrize("container", ["ogg", "matroska"])
    def test_an_audio_stream_that_there_is_not(self, tmp_path: Path, number: int, container: str) -> None:
        path = saved(tmp_path, f"1.{container}", written("libopus", container, 48_000, 1))
        report = inspect_file(path, audio_stream=number)
        assert isinstance(report.error, SettingsError)
        with pytest.raises(SettingsError, match="`audio_stream`"):
            convert_file(path, tmp_path, audio_stream=number)


class TestCopies:
    @pytest.mark.parametrize(("codec", "container"), [("pcm_alaw", "wav"), ("aac", "mp4"), ("flac", "flac")])
    @pytest.mark.parametrize("settings", [V2, V3], ids=["v2", "v3"])
    def test_a_copy_is_taken_as_it_is(
        self, tmp_path: Path, codec: str, container: str, settings: RecognitionSettings
    ) -> None:
        path = saved(tmp_path, f"call.1.{container}", written(codec, container, 16_000))
        copy = convert_file(path, tmp_path / "to" / "here", settings)
        about: dict[str, Any] = {}
        if copy.encoding is LPCM:
            about = {"sample_rate_hertz": copy.sample_rate_hertz, "audio_channel_count": copy.channels}
        as_it_is = RecognitionSettings(api_version=settings.api_version, audio_encoding=copy.encoding, **about)
        report = inspect_file(copy.path, as_it_is)
        assert (report.action, report.format) == (SUBMIT, copy.encoding)
        assert (report.duration_ms, report.channels) == (copy.duration_ms, copy.channels)
        assert copy.path.parent == tmp_path / "to" / "here"
        assert [one.name for one in copy.path.parent.iterdir()] == [f"call.1{copy.path.suffix}"]
        assert copy.path.suffix == {LPCM: ".lpcm", WAV: ".wav", OPUS: ".ogg"}[copy.encoding]

    def test_no_file_is_overwritten(self, tmp_path: Path) -> None:
        data = written("pcm_alaw", "wav", 8_000)
        path = saved(tmp_path, "1.wav", data)
        with pytest.raises(StorageError, match=r"1\.wav exists already") as exists:
            convert_file(path, tmp_path, V3)
        assert not exists.value.retry_can_help
        assert path.read_bytes() == data
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_that_can_not_be_written(self, tmp_path: Path) -> None:
        path = saved(tmp_path, "1.wav", written("pcm_alaw", "wav", 8_000))
        with pytest.raises(StorageError, match="can't be written"):
            convert_file(path, path)

    @pytest.mark.parametrize(("data", "settings"), [(wav(seconds=1), V3), (mp3(), V2), (ogg(), V2)])
    def test_a_file_that_the_api_takes_is_not_converted(
        self, tmp_path: Path, data: bytes, settings: RecognitionSettings
    ) -> None:
        with pytest.raises(RecordingError, match=r"takes this file as it is .*1\.audio.* Submit it unchanged"):
            convert_file(saved(tmp_path, "1.audio", data), tmp_path / "to", settings)

    def test_an_unknown_choice(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="`on_truncated` must be one of fail, convert"):
            convert_file(tmp_path / "1.flac", tmp_path, on_truncated="maybe")


class TestWithoutTheExtra:
    @pytest.fixture(autouse=True)
    def _no_av(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # As Python does where a module isn't installed.
        monkeypatch.setitem(sys.modules, "av", None)

    def test_what_the_api_takes_is_reported(self, tmp_path: Path) -> None:
        for name, data in (("1.mp3", mp3()), ("1.ogg", ogg()), ("1.wav", wav(seconds=1))):
            assert inspect_file(saved(tmp_path, name, data), V3).action is SUBMIT

    def test_the_others_name_the_extra(self, tmp_path: Path) -> None:
        path = saved(tmp_path, "1.flac", b"fLaC" + bytes(5000))
        report = inspect_file(path)
        assert report.action is REFUSE
        assert "pip install 'airflow-speechkit[audio]'" in str(report.error)
        with pytest.raises(SettingsError, match="audio"):
            convert_file(path, tmp_path)

    def test_a_wav_is_unwrapped(self, tmp_path: Path) -> None:
        data = wav(16_000, 2, seconds=1)
        path = saved(tmp_path, "1.wav", data)
        assert (inspect_file(path).action, inspect_file(path).converted_to) == (CONVERT, LPCM)
        copy = convert_file(path, tmp_path)
        assert copy.path.read_bytes() == data[-2 * 2 * 16_000 :]
        assert (copy.sample_rate_hertz, copy.channels, copy.duration_ms) == (16_000, 2, 1000)
