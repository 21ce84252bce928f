"""Labels for all recordings, for each of a list, or by address."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.operators.audio import addresses, labels_for
from airflow_speechkit.recordings.places import Findings, StoredObject
from airflow_speechkit.recordings.source import RecordingSource
from airflow_speechkit.settings import RecognitionSettings

LINK = "https://calls.storage.yandexcloud.net"


def source() -> RecordingSource:
    def no_client(_: str) -> Any:
        raise AssertionError("nothing has to be read for labels")

    return RecordingSource(RecognitionSettings(), "https://storage.yandexcloud.net", "aws_default", no_client)


def found(audio: Any, labels: Any, bucket: str | None = None) -> list[dict[str, str]]:
    return labels_for(labels, source().find(addresses(audio, bucket)), source(), bucket)


def test_one_mapping_is_for_all_and_a_list_has_one_for_each() -> None:
    audio = ["s3://calls/1.ogg", "s3://calls/2.ogg"]
    assert found(audio, None) == found(audio, {}) == [{}, {}]
    assert found(audio, {"call_id": 17}) == [{"call_id": "17"}] * 2
    assert found(audio, [{"call_id": 17}, {}]) == [{"call_id": "17"}, {}]


@pytest.mark.parametrize(
    "address",
    [
        "s3://calls/in/a b.ogg",
        "s3://store@calls/in/a b.ogg",
        f"{LINK}/in/a%20b.ogg?X-Amz-Signature=aafe17",
        "https://storage.yandexcloud.net/calls/in/a%20b.ogg",
    ],
)
@pytest.mark.parametrize("audio", ["s3://calls/in/a b.ogg", "s3://other@calls/in/a b.ogg", f"{LINK}/in/a%20b.ogg"])
def test_labels_by_address_match_however_the_address_is_written(audio: str, address: str) -> None:
    assert found([audio, "s3://calls/2.ogg"], {address: {"call_id": 17}}) == [{"call_id": "17"}, {}]


def test_labels_by_address_match_what_a_prefix_lists() -> None:
    [address] = source().find("s3://store@calls/in/1.ogg").places
    stored = [StoredObject(address=address, etag="e", size_bytes=1)]  # type: ignore[arg-type]
    by_pattern = Findings(stored, by_pattern=True)
    labels = {"s3://calls/in/1.ogg": {"call_id": "17"}}
    assert labels_for(labels, by_pattern, source(), None) == [{"call_id": "17"}]


def test_labels_by_key_match_the_keys_of_the_bucket() -> None:
    labels = {"1.ogg": {"n": "1"}, "s3://calls/2.ogg": {"n": "2"}, "store@calls/3.ogg": {"n": "3"}}
    assert found(["1.ogg", "2.ogg", "3.ogg"], labels, "store@calls") == [{"n": "1"}, {"n": "2"}, {}]


def test_labels_by_path_match_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = {str(tmp_path / "1.wav"): {"n": "1"}, "2.wav": {"n": "2"}}
    assert found(["1.wav", (tmp_path / "2.wav").as_uri()], labels) == [{"n": "1"}, {"n": "2"}]


def test_an_address_that_is_refused_has_its_labels_too() -> None:
    assert found(["https://elsewhere/1.ogg"], {"https://elsewhere/1.ogg": {"n": "1"}}) == [{"n": "1"}]


def test_addresses_that_match_no_recording_are_counted_with_an_example(caplog: pytest.LogCaptureFixture) -> None:
    labels = {f"s3://calls/{name}": {"phone": "+7 900"} for name in ("1.ogg", "2.ogg", "3.ogg")}
    with caplog.at_level(logging.INFO):
        assert found(["s3://calls/1.ogg"], labels) == [{"phone": "+7 900"}]
    [line] = [one.getMessage() for one in caplog.records]
    assert line == "2 addresses in `labels` match no recording, such as s3://calls/2.ogg"


def test_two_entries_of_one_recording_must_agree() -> None:
    labels: dict[str, Any] = {"s3://calls/1.ogg": {"n": 1}, f"{LINK}/1.ogg": {"n": "1"}}
    assert found(["s3://calls/1.ogg"], labels) == [{"n": "1"}]
    with pytest.raises(SettingsError, match=r"two entries for s3://calls/1\.ogg"):
        found(["s3://calls/1.ogg"], {**labels, "s3://store@calls/1.ogg": {"n": "2"}})


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_label_without_a_value_is_refused(value: Any) -> None:
    for labels in ({"n": value}, [{"n": value}], {"s3://calls/1.ogg": {"n": value}}, {"s3://b/2.ogg": {"n": value}}):
        with pytest.raises(SettingsError, match=f"label 'n' is {value}.*Leave out labels that have no value"):
            found(["s3://calls/1.ogg"], labels)


@pytest.mark.parametrize("labels", ["text", [1], [{1: "a"}], {"a": {}, "b": "text"}, {1: {}}, {"a": {1: "b"}}])
def test_anything_else_is_refused(labels: Any) -> None:
    with pytest.raises(SettingsError, match="`labels`"):
        found(["s3://calls/1.ogg"], labels)


def test_a_list_of_another_length_or_for_a_pattern_is_refused() -> None:
    with pytest.raises(SettingsError, match="is a list of 2, for 1 recordings"):
        found(["s3://calls/1.ogg"], [{}, {}])
    with pytest.raises(SettingsError, match=r"any number of recordings.*mapping of addresses"):
        labels_for([{}], Findings([], by_pattern=True), source(), None)
