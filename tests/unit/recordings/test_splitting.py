"""A recording that is longer than the service takes: where it is cut, and what its parts are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from airflow_speechkit.errors import TooLongError, TruncatedError
from airflow_speechkit.recordings.audio import facts as limits
from airflow_speechkit.recordings.conversion.convert import PIECE_MS, Converted, Converter, OnTruncated, cuts_ms
from airflow_speechkit.recordings.conversion.decoding import open_source
from airflow_speechkit.settings import ApiVersion, AudioEncoding
from tests.unit.recordings.clicks import SECONDS, converted, decoded, errors_ms, written

V2, V3 = ApiVersion.V2, ApiVersion.V3
HOUR_MS = 3_600_000


def loudness(hours: float, *quiet_ms: int) -> np.ndarray[Any, Any]:
    values = np.full(round(hours * HOUR_MS / PIECE_MS), 100.0)
    for place in quiet_ms:
        values[(place - 300) // PIECE_MS : (place + 300) // PIECE_MS] = 0.0
    return values


def test_it_is_cut_in_the_middle_of_the_quietest_stretch_before_the_limit() -> None:
    quiet = 4 * HOUR_MS - 100_000
    [cut] = cuts_ms(loudness(5, HOUR_MS, quiet), 4 * HOUR_MS)
    assert abs(cut - quiet) <= 100


def test_parts_are_never_longer_than_the_limit_and_cover_everything() -> None:
    values = np.random.default_rng(3).random(round(23 * HOUR_MS / PIECE_MS))
    cuts = cuts_ms(values, 2 * HOUR_MS)
    edges = [0, *cuts, 23 * HOUR_MS]
    lengths = np.diff(edges)
    assert (lengths > 0).all()
    assert (lengths <= 2 * HOUR_MS).all()
    assert len(cuts) == 11 or len(cuts) == 12


def test_without_any_pause_it_is_cut_before_the_limit_all_the_same() -> None:
    [cut] = cuts_ms(loudness(5), 4 * HOUR_MS)
    assert 4 * HOUR_MS - 1000 < cut <= 4 * HOUR_MS


@pytest.mark.parametrize("hours", [0, 1, 4])
def test_what_is_short_enough_is_not_cut(hours: int) -> None:
    assert cuts_ms(loudness(hours), 4 * HOUR_MS) == []


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service takes 4 s of stereo."""
    monkeypatch.setattr(limits, "MAX_CHANNEL_MS", 8_000)


def parts_of(path: Path, api_version: ApiVersion, **keywords: Any) -> Iterator[Converted]:
    return Converter(partial(open_source, path), api_version, path.name, **keywords).parts()


def samples_of(content: bytes, rate: int, channels: int = 2) -> np.ndarray[Any, Any]:
    form = {"format": "s16le", "options": {"sample_rate": str(rate), "ch_layout": "stereo"}}
    with av.open(io.BytesIO(content), **form) as file:  # type: ignore[call-overload]
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1).reshape(-1, channels)


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_lossless_parts_put_together_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int) -> None:
    path = tmp_path / "long.flac"
    path.write_bytes(written("flac", "flac", rate))
    parts = [(one.content.read(), one) for one in parts_of(path, V2)]
    monkeypatch.setattr(limits, "MAX_CHANNEL_MS", 4 * HOUR_MS)
    with converted(path, V2) as (content, facts):
        whole = content.read()
    assert b"".join(raw for raw, _ in parts) == whole
    assert [one.of for _, one in parts] == [len(parts)] * len(parts)
    assert len(parts) == 3
    ends = [one.start_ms + (one.facts.duration_ms or 0) for _, one in parts]
    assert ends == [one.start_ms for _, one in parts[1:]] + [facts.duration_ms]


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize(("codec", "container", "rate"), [("aac", "mp4", 44_100), ("libopus", "webm", 48_000)])
def test_words_keep_their_time_in_lossy_parts(tmp_path: Path, codec: str, container: str, rate: int) -> None:
    path = tmp_path / f"long.{container}"
    path.write_bytes(written(codec, container, rate))
    pieces: list[Any] = []
    for part in parts_of(path, V3):
        assert part.facts.encoding is AudioEncoding.OGG_OPUS
        assert (part.facts.duration_ms or 0) * 2 <= limits.MAX_CHANNEL_MS
        samples, rate_hertz = decoded(part.content)
        place = part.start_ms * rate_hertz // 1000
        together = np.concatenate([*pieces, np.zeros((2, 0))], axis=1)[:, :place]
        assert together.shape[1] == place
        pieces = [together, samples]
    together = np.concatenate(pieces, axis=1)
    for channel in (0, 1):
        assert np.abs(errors_ms(together, rate_hertz, channel)).max() < 20


@pytest.mark.usefixtures("short_limit")
def test_what_declares_its_length_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(written("pcm_alaw", "wav", 8_000))
    with pytest.raises(TooLongError, match="2 channels") as refused, converted(path, V2):
        pass
    assert "split=True" in (refused.value.hint or "")


@pytest.mark.usefixtures("short_limit")
def test_a_truncated_one_is_refused_or_taken_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    content = written("flac", "flac", 16_000)
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(TruncatedError):
        list(parts_of(path, V3))
    parts = [one.facts.duration_ms or 0 for one in parts_of(path, V3, on_truncated=OnTruncated.CONVERT)]
    assert len(parts) > 1
    assert sum(parts) < SECONDS * 1000
