"""Silent recordings are told from those with any sound in any channel."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_speechkit.errors import RecordingError, SettingsError, StorageError
from airflow_speechkit.models import FilterReason
from airflow_speechkit.recordings.audio.facts import AudioFacts
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.recordings.conversion import decoding
from airflow_speechkit.recordings.conversion.convert import OnTruncated
from airflow_speechkit.recordings.conversion.silence import MAX_SILENT_SAMPLE, check_sound
from airflow_speechkit.recordings.filters import FilteredError, Filters
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings
from tests.unit.recordings.clicks import converted
from tests.unit.recordings.sounds import InMemory, of_samples

SECONDS, RATE = 4, 48_000
SAMPLES = SECONDS * RATE
#: What the service takes as it is, and what is converted.
TAKEN = {"ogg": ("libopus", "ogg"), "mp3": ("libmp3lame", "mp3"), "wav": ("pcm_s16le", "wav")}
CONVERTED = {"a-law": ("pcm_alaw", "wav"), "flac": ("flac", "flac"), "m4a": ("aac", "mp4"), "webm": ("libopus", "webm")}


def noise(peak: int) -> np.ndarray[Any, Any]:
    """A white noise whose loudest sample has this value."""
    found = np.random.default_rng(7).normal(size=(2, SAMPLES))
    return found * peak / np.abs(found).max()


def click() -> np.ndarray[Any, Any]:
    found = np.zeros((2, SAMPLES))
    found[1, SAMPLES - RATE : SAMPLES - RATE + 200] = 12_000
    return found


def one_speaks() -> np.ndarray[Any, Any]:
    found = np.zeros((2, SAMPLES))
    found[0, RATE:] = 3_000 * np.sin(np.arange(SAMPLES - RATE) / 30)
    return found


SOUNDS: dict[str, tuple[Callable[[], np.ndarray[Any, Any]], bool]] = {
    "zeros": (lambda: np.zeros((2, SAMPLES)), True),
    "quiet noise": (lambda: noise(60), True),
    "noise": (lambda: noise(600), False),
    "one click": (click, False),
    "one channel speaks": (one_speaks, False),
}


def pieces(data: bytes, read: list[int], length: int = 4_096) -> Generator[bytes, None, None]:
    for start in range(0, len(data), length):
        read.append(start)
        yield data[start : start + length]


def facts_of(data: bytes) -> AudioFacts:
    return read_audio(InMemory(data), len(data), RecognitionSettings())


@pytest.mark.parametrize("kind", TAKEN)
@pytest.mark.parametrize("sound", SOUNDS)
def test_what_the_service_takes_is_decoded_to_its_first_sound(kind: str, sound: str) -> None:
    samples, is_silent = SOUNDS[sound]
    data, read = of_samples(samples(), *TAKEN[kind]), list[int]()
    with pytest.raises(FilteredError) if is_silent else nullcontext() as left_out:
        check_sound(facts_of(data), pieces(data, read))
    if is_silent:
        assert left_out is not None
        assert (left_out.value.reason, left_out.value.channels) == (FilterReason.SILENT, 2)
        assert left_out.value.duration_ms == pytest.approx(SECONDS * 1000, abs=60)
        assert len(read) == -(-len(data) // 4_096)
    if sound == "noise":
        assert len(read) < -(-len(data) // 4_096) / 2, "the rest of it isn't read"


@pytest.mark.parametrize("kind", CONVERTED)
@pytest.mark.parametrize("sound", SOUNDS)
def test_what_is_converted_is_decoded_first(tmp_path: Path, kind: str, sound: str) -> None:
    samples, is_silent = SOUNDS[sound]
    path = tmp_path / "1.wav"
    path.write_bytes(of_samples(samples(), *CONVERTED[kind]))
    with (
        pytest.raises(FilteredError) if is_silent else nullcontext(),
        converted(path, ApiVersion.V2, filters=Filters(skip_silent=True)) as (_, facts),
    ):
        assert facts.duration_ms == pytest.approx(SECONDS * 1000, abs=60)


@pytest.mark.parametrize("peak", [MAX_SILENT_SAMPLE, MAX_SILENT_SAMPLE + 1, -MAX_SILENT_SAMPLE - 1, -32_768])
@pytest.mark.parametrize("length", [1, 3, 4_096])
def test_each_sample_counts_however_the_bytes_come(peak: int, length: int) -> None:
    samples = np.zeros(500, "<i2")
    samples[-1] = peak
    data = b"header\x7f" + samples.tobytes() + b"\xff\x7f of a chunk behind the samples"
    facts = AudioFacts(
        encoding=AudioEncoding.WAV,
        sample_rate_hertz=8_000,
        channels=1,
        duration_ms=63,
        size_bytes=len(data),
        data_offset=7,
        data_bytes=1_000,
    )
    with pytest.raises(FilteredError) if peak == MAX_SILENT_SAMPLE else nullcontext():
        check_sound(facts, pieces(data, [], length))


@pytest.mark.parametrize("about", [{"data_bytes": 0}, {"data_bytes": 2_000}, {"duration_ms": None}], ids=str)
def test_samples_that_are_missing_or_not_counted_are_not_taken_for_silent(about: dict[str, Any]) -> None:
    facts = facts_of(of_samples(np.zeros((1, 500)), "pcm_s16le", "wav", rate=8_000))
    check_sound(replace(facts, **about), pieces(bytes(facts.size_bytes), []))


@pytest.mark.parametrize("on_truncated", OnTruncated)
def test_one_that_is_cut_off_is_not_taken_for_silent(tmp_path: Path, on_truncated: OnTruncated) -> None:
    path = tmp_path / "1.flac"
    data = of_samples(np.concatenate([np.zeros((2, SAMPLES)), noise(9_000)], axis=1), "flac", "flac")
    path.write_bytes(data[: len(data) // 8])
    refused = pytest.raises(RecordingError, match="cut off") if on_truncated is OnTruncated.FAIL else nullcontext()
    with (
        refused,
        converted(path, ApiVersion.V2, filters=Filters(skip_silent=True), on_truncated=on_truncated) as (_, facts),
    ):
        assert facts.duration_ms


def test_what_cannot_be_decoded_is_not_taken_for_silent() -> None:
    data = of_samples(np.zeros((1, SAMPLES)), "libopus", "ogg")
    facts = facts_of(data)
    for broken in (b"", b"OggS" * 100, data[:200], b"\xff" * 5_000):
        check_sound(facts, pieces(broken, []))


def test_a_storage_in_trouble_is_an_error() -> None:
    data = of_samples(np.zeros((1, 20 * RATE)), "libmp3lame", "mp3")

    def failing() -> Generator[bytes, None, None]:
        yield data[: len(data) // 2]
        raise StorageError("The storage fails")

    with pytest.raises(StorageError):
        check_sound(facts_of(data), failing())


def test_a_declared_length_saves_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_speechkit.recordings.conversion import convert

    monkeypatch.setattr(convert, "write", lambda *_: pytest.fail("It is converted"))
    for name, (codec, container) in CONVERTED.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(of_samples(noise(9_000), codec, container))
        # WebM declares no length of the sound, and a picture may be longer.
        if name != "webm":
            with (
                pytest.raises(FilteredError, match="too_long"),
                converted(path, ApiVersion.V2, filters=Filters(max_duration_s=2)),
            ):
                pass


@pytest.mark.parametrize("pair", [False, True], ids=["alone", "pair"])
@pytest.mark.parametrize("on_truncated", OnTruncated)
def test_nothing_is_left_out_by_a_length_that_its_header_declares_by_mistake(
    tmp_path: Path, on_truncated: OnTruncated, pair: bool
) -> None:
    data = bytearray(of_samples(noise(9_000)[:1], "flac", "flac"))
    # How many samples there are: the lower half of the 36 bits in STREAMINFO.
    data[22:26] = (3600 * RATE).to_bytes(4, "big")
    path = tmp_path / "1.flac"
    path.write_bytes(data)
    given: Any = {"filters": Filters(max_duration_s=60), "on_truncated": on_truncated}
    made = converted([path, path] if pair else path, ApiVersion.V2, **given)
    refused = pytest.raises(RecordingError, match="cut off") if on_truncated is OnTruncated.FAIL else nullcontext()
    with refused, made as (_, facts):
        assert facts.duration_ms == SECONDS * 1000


@pytest.mark.parametrize(
    ("filters", "reason"),
    [(Filters(min_duration_s=5), "too_short"), (Filters(max_duration_s=SECONDS - 0.5), "too_long")],
    ids=["short", "long"],
)
@pytest.mark.parametrize("kind", CONVERTED)
def test_the_length_of_the_copy_decides(tmp_path: Path, kind: str, filters: Filters, reason: str) -> None:
    path = tmp_path / "1.wav"
    path.write_bytes(of_samples(noise(9_000), *CONVERTED[kind]))
    with pytest.raises(FilteredError, match=reason), converted(path, ApiVersion.V2, filters=filters):
        pass


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = of_samples(np.zeros((1, SAMPLES)), "libopus", "ogg")
    facts = facts_of(data)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(SettingsError, match=r"Decoding needs PyAV.*airflow-speechkit\[audio\]"):
        check_sound(facts, pieces(data, []))
    with pytest.raises(SettingsError):
        decoding.import_av()
