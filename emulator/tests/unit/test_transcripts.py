"""Transcripts and seeds: their fields, the errors for invalid ones, and the choice of a seed."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from speechkit_emulator.bounds import BadValueError
from speechkit_emulator.seeds import Seed, Seeds, read_seed
from speechkit_emulator.transcript import TranscriptError, read_transcript


def read(document: Any) -> Any:
    return read_transcript(json.dumps(document).encode())


def test_an_utterance_with_a_text_only_is_on_the_first_channel() -> None:
    transcript = read({"utterances": [{"text": "Привет, мир"}]})
    (utterance,) = transcript.utterances
    assert (utterance.channel, utterance.start_ms, utterance.end_ms) == (0, 0, 720)
    assert [(word.word, word.start_ms, word.end_ms) for word in utterance.words] == [
        ("привет", 0, 320),
        ("мир", 400, 720),
    ]
    assert transcript.channels == 1


@pytest.mark.parametrize("key", ["utterances", "channels"])
def test_utterances_without_times_follow_each_other(key: str) -> None:
    utterances = [{"text": "one two"}, {"text": "three"}, {"text": "four", "start_ms": 9000}, {"text": "five"}]
    transcript = read({key: utterances if key == "utterances" else [{"utterances": utterances}]})
    assert [one.start_ms for one in transcript.utterances] == [0, 720, 9000, 9320]
    assert all(one.start_ms < one.end_ms for one in transcript.utterances)


@pytest.mark.parametrize("document", [{}, {"channels": []}, {"channels": [{}]}, {"utterances": []}])
def test_all_fields_are_optional(document: dict[str, Any]) -> None:
    assert read(document).utterances == ()


def test_an_empty_error_is_an_internal_error() -> None:
    assert read({"error": {}}).error.code == 13


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"chanels": []}, "unknown field chanels; known fields: analyses, channels"),
        ({"channels": {}}, "the transcript.channels must be a list"),
        ({"channels": ["hello"]}, "the transcript.channels[0] must be an object"),
        ({"channels": [{"utterances": [{"txt": "a"}]}]}, "the transcript.channels[0].utterances[0]: unknown field txt"),
        ({"channels": [{}, {"utterances": [{"start_ms": "5"}]}]}, "channels[1].utterances[0].start_ms must be a whole"),
        ({"utterances": [{"text": "a", "channel": -1}]}, "the transcript.utterances[0].channel must be"),
        ({"utterances": [{"words": [{"word": 7}]}]}, "the transcript.utterances[0].words[0].word must be a text"),
        ({"utterances": [{"text": "a", "refined": "no"}]}, "refined must be true or false"),
        ({"utterances": [{"text": "a", "languages": ["ru"]}]}, "languages must be an object"),
        ({"duration_ms": "17s"}, "the transcript.duration_ms must be a whole number"),
        ({"error": {"code": 0}}, "the transcript.error.code must be a whole number from 1 to 16"),
        ({"utterances": [{"text": "a"}], "channels": [{"utterances": [{"text": "b"}]}]}, "keep one of them"),
        ([], "the transcript must be an object"),
        (None, "the transcript must be an object"),
    ],
)
def test_the_error_for_an_invalid_transcript_names_the_field(document: Any, message: str) -> None:
    with pytest.raises(TranscriptError) as raised:
        read(document)
    assert message in str(raised.value)


def seed(text: str, **selector: str) -> Seed:
    return read_seed({"transcript": {"utterances": [{"text": text}]}, **selector})


def found(seeds: Seeds, key: str | None, content: bytes | None = None) -> str | None:
    one = seeds.find(key, content)
    if one is None:
        return None
    one.used += 1
    return str(one.transcript.utterances[0].text)


def test_a_seed_matches_a_key_a_glob_or_a_hash() -> None:
    seeds = Seeds()
    assert not seeds.need_content
    seeds.add(seed("key", key="calls/[1].ogg"))
    seeds.add(seed("content", sha256=sha256(b"audio").hexdigest().upper()))
    assert seeds.need_content
    assert found(seeds, "calls/[1].ogg") == "key"
    assert found(seeds, "calls/1.ogg") is None
    assert found(seeds, "elsewhere.ogg", b"audio") == "content"
    assert found(seeds, None, b"audio") == "content"
    assert found(seeds, None, b"other") is None
    seeds.add(seed("glob", glob="calls/*.ogg"))
    assert found(seeds, "calls/2026/1.ogg") == "glob"
    assert found(seeds, "other/1.ogg") is None


def test_seeds_for_the_next_submit_are_used_in_order_then_the_newest_match() -> None:
    seeds = Seeds()
    seeds.add(seed("old", key="1.ogg"))
    seeds.add(seed("new", key="1.ogg"))
    seeds.add(seed("first"))
    seeds.add(seed("second"))
    assert [found(seeds, "1.ogg") for _ in range(4)] == ["first", "second", "new", "new"]
    assert seeds.clear(2) == 1
    assert found(seeds, "1.ogg") == "old"
    assert seeds.clear() == 3
    assert found(seeds, "1.ogg") is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "transcript is required"),
        ({"transcript": {"chanels": []}}, "transcript: the transcript: unknown field chanels"),
        ({"transcript": {}, "key": "a", "glob": "*"}, "give only one of glob, key"),
        ({"transcript": {}, "sha256": "abc"}, "64 hexadecimal digits"),
        ({"transcript": {}, "kye": "a"}, "unknown field kye"),
    ],
)
def test_an_invalid_seed_is_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValueError) as raised:
        read_seed(value)
    assert message in str(raised.value)
