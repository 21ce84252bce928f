"""What a key and a JSON object beside it have for labels, and what of an operator's keywords is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import RecordingError, RecordingNotFoundError, SettingsError
from airflow_speechkit.models import RecordingAddress
from airflow_speechkit.recordings.labels import MOST_SIDECAR_BYTES, LabelRules
from airflow_speechkit.recordings.pairs import PairRules

KEY = r"(?P<date>\d{8})_(?P<agent>[^_]+)_(?P<call_id>\d+)\.ogg"
SECRET = "+7 900 000-00-00"


def rules(
    key: Any = None, sidecar: Any = None, fields: Any = None, *, on_missing: str = "fail", default: bool = True
) -> LabelRules:
    if default and fields is None and sidecar is not None:
        fields = ["call_id"]
    return LabelRules.of(key, sidecar, fields, on_missing)


def calls(key: str) -> RecordingAddress:
    return RecordingAddress("calls", key, "store")


def read(raw: str | bytes, fields: Any) -> dict[str, str]:
    raw = raw.encode() if isinstance(raw, str) else raw
    return rules(sidecar="{stem}.json", fields=fields).from_sidecar(raw, "s3://calls/1.json")


def test_the_named_groups_that_take_part_are_labels() -> None:
    expected = {"date": "20261122", "agent": "Ирина", "call_id": "017"}
    assert rules(KEY).from_key(calls("in/20261122_Ирина_017.ogg")) == expected
    optional = rules(r"(?P<call_id>\d+)(-(?P<part>\d))?(?P<rest>.*)\.ogg")
    assert optional.from_key(calls("in/17.ogg")) == {"call_id": "17", "rest": ""}


def test_the_expression_is_searched_in_the_whole_key() -> None:
    assert rules("^(?P<queue>[^/]+)/").from_key(calls("sales/2026/1.ogg")) == {"queue": "sales"}


def test_a_sidecar_is_named_by_the_placeholders_of_pairs() -> None:
    pairs = PairRules.of(("{call}-in.wav", "{call}-out.wav"), "alone", None)
    found = LabelRules.of(None, "../meta/{call}.json", ["call_id"], "fail", pairs)
    for key in ("2026/17-in.wav", "2026/17-out.wav"):
        assert found.sidecar_of(calls(key)) == calls("meta/17.json")
    with pytest.raises(RecordingNotFoundError, match="neither pattern"):
        found.sidecar_of(calls("2026/17.wav"))
    with pytest.raises(SettingsError, match=r"\{call\}"):
        rules(sidecar="{call}.json")


def test_a_local_file_is_matched_with_its_absolute_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert rules("^/(?P<queue>[^/]+)/").from_key(Path("sales/1.ogg")) == {"queue": "sales"}


def test_a_key_that_does_not_match_is_an_error_with_a_hint() -> None:
    with pytest.raises(RecordingError, match=r"doesn't match `labels_from_key`.*on_missing_labels='pass'"):
        rules(KEY).from_key(calls("in/test.ogg"))


@pytest.mark.parametrize("wrong", ["(?P<a>", r"\d+", "", "None", "(?P<a>x){99999999999999999999}", 17, "(" * 9])
def test_an_invalid_expression_is_refused_with_the_keyword(wrong: Any) -> None:
    with pytest.raises(SettingsError, match="`labels_from_key`"):
        rules(wrong)


@pytest.mark.parametrize(
    ("template", "key", "sidecar"),
    [
        ("{stem}.json", "in/sub/1.a.ogg", "s3://store@calls/in/sub/1.a.json"),
        ("{name}.json", "1.ogg", "s3://store@calls/1.ogg.json"),
        ("{stem}.json", "in/noextension", "s3://store@calls/in/noextension.json"),
        ("{stem}.json", "in/.ogg", "s3://store@calls/in/.ogg.json"),
        ("meta/{stem}.json", "in/1.ogg", "s3://store@calls/in/meta/1.json"),
        ("../meta/{stem}.json", "a/in/1.ogg", "s3://store@calls/a/meta/1.json"),
        ("../../meta/{stem}.json", "in/1.ogg", "s3://store@calls/meta/1.json"),
        ("all.json", "in//1.ogg", "s3://store@calls/in//all.json"),
        ("s3://meta/{folder}{stem}.json", "in/sub/1.ogg", "s3://store@meta/in/sub/1.json"),
        ("s3://meta/{folder}{stem}.json", "1.ogg", "s3://store@meta/1.json"),
        ("s3://other@meta/{name}", "in/1.ogg", "s3://other@meta/1.ogg"),
        ("{stem}.json", "in/{name}%20\\1.ogg", "s3://store@calls/in/{name}%20\\1.json"),
    ],
)
def test_the_sidecar_of_an_object_is_beside_it_or_at_an_address(template: str, key: str, sidecar: str) -> None:
    found = rules(sidecar=template).sidecar_of(calls(key))
    assert isinstance(found, RecordingAddress)
    assert found.text == sidecar


def test_the_sidecar_of_a_local_file_is_on_the_disk_or_at_an_address() -> None:
    place = Path("/calls/in/1.wav")
    assert rules(sidecar="{stem}.json").sidecar_of(place) == Path("/calls/in/1.json")
    assert rules(sidecar="/meta/{stem}.json").sidecar_of(place) == Path("/meta/1.json")
    assert rules(sidecar="s3://meta/{stem}.json").sidecar_of(place) == RecordingAddress("meta", "1.json")


@pytest.mark.parametrize("template", ["s3:///{stem}", "s3://meta", "s3://k:s@meta/{stem}", "\0"])
def test_a_place_where_nothing_can_be_is_an_error(template: str) -> None:
    with pytest.raises(RecordingError):
        rules(sidecar=template).sidecar_of(calls("in/1.ogg"))


@pytest.mark.parametrize("wrong", ["", "None", 17, "{key}.json", "{}.json", "https://host/{stem}", "S3://meta/1"])
def test_an_invalid_template_is_refused_with_the_keyword(wrong: Any) -> None:
    with pytest.raises(SettingsError, match="`labels_from_sidecar`"):
        rules(sidecar=wrong)


@pytest.mark.parametrize(("sidecar", "fields"), [("{stem}.json", None), (None, ["call_id"])])
def test_a_sidecar_and_its_fields_need_each_other(sidecar: Any, fields: Any) -> None:
    with pytest.raises(SettingsError, match="need each other"):
        rules(sidecar=sidecar, fields=fields, default=False)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1.10", "1.10"),
        ("1E+2", "1E+2"),
        ("-0", "-0"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("9" * 5000, "9" * 5000),
        ("true", "true"),
        ("false", "false"),
        ('""', ""),
        (r'"\u0418рина \ud83d"', "Ирина \ud83d"),
    ],
)
def test_a_value_is_the_text_that_is_written(written: str, text: str) -> None:
    assert read(f'{{"a": {written}}}', ["a"]) == {"a": text}


def test_null_and_what_is_not_there_give_no_label() -> None:
    raw = '{"a": null, "b": {"c": null}, "d": "text", "e": [1]}'
    paths = {"1": "a", "2": "b.c", "3": "b.c.d", "4": "d.x", "5": "e.0", "6": "x.y", "7": "d"}
    assert read(raw, paths) == {"7": "text"}


def test_a_mapping_has_paths_and_a_list_has_names() -> None:
    raw = '{"agent": {"name": "Ирина"}, "agent.name": "a name with a dot", "left": "out"}'
    assert read(raw, {"agent": "agent.name"}) == {"agent": "Ирина"}
    assert read(raw, ["agent.name"]) == {"agent.name": "a name with a dot"}


def test_a_byte_order_mark_is_accepted() -> None:
    assert read(b'\xef\xbb\xbf{"a": 1}', ["a"]) == {"a": "1"}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "isn't JSON"),
        (f'{{"a": "{SECRET}'.encode(), "isn't JSON"),
        (f'["{SECRET}"]'.encode(), "not an object"),
        (f'{{"a": "{SECRET}", "b": NaN}}'.encode(), "NaN"),
        (f'{{"a": "{SECRET}"}}'.encode("utf-16"), "UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (f'{{"a": {{"b": "{SECRET}"}}}}'.encode(), "label 'a' is an object or a list"),
        (f'{{"a": ["{SECRET}"]}}'.encode(), "label 'a' is an object or a list"),
        (b'{"a": "%b"}' % (b"x" * MOST_SIDECAR_BYTES), "larger than 1 MiB"),
    ],
)
def test_what_can_not_be_used_is_an_error_without_its_content(raw: bytes, why: str) -> None:
    with pytest.raises(RecordingError, match=why) as raised:
        read(raw, ["a"])
    error: BaseException | None = raised.value
    while error is not None:
        assert SECRET not in f"{error} {error.args} {vars(error)} {getattr(error, 'doc', '')}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("wrong", ["call_id", [], {}, [""], [1], {"a": ""}, {"a": "b..c"}, {"a": 1}, {1: "a"}, 17])
def test_invalid_fields_are_refused_with_the_keyword(wrong: Any) -> None:
    with pytest.raises(SettingsError, match="`sidecar_fields`"):
        rules(sidecar="{stem}.json", fields=wrong)


def test_what_to_do_about_missing_labels_is_fail_or_pass() -> None:
    with pytest.raises(SettingsError, match="`on_missing_labels` must be one of fail, pass"):
        rules(on_missing="skip")
