"""The submit operator returns operation ids, or raises an error with a hint."""

from __future__ import annotations

import io
import re
import wave
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_speechkit.errors import (
    AnswerUnreadableError,
    ArchiveError,
    AuthenticationError,
    ConnectionSettingsError,
    CostLimitExceededError,
    RecordingError,
    SettingsError,
    SpeechKitError,
    SubmissionLostError,
    SubmissionsFailedError,
)
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.settings import RecognitionSettings
from tests.fixtures.direct import OGG, Desk


def submit(audio: Any, **kwargs: Any) -> Any:
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, **{"language": "en-US", **kwargs}).execute({})


def wav(seconds: float = 1.0, rate: int = 8000, channels: int = 1) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(int(seconds * rate) * 2 * channels))
    return content.getvalue()


def request_of(desk: Desk, operation_id: str) -> dict[str, Any]:
    return next(one for one in desk.emulator.billing() if one["operation_id"] == operation_id)


def test_one_recording_returns_an_id_and_a_list_or_pattern_returns_a_list(desk: Desk) -> None:
    first, second = desk.put("1.ogg"), desk.put("2.ogg")
    one = submit(first)
    assert isinstance(one, str)
    both = submit([second, first])
    assert both[1] == one
    assert submit(f"s3://{desk.bucket}/{desk.prefix}/*.ogg") == [one, both[0]]
    assert submit(f"s3://{desk.bucket}/{desk.prefix}/") == [one, both[0]]
    assert desk.billed() == 2


def test_the_same_recording_by_any_of_its_addresses_is_paid_for_once(desk: Desk) -> None:
    desk.put("a b.ogg")
    key = f"{desk.prefix}/a%20b.ogg"
    ids = {
        submit(f"s3://{desk.bucket}/{desk.prefix}/a b.ogg"),
        submit(f"s3://aws_default@{desk.bucket}/{desk.prefix}/a b.ogg"),
        submit(f"https://storage.yandexcloud.net/{desk.bucket}/{key}"),
        submit(f"https://{desk.bucket}.storage.yandexcloud.net/{key}?X-Amz-Signature=aafe17"),
        submit(f"{desk.emulator.storage_url}/{desk.bucket}/{key}"),
    }
    assert len(ids) == 1
    assert desk.billed() == 1


def test_submissions_are_recorded_with_their_labels_and_run(desk: Desk) -> None:
    class TaskInstance:
        dag_id, run_id, task_id, map_index = "calls", "monday", "submit", 3

    operator = SpeechKitSubmitOperator(
        task_id="submit", audio=desk.put(), language="en-US", labels={"call_id": 17}, literature_text=True
    )
    submission = desk.archive.submission(operator.execute({"ti": TaskInstance()}))
    assert submission is not None
    assert (submission.dag_id, submission.run_id, submission.task_id, submission.map_index) == (
        "calls",
        "monday",
        "submit",
        3,
    )
    assert submission.labels == {"call_id": "17"}
    assert submission.settings.literature_text
    assert submission.settings.language == "en-US"
    assert submission.size_bytes == len(OGG)
    assert submission.etag
    assert submission.duration_ms


def test_each_recording_of_a_list_has_its_own_labels(desk: Desk) -> None:
    ids = submit([desk.put("1.ogg"), desk.put("2.ogg")], labels=[{"call_id": "1"}, {"call_id": "2"}])
    submissions = [desk.archive.submission(one) for one in ids]
    assert [one.labels["call_id"] for one in submissions if one] == ["1", "2"]


def test_a_local_wav_is_uploaded_and_unwrapped(desk: Desk, tmp_path: Path) -> None:
    local = tmp_path / "call.wav"
    local.write_bytes(wav(2.0, channels=2))
    operation_id = submit(str(local), upload_to=f"s3://{desk.bucket}/{desk.prefix}/uploads/")
    submission = desk.archive.submission(operation_id)
    assert submission is not None
    assert submission.audio_uri.startswith(f"s3://{desk.bucket}/{desk.prefix}/uploads/")
    assert submission.settings.audio_encoding == "LINEAR16_PCM"
    assert (submission.settings.sample_rate_hertz, submission.settings.audio_channel_count) == (8000, 2)
    assert submission.duration_ms == 2000
    assert submit(str(local), upload_to=f"s3://{desk.bucket}/{desk.prefix}/uploads/") == operation_id


def test_a_small_local_file_is_sent_inline_by_v3(desk: Desk, tmp_path: Path) -> None:
    local = tmp_path / "call.ogg"
    local.write_bytes(OGG)
    operation_id = submit(str(local), api_version="v3")
    submission = desk.archive.submission(operation_id)
    assert submission is not None
    assert submission.audio_uri == local.as_uri()
    assert submit(str(local), api_version="v3") == operation_id


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ({"audio": []}, SettingsError, "empty list"),
        ({"audio": ["  "]}, SettingsError, "audio"),
        ({"audio": [None]}, SettingsError, "audio"),
        ({"audio": "https://example.com/call.ogg?sig=5ecret"}, RecordingError, "leads elsewhere"),
        ({"audio": "ftp://example.com/call.ogg?sig=5ecret"}, RecordingError, "isn't the address"),
        ({"audio": "s3://there-is-no-such-bucket/1.ogg"}, RecordingError, "there-is-no-such-bucket"),
        ({"audio": "s3://there-is-no-such-bucket/"}, SpeechKitError, "there-is-no-such-bucket"),
        ({"audio": "s3://nobody@recordings/1.ogg"}, ConnectionSettingsError, "nobody"),
        ({"audio": "/no/such/call.wav"}, RecordingError, "upload_to"),
        ({"audio": "/no/such/call.wav", "upload_to": "s3://recordings/up/"}, RecordingError, "/no/such/call.wav"),
        ({"audio": "/no/such/call.wav", "api_version": "v3"}, RecordingError, "/no/such/call.wav"),
        ({"language": "Russian!"}, SettingsError, "language"),
        ({"model": ""}, SettingsError, "model"),
        ({"api_version": "v4"}, SettingsError, "api_version"),
        ({"audio_encoding": "FLAC"}, SettingsError, "audio_encoding"),
        ({"sample_rate_hertz": 8000, "audio_encoding": "MP3"}, SettingsError, "sample_rate_hertz"),
        ({"sample_rate_hertz": 44100, "audio_encoding": "LINEAR16_PCM"}, SettingsError, "sample_rate_hertz"),
        ({"audio_channel_count": 2, "audio_encoding": "OGG_OPUS"}, SettingsError, "audio_channel_count"),
        ({"speaker_labeling": True}, SettingsError, "speaker_labeling"),
        ({"classifiers": {"negative": ["ON_FINAL"]}}, SettingsError, "classifiers"),
        ({"labels": [{"a": "b"}, {}]}, SettingsError, "labels"),
        (
            {"labels": "call 17"},
            SettingsError,
            "`labels` must be a mapping of names to texts, a list of mappings, or a mapping of addresses to mappings",
        ),
        ({"labels": {"call_id": None}}, SettingsError, "The label 'call_id' is None"),
        ({"labels": [{"call_id": None}]}, SettingsError, "The label 'call_id' is None"),
        ({"audio": "None"}, SettingsError, "`audio` is the text 'None'"),
        ({"audio": ["s3://recordings/1.ogg", " None "]}, SettingsError, "`audio` is the text 'None'"),
        ({"audio": "/calls/1\0.wav"}, RecordingError, "NUL"),
        ({"audio": "s3://recordings/1\0.ogg"}, RecordingError, "NUL"),
        ({"audio": "s3://recordings/1\0*.ogg"}, RecordingError, "NUL"),
        ({"audio": "s3://AKIA:5ecret@recordings/1.ogg"}, RecordingError, "isn't a connection id"),
        ({"on_failure": "ignore"}, SettingsError, "on_failure"),
        ({"on_lost_submission": "ignore"}, SettingsError, "on_lost_submission"),
        ({"archive": True}, SettingsError, "archive"),
        ({"archive": "None"}, SettingsError, "`archive` is the text 'None'"),
        ({"archive": ""}, SettingsError, "`archive` is the text ''"),
        ({"archive": "speechkit/archive"}, SettingsError, "is relative"),
        ({"archive": "s3://AKIA:5ecret@recordings/archive"}, SettingsError, "Airflow connection"),
        ({"archive": "zz://archive"}, SettingsError, "zz://"),
        ({"archive": False, "on_failure": "record"}, SettingsError, "archive"),
        ({"archive": False, "only_new": True}, SettingsError, "archive"),
        ({"speechkit_conn_id": "nobody"}, ConnectionSettingsError, "nobody"),
        ({"max_billed_seconds": 1}, CostLimitExceededError, "max_billed_seconds"),
        (
            {"max_billed_seconds": "ten"},
            SettingsError,
            "`max_billed_seconds` must be a whole number, 1 at least, not 'ten'",
        ),
        ({"max_billed_seconds": 99.5}, SettingsError, "max_billed_seconds"),
        ({"max_billed_seconds": True}, SettingsError, "max_billed_seconds"),
        ({"probe": "some"}, SettingsError, "probe"),
        ({"probe": "some", "max_billed_seconds": 100}, SettingsError, "probe"),
        ({"submits_per_hour": 0}, SettingsError, "submits_per_hour"),
        ({"submits_per_hour": "many"}, SettingsError, "submits_per_hour"),
    ],
    ids=str,
)
def test_an_invalid_recording_is_refused_and_nothing_is_paid(
    desk: Desk, given: dict[str, Any], kind: type[SpeechKitError], expected: str
) -> None:
    before = len(desk.emulator.billing())
    with pytest.raises(kind, match=re.escape(expected)) as raised:
        submit(**{"audio": desk.put(), **given})
    assert "5ecret" not in str(raised.value)
    assert len(desk.emulator.billing()) == before


def test_a_missing_object_or_a_wrong_format_is_an_error_that_names_the_recording(desk: Desk) -> None:
    missing = f"s3://{desk.bucket}/{desk.prefix}/none.ogg"
    with pytest.raises(RecordingError, match=r"none\.ogg"):
        submit(missing)
    disguised = desk.put("disguised.ogg", wav())
    with pytest.raises(RecordingError, match=r"disguised\.ogg") as raised:
        submit(disguised, audio_encoding="OGG_OPUS")
    assert "WAV" in str(raised.value)
    with pytest.raises(RecordingError, match=r"disguised\.ogg"):
        submit(disguised)
    with pytest.raises(RecordingError, match=r"noise\.ogg"):
        submit(desk.put("noise.ogg", b"\0\1\2" * 500))
    with pytest.raises(RecordingError, match=r"empty\.ogg"):
        submit(desk.put("empty.ogg", b""))
    assert desk.billed() == 0


def test_an_undeclared_length_is_counted_if_a_limit_or_the_user_requires_it(desk: Desk) -> None:
    # Two MB of MP3 frames that nothing counts: 130.6 s.
    recording = desk.put("joined.mp3", (b"\xff\xfb\x90\xc4" + bytes(413)) * 5_000)

    with pytest.raises(CostLimitExceededError, match="would be billed 131 seconds"):
        submit(recording, max_billed_seconds=130)
    assert desk.billed() == 0
    lengths = []
    ways: dict[str, dict[str, Any]] = {
        "general": {},
        "general:rc": {"probe": "full"},
        "general:deprecated": {"max_billed_seconds": 131},
    }
    for model, kwargs in ways.items():
        submission = desk.archive.submission(submit(recording, model=model, **kwargs))
        assert submission is not None
        lengths.append((submission.duration_ms, submission.billed_seconds))
    assert lengths == [(None, None), (130_613, 131), (130_613, 131)]


def test_an_invalid_recording_does_not_stop_the_others(desk: Desk) -> None:
    good, bad = desk.put("good.ogg"), f"s3://{desk.bucket}/{desk.prefix}/none.ogg"
    with pytest.raises(RecordingError, match=r"none\.ogg"):
        submit([bad, good])
    assert desk.billed() == 1
    with pytest.raises(SubmissionsFailedError):
        submit([bad, good, "s3://there-is-no-such-bucket/1.ogg"])
    assert submit([bad, good], on_failure="skip") == [submit(good)]
    recorded = submit([bad, good], on_failure="record")
    assert recorded[1] == submit(good)
    outcome = desk.archive.outcome(recorded[0])
    assert outcome is not None
    assert outcome.failure is not None
    with pytest.raises(AirflowSkipException):
        submit([bad], on_failure="skip")
    assert desk.billed() == 1


def test_an_empty_prefix_skips_the_task(desk: Desk) -> None:
    with pytest.raises(AirflowSkipException):
        submit(f"s3://{desk.bucket}/{desk.prefix}/none/")


def test_a_wrong_key_is_an_authentication_error_without_the_key(desk: Desk) -> None:
    audio = desk.put()
    desk.connect(password="AQVNwrongwrongwrong")
    with pytest.raises(AuthenticationError) as raised:
        submit(audio)
    assert "AQVNwrongwrongwrong" not in str(raised.value)


@pytest.mark.parametrize("fault", ["garbage", "cut"])
def test_after_an_unreadable_answer_nothing_is_sent_again(desk: Desk, fault: str) -> None:
    audio = desk.put()
    desk.emulator.fault(fault, on="submit", times=1)
    with pytest.raises(SpeechKitError) as raised:
        submit(audio)
    assert raised.type is not AnswerUnreadableError or "1.ogg" in str(raised.value)
    assert desk.billed() <= 1


def test_without_an_archive_setting_the_error_says_where_to_set_one(desk: Desk) -> None:
    desk.connect(extra={})
    with pytest.raises(SettingsError, match="archive=False"):
        submit(desk.put())
    assert desk.billed() == 0


def test_an_archive_that_is_not_writable_stops_the_task_before_anything_is_paid(desk: Desk) -> None:
    audio = desk.put()
    (desk.place / "file").write_text("")
    with pytest.raises(ArchiveError):
        submit(audio, archive=str(desk.place / "file" / "archive"))
    with pytest.raises(ArchiveError):
        submit(audio, archive="s3://there-is-no-such-bucket/archive")
    with pytest.raises(ConnectionSettingsError):
        submit(audio, archive="s3://nobody@recordings/archive")
    assert desk.billed() == 0


def test_without_an_archive_every_run_pays(desk: Desk) -> None:
    audio = desk.put()
    assert submit(audio, archive=False) != submit(audio, archive=False)
    assert desk.billed() == 2


@pytest.mark.parametrize("names", [["1.ogg"], ["1.ogg", "none.ogg"]])
def test_without_an_archive_a_request_that_may_have_been_accepted_is_not_retried(desk: Desk, names: list[str]) -> None:
    desk.put("1.ogg")
    audio = [f"s3://{desk.bucket}/{desk.prefix}/{name}" for name in names]
    desk.emulator.fault("garbage", on="submit", times=1)
    with pytest.raises(AirflowFailException, match=r"(?s)1\.ogg.*pays again.*could pay twice"):
        submit(audio, archive=False)
    desk.emulator.clear_faults()
    desk.emulator.fault("garbage", on="submit", times=1)
    with pytest.raises((SubmissionLostError, SubmissionsFailedError)):
        submit(audio)


def test_without_an_archive_a_lost_submission_prevents_a_retry_whatever_the_error(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    submits, sent = SpeechKitHook.submit, Semaphore(0)

    def send(self: SpeechKitHook, link: str, settings: RecognitionSettings) -> Any:
        if link.endswith("/3.ogg"):
            assert sent.acquire(timeout=600)
            assert sent.acquire(timeout=600)
            raise AuthenticationError("The key was refused", http_status=401)
        try:
            return submits(self, link, settings)
        finally:
            sent.release()

    monkeypatch.setattr(SpeechKitHook, "submit", send)
    for name in "123":
        desk.put(f"{name}.ogg")
    desk.emulator.fault("garbage", on="submit", times=1)
    with pytest.raises(AirflowFailException, match=r"(?s)key was refused.*could pay twice for .*\.ogg"):
        submit([f"s3://{desk.bucket}/{desk.prefix}/{name}.ogg" for name in "123"], archive=False)
    assert "Give their ids to a sensor" in caplog.text


def test_without_an_archive_the_ids_of_a_failed_task_are_in_its_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = desk.put("good.ogg"), f"s3://{desk.bucket}/{desk.prefix}/none.ogg"
    with pytest.raises(RecordingError, match="A retry submits everything again and pays again"):
        submit([bad, good], archive=False)
    [billed] = [one for one in desk.emulator.billing() if f"/{desk.prefix}/" in str(one)]
    assert f"Give their ids to a sensor: {billed['operation_id']}" in caplog.text
