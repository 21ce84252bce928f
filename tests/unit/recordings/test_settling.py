"""Requirements on settings against facts, and on whatever is no recording at all."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts, settle
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import InMemory, encoded, mp3, ogg, wav

V2 = RecognitionSettings()
V3 = RecognitionSettings(api_version=ApiVersion.V3)
LPCM = RecognitionSettings(audio_encoding=AudioEncoding.LINEAR16_PCM, sample_rate_hertz=8000)


def facts_of(data: bytes, wanted: RecognitionSettings = V2) -> AudioFacts:
    return read_audio(InMemory(data), len(data), wanted)


def settled(data: bytes, wanted: RecognitionSettings) -> RecognitionSettings:
    return settle(wanted, facts_of(data, wanted))


@pytest.mark.parametrize("version", [V2, V3])
def test_the_format_is_filled_in_from_the_recording(version: RecognitionSettings) -> None:
    assert settled(ogg(), version) == replace(version, audio_encoding=AudioEncoding.OGG_OPUS)
    assert settled(mp3(channels=2), version) == replace(version, audio_encoding=AudioEncoding.MP3)


def test_a_wav_is_accepted_by_v3() -> None:
    assert settled(wav(44_100, 2), V3) == replace(V3, audio_encoding=AudioEncoding.WAV)


def test_v2_refuses_a_wav_and_names_the_solutions() -> None:
    for wanted in (V2, LPCM):
        with pytest.raises(RecordingError) as refused:
            settled(wav(), wanted)
        for way in ("upload_to", "LINEAR16_PCM", "api_version='v3'"):
            assert way in str(refused.value)


def test_samples_without_a_header_are_read_as_the_settings_describe() -> None:
    samples = wav(8000, 2)[-32_000:]
    stereo = replace(LPCM, audio_channel_count=2)

    assert settled(samples, LPCM) == replace(LPCM, audio_channel_count=1)
    assert settled(samples, stereo) == stereo
    assert facts_of(samples, LPCM).duration_ms == 2000
    assert facts_of(samples, stereo).duration_ms == 1000
    assert facts_of(bytes(16_000), LPCM).duration_ms == 1000


def test_samples_without_settings_are_refused_with_a_hint() -> None:
    with pytest.raises(RecordingError, match="audio_encoding='LINEAR16_PCM'` and `sample_rate_hertz`"):
        settled(wav()[-32_000:], V2)


def test_an_odd_number_of_bytes_is_not_accepted_as_lpcm() -> None:
    with pytest.raises(RecordingError, match="2 channels: it is cut off, or it isn't LPCM"):
        settled(bytes(16_002), replace(LPCM, audio_channel_count=2))


@pytest.mark.parametrize(
    ("data", "wanted", "what"),
    [
        (ogg(), replace(V2, audio_encoding=AudioEncoding.MP3), "audio_encoding is OGG_OPUS, and the setting says MP3"),
        (mp3(), LPCM, "audio_encoding is MP3, and the setting says LINEAR16_PCM"),
        (ogg(), LPCM, "is OGG_OPUS, and"),
        (wav(), replace(V3, audio_encoding=AudioEncoding.OGG_OPUS), "is WAV, and the setting says OGG_OPUS"),
        (ogg(channels=2), replace(V3, speaker_labeling=True), "this one has 2"),
    ],
)
def test_settings_that_contradict_the_recording_are_refused(
    data: bytes, wanted: RecognitionSettings, what: str
) -> None:
    with pytest.raises(RecordingError, match=what):
        settled(data, wanted)


def test_a_rate_or_channel_count_that_differs_from_the_recording_is_refused() -> None:
    facts = AudioFacts(
        encoding=AudioEncoding.LINEAR16_PCM, sample_rate_hertz=16_000, channels=2, duration_ms=1000, size_bytes=64_000
    )

    with pytest.raises(RecordingError, match="sample_rate_hertz is 16000, and the setting says 8000"):
        settle(LPCM, facts)
    with pytest.raises(RecordingError, match="audio_channel_count is 2, and the setting says 1"):
        settle(replace(LPCM, sample_rate_hertz=16_000, audio_channel_count=1), facts)
    with pytest.raises(RecordingError, match="44100 Hz isn't supported"):
        settle(V2, replace(facts, sample_rate_hertz=44_100))
    assert settle(V2, facts) == replace(
        V2, audio_encoding=AudioEncoding.LINEAR16_PCM, sample_rate_hertz=16_000, audio_channel_count=2
    )


def test_the_service_s_limits_are_enforced() -> None:
    facts = facts_of(ogg())
    longest = replace(facts, duration_ms=4 * 3_600_000, size_bytes=1024**3)

    assert settle(V2, longest)
    assert settle(V2, replace(longest, duration_ms=None))
    with pytest.raises(RecordingError, match=r"2\.10 h long and has 2 channels.*4 h at most, all channels added up"):
        settle(V2, replace(facts, channels=2, duration_ms=int(2.1 * 3_600_000)))
    with pytest.raises(RecordingError, match="1 GB at most"):
        settle(V2, replace(facts, size_bytes=1024**3 + 1))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encoded("flac", "flac", bit_rate=None), "FLAC"),
        (encoded("aac", "adts"), r"AAC \(ADTS\)"),
        (encoded("aac", "ipod"), r"AAC in MP4 \(m4a\)"),
        (encoded("aac", "mp4"), "MP4"),
        (encoded("libopus", "webm"), "WebM or Matroska"),
        (encoded("pcm_s16be", "aiff", bit_rate=None), "AIFF"),
        (encoded("pcm_s16be", "au", bit_rate=None), "Sun audio"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (encoded("aac", "3gp"), "3GP.*upload_to"),
        (encoded("pcm_u8", "voc", rate=8000, bit_rate=None), "Creative Voice"),
        (encoded("pcm_s16le", "w64", rate=8000, bit_rate=None), "Wave64"),
        (encoded("wavpack", "wv", rate=8000, sample_format="s16p", bit_rate=None), "WavPack"),
        (b"ID3\4\0\0\0\0\0\7" + bytes(7) + encoded("flac", "flac", bit_rate=None), "FLAC.*upload_to"),
        (b"\x02#!SILK_V3" + bytes(100), "SILK.*SILK decoder"),
        ((b"G" + bytes(187)) * 9, "MPEG transport stream.*upload_to"),
        (b"#!AMR\n" + bytes(100), "AMR.*upload_to"),
        (b"<!DOCTYPE html><title>502</title>", "HTML, .*error message in its place"),
        (b'{"a": 1}', "a text, .*error message in its place"),
        ("\ufeffне запись".encode(), "a text, .*error message in its place"),
        (b"\x1f\x8b\x08" + bytes(90), "a gzip archive, .*Unpack"),
        (b"%PDF-1.7\n\xe2", "a PDF document, .*Exclude it"),
        (b"\xff\xd8\xff\xe0" + bytes(90), "a JPEG picture, .*Exclude it"),
        (b"\xff\xfb\x90\xc4" + bytes(100), "begins like an MP3, and no frames of an MP3 follow.*Upload"),
        (bytes(range(256)) * 9, "no known format: it has no header of audio.*LINEAR16_PCM.*alaw.*upload_to"),
        (b"", r"empty \(0 bytes\)"),
        (bytes(50_000), "no known format.*LINEAR16_PCM"),
    ],
    ids=lambda given: given if isinstance(given, str) else f"{len(given)} bytes",
)
def test_a_file_of_another_kind_is_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(RecordingError, match=name):
        settled(data, V2)


beginnings = st.sampled_from(
    [b"", b"OggS", b"OggS\0\2", b"RIFF\0\0\0\0WAVE", b"ID3\4\0\0\0\0\0\7", b"\xff\xfb\x90\xc4"]
)
damaged = st.builds(
    lambda whole, place, junk: whole[: place % len(whole)] + junk + whole[place % len(whole) + len(junk) :],
    st.sampled_from([ogg(), mp3(rate=44_100), mp3(write_xing="0"), wav()]),
    st.integers(0, 40_000),
    st.binary(min_size=1, max_size=40),
)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(
    data=st.builds(lambda first, rest: first + rest, beginnings, st.binary(max_size=3_000)) | damaged,
    wanted=st.sampled_from([V2, V3, LPCM]),
)
@example(data=b"\xff" * 70_000, wanted=V2)
@example(data=b"OggS\0" * 14_000, wanted=V2)
def test_any_bytes_give_facts_or_a_recording_error(data: bytes, wanted: RecognitionSettings) -> None:
    with suppress(RecordingError):
        facts = facts_of(data, wanted)
        assert facts.channels > 0
        assert facts.sample_rate_hertz > 0
        assert facts.duration_ms is None or facts.duration_ms > 0
        settle(wanted, facts)


def test_a_recording_shorter_than_a_word_is_refused() -> None:
    for data in (b"\xff\xe3\x48\xc4" + bytes(284), wav(seconds=0.099), ogg(seconds=0.05)):
        with pytest.raises(RecordingError, match=r"too short: \d+ ms long.*unanswered call"):
            settled(data, V3)
    assert settled(wav(seconds=0.1), V3)


def test_an_unknown_length_that_may_exceed_the_limit_is_refused() -> None:
    facts = replace(facts_of(ogg()), duration_ms=None, longest_ms=4 * 3_600_000, notes=("its header lies",))

    assert settle(V2, facts)
    with pytest.raises(RecordingError, match="may be longer than the 4 h that the service takes; its header lies"):
        settle(V2, replace(facts, longest_ms=4 * 3_600_000 + 1))
    with pytest.raises(RecordingError, match="may be longer than the 4 h"):
        settle(V2, replace(facts, channels=2))


def test_a_text_is_not_accepted_as_lpcm() -> None:
    for text in (b"<html><body>Bad gateway</body></html>", b'{"error": "not found"}', b"not found\n"):
        with pytest.raises(RecordingError, match="error message in its place"):
            settled(text, LPCM)
