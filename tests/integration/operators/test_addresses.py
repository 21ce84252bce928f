"""Any key in the bucket can be submitted, and is taken literally."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_speechkit.errors import RecordingError, RecordingNotFoundError, SettingsError, SubmissionsFailedError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from tests.fixtures.direct import OGG, Desk

ODD_NAMES = [
    "call [in] 1.ogg",
    "why?.ogg",
    "a*b.ogg",
    "**.ogg",
    "{x}.ogg",
    "{x,b}.ogg",
    "[!a].ogg",
    "[.ogg",
    "100%.ogg",
    "a%20b.ogg",
    "a+b&c=d#e.ogg",
    "trailing.ogg ",
    "tab\t1.ogg",
    "звонок 1.ogg",
    "12:30@call.ogg",
]


def submit(audio: Any, **kwargs: Any) -> Any:
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, **{"language": "en-US", **kwargs}).execute({})


def submitted(desk: Desk, ids: list[str]) -> list[str]:
    """The names of the recordings that have been submitted, as the archive has them."""
    found = [desk.archive.submission(one) for one in ids]
    return [one.audio_uri.removeprefix(f"s3://{desk.bucket}/{desk.prefix}/") for one in found if one]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_existing_address_means_that_object_only(desk: Desk, name: str) -> None:
    odd = desk.put(name)
    for neighbour in ("call i 1.ogg", "whyX.ogg", "aXb.ogg", "x.ogg", "b.ogg", "trailing.ogg"):
        desk.put(neighbour)
    one = submit(odd)
    assert submitted(desk, [one]) == [name]
    assert submit([odd]) == [one]
    assert submit(f"{desk.prefix}/{name}", bucket=desk.bucket) == one
    assert desk.billed() == 1


def test_unusual_keys_in_a_list_are_taken_literally_with_their_labels(desk: Desk) -> None:
    audio = [desk.put(name) for name in ODD_NAMES]
    desk.put("whyX.ogg")
    ids = submit(audio, labels=[{"place": str(place)} for place in range(len(audio))])
    assert submitted(desk, ids) == ODD_NAMES
    labels = [submission.labels["place"] for one in ids if (submission := desk.archive.submission(one))]
    assert labels == [str(place) for place in range(len(audio))]
    assert desk.billed() == len(audio)


def test_the_service_gets_a_link_to_the_exact_key(desk: Desk) -> None:
    ids = submit([desk.put(name) for name in ODD_NAMES])
    uris = {one["operation_id"]: one["recording"] for one in desk.emulator.billing()}
    assert uris[ids[ODD_NAMES.index("trailing.ogg ")]].endswith("/trailing.ogg%20")
    assert uris[ids[ODD_NAMES.index("why?.ogg")]].endswith("/why%3F.ogg")


def test_an_address_that_is_not_a_key_is_a_glob(desk: Desk) -> None:
    desk.put("whyX.ogg")
    desk.put("whyY.ogg")
    assert len(submit(f"s3://{desk.bucket}/{desk.prefix}/why?.ogg")) == 2
    desk.put("why?.ogg")
    assert isinstance(submit(f"s3://{desk.bucket}/{desk.prefix}/why?.ogg"), str)
    assert desk.billed() == 3
    assert len(submit(f"s3://{desk.bucket}/{desk.prefix}/wh[y]?.ogg")) == 3


def test_list_items_that_match_nothing_are_named_and_do_not_stop_the_others(desk: Desk) -> None:
    root = f"s3://{desk.bucket}/{desk.prefix}"
    good = desk.put("good.ogg")
    with pytest.raises(RecordingNotFoundError, match=re.escape(f"{root}/call [in] 1.ogg")):
        submit([f"{root}/call [in] 1.ogg", good])
    assert desk.billed() == 1
    missing = [f"{root}/none/", f"{root}/none.ogg", f"{root}/*.mp3", f"{root}/x .ogg "]
    with pytest.raises(SubmissionsFailedError) as raised:
        submit([*missing, good], on_empty="skip")
    assert all(one in str(raised.value) for one in missing)
    assert "blanks at its ends are part of it" in str(raised.value)
    assert submit([*missing, good], on_failure="skip") == [submit(good)]


def test_all_missing_items_of_a_long_list_are_named(desk: Desk) -> None:
    missing = [f"s3://{desk.bucket}/{desk.prefix}/{number}.ogg" for number in range(40)]
    with pytest.raises(SubmissionsFailedError) as raised:
        submit(missing)
    assert all(one in str(raised.value) for one in missing)


@pytest.mark.parametrize("below", ["none/", "none/*.ogg", "beside/", "call [in] 1.ogg"])
def test_a_prefix_or_a_glob_that_matches_nothing_skips_with_one_warning_or_fails(
    desk: Desk, below: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk.emulator.put(f"{desk.prefix}/beside/1.json", b"{}")
    audio = f"s3://{desk.bucket}/{desk.prefix}/{below}"
    with caplog.at_level(logging.WARNING), pytest.raises(AirflowSkipException):
        submit(audio)
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("airflow_speechkit.operators")]
    assert audio in line
    assert "\n" not in line
    assert "check the schedule" in line
    with pytest.raises(RecordingNotFoundError, match=re.escape(audio)):
        submit(audio, on_empty="fail")
    with pytest.raises(SettingsError, match="on_empty"):
        submit(audio, on_empty="ignore")


def test_a_missing_key_fails_whatever_on_empty_is(desk: Desk) -> None:
    with pytest.raises(RecordingNotFoundError, match=r"none\.ogg"):
        submit(f"s3://{desk.bucket}/{desk.prefix}/none.ogg", on_empty="skip")


def test_bare_keys_are_combined_with_the_bucket(desk: Desk) -> None:
    names = ["1.ogg", "2.ogg "]
    for name in names:
        desk.put(name)
    keys = [f"{desk.prefix}/", *(f"{desk.prefix}/{name}" for name in names)]
    desk.emulator.put(keys[0], b"")
    ids = submit(keys, bucket=desk.bucket)
    assert submitted(desk, ids) == names
    assert submit(keys, bucket=f"aws_default@{desk.bucket}") == ids
    assert submit(f"{desk.prefix}/", bucket=desk.bucket) == ids
    assert desk.billed() == 2


def test_the_error_for_a_key_without_a_bucket_says_what_to_write(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"calls/1\.ogg.*bucket=.*s3://"):
        submit("calls/1.ogg")
    with pytest.raises(RecordingError, match=r"calls/1\.ogg.*bucket=.*s3://"):
        submit(["calls/1.ogg"], upload_to=f"s3://{desk.bucket}/{desk.prefix}/")
    with pytest.raises(SettingsError, match="`bucket` must be the name of a bucket, not 's3://calls/'"):
        submit("calls/1.ogg", bucket="s3://calls/")
    with pytest.raises(SettingsError, match="not 'None'"):
        submit("calls/1.ogg", bucket="None")
    desk.environment.chdir(tmp_path)
    (tmp_path / "1.ogg").write_bytes(OGG)
    assert submit("1.ogg", upload_to=f"s3://{desk.bucket}/{desk.prefix}/")


@pytest.mark.parametrize("name", [" call [1] .ogg", "call.ogg ", "a\tb.ogg", "a#b?c%20d.ogg"])
def test_a_local_file_is_found_and_uploaded_by_its_exact_name(desk: Desk, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(OGG)
    upload_to = f"s3://{desk.bucket}/{desk.prefix}/up /"
    one = submit(str(tmp_path / name), upload_to=upload_to)
    [uploaded] = submitted(desk, [one])
    assert uploaded.startswith(f"up /{Path(name).stem}-")
    assert uploaded.endswith(Path(name).suffix)
    assert submit((tmp_path / name).as_uri(), upload_to=upload_to) == one


def test_a_list_of_labels_is_refused_with_a_glob(desk: Desk) -> None:
    desk.put("1.ogg")
    with pytest.raises(SettingsError, match="any number of recordings"):
        submit([f"s3://{desk.bucket}/{desk.prefix}/*.ogg"], labels=[{"call_id": "1"}])
    assert desk.billed() == 0
