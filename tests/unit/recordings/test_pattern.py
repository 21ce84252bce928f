"""Requirements on prefixes and globs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.pattern import is_pattern, parse_pattern

KEYS = [
    "2026-11-01/1.ogg",
    "2026-11-01/2.mp3",
    "2026-11-02/deep/3.ogg",
    "2026-12-01/4.ogg",
    "calls.ogg",
    "what?.ogg",
    "whats.ogg",
]


def matching(text: str) -> list[str]:
    pattern = parse_pattern(text)
    assert all(key.startswith(pattern.prefix) for key in KEYS if pattern.matches(key))
    return [key for key in KEYS if pattern.matches(key)]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("s3://b", KEYS),
        ("s3://b/", KEYS),
        ("s3://b/2026-11-02/", ["2026-11-02/deep/3.ogg"]),
        ("s3://b/2026-11-*/", ["2026-11-01/1.ogg", "2026-11-01/2.mp3", "2026-11-02/deep/3.ogg"]),
        ("s3://b/*.ogg", ["calls.ogg", "what?.ogg", "whats.ogg"]),
        ("s3://b/*/*.ogg", ["2026-11-01/1.ogg", "2026-12-01/4.ogg"]),
        ("s3://b/**/*.mp3", ["2026-11-01/2.mp3"]),
        ("s3://b/**/*.ogg", [key for key in KEYS if key.endswith(".ogg")]),
        ("s3://b/2026-*/**/3.ogg", ["2026-11-02/deep/3.ogg"]),
        ("s3://b/**/deep/**", ["2026-11-02/deep/3.ogg"]),
        ("s3://b/2026-1[12]-01/*", ["2026-11-01/1.ogg", "2026-11-01/2.mp3", "2026-12-01/4.ogg"]),
        ("s3://b/2026-1[!1]-01/*", ["2026-12-01/4.ogg"]),
        ("s3://b/*/[1-3].ogg", ["2026-11-01/1.ogg"]),
        ("s3://b/what?.ogg", ["what?.ogg", "whats.ogg"]),
        ("s3://b/what[?].ogg", ["what?.ogg"]),
        ("s3://b/*/*.{ogg,mp3}", [key for key in KEYS if key.startswith("2026") and "deep" not in key]),
        ("s3://b/2026-11-{01,02}/", KEYS[:3]),
        ("s3://b/2026-1{1-0{1,2}/*,2-01/4}.{ogg,mp3}", [*KEYS[:2], KEYS[3]]),
        ("s3://b/{calls,whats}.ogg", ["calls.ogg", "whats.ogg"]),
        ("s3://b/{2026-11-02/,cal}**", ["2026-11-02/deep/3.ogg", "calls.ogg"]),
        ("s3://b/what{,s,?}.ogg", ["what?.ogg", "whats.ogg"]),
        ("s3://b/[{]calls,whats}.ogg*", []),
        ("s3://b/[", []),
        ("s3://b/2026-11-01[/]*", []),
    ],
)
def test_a_pattern_matches_exactly_these_keys(text: str, keys: list[str]) -> None:
    assert is_pattern(text)
    assert matching(text) == keys


@pytest.mark.parametrize(
    ("text", "folder", "is_prefix"),
    [
        ("s3://b", "", True),
        ("s3://b/calls/2026/", "calls/2026/", True),
        ("s3://b/calls/2026-*/", "calls/", True),
        ("s3://b/calls/2026-*/1.ogg", "calls/", False),
        ("s3://conn@b/1?.ogg", "", False),
    ],
)
def test_a_pattern_has_a_folder(text: str, folder: str, is_prefix: bool) -> None:
    pattern = parse_pattern(text)
    assert (pattern.folder, pattern.is_prefix) == (folder, is_prefix)
    assert pattern.conn_id == ("conn" if "@" in text else None)


@pytest.mark.parametrize(
    "text", ["s3://b/1.ogg", "https://storage.yandexcloud.net/b/*.ogg", "https://host/b/", "/calls/*.ogg", "", "s3:/b/"]
)
def test_the_address_of_one_recording_is_no_pattern(text: str) -> None:
    assert not is_pattern(text)


@pytest.mark.parametrize(
    ("glob", "prefix"),
    [
        ("calls/2026-11-{01,02}/*.ogg", "calls/2026-11-0"),
        ("calls/{a,b}/*.ogg", "calls/"),
        ("calls/*.{ogg,mp3}", "calls/"),
        ("{calls/a,calls/b}/1.ogg", "calls/"),
        ("{a,b}/*", ""),
    ],
)
def test_alternatives_are_listed_by_their_common_prefix(glob: str, prefix: str) -> None:
    assert parse_pattern(f"s3://b/{glob}").prefix == prefix


@pytest.mark.parametrize("key", ["{a}.ogg", "{a,b.ogg", "a,b}.ogg", "{}.ogg"])
def test_braces_without_alternatives_are_literal(key: str) -> None:
    assert parse_pattern(f"s3://b/{key}*").matches(key)
    assert not is_pattern(f"s3://b/{key}")


@pytest.mark.parametrize("glob", ["{a,b}" * 64, "{a,b}" * 2_000], ids=["many", "very many"])
def test_too_many_alternatives_are_refused(glob: str) -> None:
    with pytest.raises(RecordingError, match="alternatives"):
        parse_pattern(f"s3://b/{glob}")


def test_a_bucket_with_an_invalid_name_is_refused() -> None:
    with pytest.raises(RecordingError, match="name of a bucket"):
        parse_pattern("s3://*/calls/")
    with pytest.raises(RecordingError, match="NUL"):
        parse_pattern("s3://calls/\0*")


@settings(derandomize=True, deadline=None)
@given(key=st.text("ab*?[]{,}!-./я\n", min_size=1, max_size=20).filter(lambda key: not key.endswith("/")))
def test_glob_characters_in_brackets_are_literal(key: str) -> None:
    escaped = re.sub(r"[*?\[{]", lambda found: f"[{found[0]}]", key)
    pattern = parse_pattern(f"s3://bucket/{escaped}*")

    assert pattern.matches(key)
    assert not pattern.matches(f"x{key}")


@settings(derandomize=True, deadline=None)
@given(glob=st.text("ab*?[]{,}!-/.", max_size=20), key=st.text("ab*?[]!-/.", min_size=1, max_size=12))
def test_any_glob_is_accepted_and_matches_only_below_its_prefix(glob: str, key: str) -> None:
    if is_pattern(f"s3://bucket/{glob}"):
        pattern = parse_pattern(f"s3://bucket/{glob}")
        assert not pattern.matches(key) or key.startswith(pattern.prefix)
