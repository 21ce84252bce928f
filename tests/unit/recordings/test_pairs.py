"""Requirements on pairs: which two recordings are the two sides of one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.models import Recording, RecordingAddress
from airflow_speechkit.recordings.pairs import Match, PairRules
from airflow_speechkit.recordings.places import Pair, Place
from airflow_speechkit.settings import RecognitionSettings

PATTERNS = ("{call}-in.wav", "{call}-out.wav")


def at(key: str, bucket: str = "calls") -> RecordingAddress:
    return RecordingAddress(bucket, key)


def name(place: Place) -> str:
    return place.key if isinstance(place, RecordingAddress) else str(place)


def matched(
    places: list[Any], pair: Any = PATTERNS, on_lone_side: str = "alone"
) -> list[tuple[str | tuple[str, str], tuple[int, ...]]]:
    found = PairRules.of(pair, on_lone_side, None).match(places)
    return [
        ((name(one.place.first), name(one.place.second)) if isinstance(one.place, Pair) else name(one.place), one.roles)
        for one in found
    ]


def keys(*given: str, **about: Any) -> list[tuple[str | tuple[str, str], tuple[int, ...]]]:
    return matched([at(one) for one in given], **about)


class TestWhatBelongsTogether:
    def test_the_first_pattern_is_the_first_side_in_whichever_order_they_are_listed(self) -> None:
        pair = ("1-in.wav", "1-out.wav")
        assert keys("1-in.wav", "1-out.wav") == keys("1-out.wav", "1-in.wav") == [(pair, (0, 1))]
        assert keys("1-in.wav", "1-out.wav", pair=PATTERNS[::-1]) == [(pair[::-1], (0, 1))]

    def test_a_pair_stands_where_its_first_listed_side_stands(self) -> None:
        assert keys("1-out.wav", "2-in.wav", "3.wav", "2-out.wav", "1-in.wav") == [
            (("1-in.wav", "1-out.wav"), (0, 1)),
            (("2-in.wav", "2-out.wav"), (0, 1)),
            ("3.wav", ()),
        ]

    def test_both_sides_are_in_the_same_folder_of_the_same_bucket(self) -> None:
        assert keys("a/1-in.wav", "b/1-out.wav", "b/1-in.wav") == [
            ("a/1-in.wav", (0,)),
            (("b/1-in.wav", "b/1-out.wav"), (0, 1)),
        ]
        assert len(matched([at("1-in.wav"), at("1-out.wav", "others")])) == 2

    def test_a_pattern_with_folders_is_the_end_of_the_key(self) -> None:
        pair = ("in/{call}.wav", "out/{call}.wav")
        assert keys("22/in/1.wav", "22/out/1.wav", "23/out/1.wav", "in/2.wav", "out/2.wav", pair=pair) == [
            (("22/in/1.wav", "22/out/1.wav"), (0, 1)),
            ("23/out/1.wav", (1,)),
            (("in/2.wav", "out/2.wav"), (0, 1)),
        ]
        assert keys("xin/1.wav", pair=pair) == [("xin/1.wav", ())]

    @pytest.mark.parametrize("pair", [("{call}.wav", "{call}-b.wav"), ("{call}-b.wav", "{call}.wav")])
    def test_a_key_that_matches_both_patterns_is_of_the_longer_one(self, pair: tuple[str, str]) -> None:
        [(found, roles)] = keys("1.wav", "1-b.wav", pair=pair)
        assert (found, roles) == (("1.wav", "1-b.wav") if pair[0] == "{call}.wav" else ("1-b.wav", "1.wav"), (0, 1))

    def test_of_patterns_of_equal_length_the_first_wins(self) -> None:
        assert keys("a-1-b.wav", pair=("a-{call}.wav", "{call}-b.wav")) == [("a-1-b.wav", (0,))]

    def test_several_placeholders_all_count(self) -> None:
        pair = ("{day}_rx_{call}.wav", "{day}_tx_{call}.wav")
        assert keys("22_rx_1.wav", "23_tx_1.wav", "22_tx_1.wav", pair=pair) == [
            (("22_rx_1.wav", "22_tx_1.wav"), (0, 1)),
            ("23_tx_1.wav", (1,)),
        ]

    def test_a_placeholder_that_is_there_twice_is_the_same_text(self) -> None:
        pair = ("{call}/{call}-in.wav", "{call}/{call}-out.wav")
        assert keys("1/1-in.wav", "1/1-out.wav", "1/2-in.wav", pair=pair) == [
            (("1/1-in.wav", "1/1-out.wav"), (0, 1)),
            ("1/2-in.wav", ()),
        ]

    def test_all_other_text_of_a_pattern_is_literal(self) -> None:
        assert keys("1-inxwav", "1+in.wav", "1+out.wav", pair=("{call}+in.wav", "{call}+out.wav")) == [
            ("1-inxwav", ()),
            (("1+in.wav", "1+out.wav"), (0, 1)),
        ]

    def test_a_recording_that_is_there_twice_is_one(self) -> None:
        assert keys("1-in.wav", "1-in.wav", "1-out.wav", "1-out.wav") == [(("1-in.wav", "1-out.wav"), (0, 1))]
        assert keys("1-in.wav", "1-in.wav") == [("1-in.wav", (0,))]

    def test_local_files_are_paired_too(self, tmp_path: Path) -> None:
        files = [tmp_path / "1-in.wav", tmp_path / "1-out.wav"]
        assert matched(files) == [((str(files[0]), str(files[1])), (0, 1))]

    def test_what_is_a_pair_or_an_error_already_stays(self) -> None:
        pair = Pair(at("1-in.wav"), at("2-out.wav"))
        failed = Recording(audio_uri="s3://calls/1-out.wav", version=None, settings=RecognitionSettings())
        assert PairRules.of(PATTERNS, "alone", None).match([pair, failed]) == [Match(pair, (0, 1)), Match(failed)]

    def test_without_patterns_nothing_is_paired(self) -> None:
        assert keys("1-in.wav", "1-out.wav", pair=None) == [("1-in.wav", ()), ("1-out.wav", ())]


def test_the_error_about_a_lone_side_names_the_other() -> None:
    rules = PairRules.of(PATTERNS, "fail", None)
    [lone] = rules.match([at("22/1-out.wav")])
    assert "s3://calls/22/1-in.wav" in str(lone.error)
    [lone] = PairRules.of(PATTERNS, "alone", None).match([at("22/1-out.wav")])
    assert lone.error is None


def test_labels_of_channels_are_those_of_the_sides_and_own_labels_take_precedence() -> None:
    rules = PairRules.of(PATTERNS, "alone", ["agent", "customer"])
    assert rules.with_channel_labels([(0, 1), (1,), (), (0, 1)], [{}, {"a": "b"}, {}, {"channel_1": "boss"}]) == [
        {"channel_0": "agent", "channel_1": "customer"},
        {"channel_0": "customer", "a": "b"},
        {},
        {"channel_0": "agent", "channel_1": "boss"},
    ]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("{call}-in.wav", "`pair` must be a list of two texts"),
        ("None", "`pair` must be a list of two texts"),
        (["{call}-in.wav"], "`pair` must be a list of two texts"),
        (["{call}-in.wav", "{call}-out.wav", "{call}.wav"], "`pair` must be a list of two texts"),
        (["{call}-in.wav", None], "`pair` must be a list of two texts"),
        (["in.wav", "out.wav"], "what keys end with, with placeholders"),
        (["{call-id}-in.wav", "{call-id}-out.wav"], "what keys end with, with placeholders"),
        (["s3://calls/{call}-in.wav", "s3://calls/{call}-out.wav"], "what keys end with, with placeholders"),
        (["{call}-in.wav", "{id}-out.wav"], "different placeholders"),
        (["{call}-in.wav", "{call}-in.wav"], "are the same"),
    ],
    ids=["text", "none", "one", "three", "no text", "no placeholder", "bad name", "addresses", "names", "same"],
)
def test_patterns_that_pair_nothing_are_refused(pair: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PairRules.of(pair, "alone", None)


def test_other_keywords_are_checked() -> None:
    with pytest.raises(SettingsError, match="on_lone_side"):
        PairRules.of(PATTERNS, "ignore", None)
    with pytest.raises(SettingsError, match="`channel_labels` must be a list of two texts"):
        PairRules.of(PATTERNS, "alone", "agent")
