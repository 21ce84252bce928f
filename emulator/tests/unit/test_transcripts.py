"""What a transcript may say, what is said of one that can't be used, and which recordings a seeded one is for."""

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


def test_a_text_alone_is_an_utterance_of_the_first_channel() -> None:
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
    said = [{"text": "one two"}, {"text": "three"}, {"text": "four", "start_ms": 9000}, {"text": "five"}]
    transcript = read({key: said if key == "utterances" else [{"utterances": said}]})
    assert [one.start_ms for one in transcript.utterances] == [0, 720, 9000, 9320]
    assert all(one.start_ms < one.end_ms for one in transcript.utterances)


@pytest.mark.parametrize("document", [{}, {"channels": []}, {"channels": [{}]}, {"utterances": []}])
def test_everything_is_optional(document: dict[str, Any]) -> None:
    assert read(document).utterances == ()


def test_an_empty_error_is_an_internal_one() -> None:
    assert read({"error": {}}).error.code == 13


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"chanels": []}, "there is no chanels; there are analyses, channels"),
        ({"channels": {}}, "the transcript.channels must be a list"),
        ({"channels": ["hello"]}, "the transcript.channels[0] must be an object"),
        ({"channels": [{"utterances": [{"txt": "a"}]}]}, "the transcript.channels[0].utterances[0]: there is no txt"),
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
def test_what_is_wrong_in_a_transcript_is_named(document: Any, says: str) -> None:
    with pytest.raises(TranscriptError) as raised:
        read(document)
    assert says in str(raised.value)


def seed(text: str, **selector: str) -> Seed:
    return read_seed({"transcript": {"utterances": [{"text": text}]}, **selector})


def found(seeds: Seeds, key: str | None, content: bytes | None = None) -> str | None:
    one = seeds.find(key, content)
    if one is None:
        return None
    one.used += 1
    return str(one.transcript.utterances[0].text)


def test_a_seed_is_for_a_key_a_glob_or_a_content() -> None:
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


def test_the_newest_counts_and_the_next_submits_take_theirs_in_order() -> None:
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
    ("value", "says"),
    [
        ({}, "transcript is required"),
        ({"transcript": {"chanels": []}}, "transcript: the transcript: there is no chanels"),
        ({"transcript": {}, "key": "a", "glob": "*"}, "give one of glob, key"),
        ({"transcript": {}, "sha256": "abc"}, "64 hexadecimal digits"),
        ({"transcript": {}, "kye": "a"}, "there is no kye"),
    ],
)
def test_a_seed_that_can_t_be_used_is_refused(value: dict[str, Any], says: str) -> None:
    with pytest.raises(BadValueError) as raised:
        read_seed(value)
    assert says in str(raised.value)
