"""A recording is sent in the version that was resolved, however long it waits for the quota."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit import Submitter
from airflow_speechkit.archive.submit_rules import SubmitStatus
from airflow_speechkit.errors import RecordingError
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.hooks.storage import storage_client
from airflow_speechkit.models import Recording
from airflow_speechkit.recordings.places import Findings
from airflow_speechkit.recordings.source import VERSION_HOLDS, RecordingSource
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from tests.fixtures.direct import OGG, Desk
from tests.fixtures.environment import ROOT

ANOTHER = (ROOT / "emulator/speechkit_emulator/samples/delivery.ogg").read_bytes()
SECOND = timedelta(seconds=1)


class Clock:
    time = datetime(2026, 11, 22, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


def source_of(hook: SpeechKitHook, clock: Any, **about: Any) -> RecordingSource:
    endpoint = hook.connection.endpoints.storage
    return RecordingSource(
        settings=about.pop("settings", RecognitionSettings(language="en-US")),
        storage_endpoint=endpoint,
        aws_conn_id="aws_default",
        connect=partial(storage_client, storage_endpoint=endpoint),
        now=clock,
        **about,
    )


def resolve(source: RecordingSource, audio: Any) -> list[Recording]:
    findings = source.find(audio)
    return source.resolve(findings, [{} for _ in findings.places])


def test_a_recording_replaced_while_it_waited_is_not_sent(desk: Desk) -> None:
    clock = Clock()
    with SpeechKitHook() as hook:
        source = source_of(hook, clock)
        [recording] = resolve(source, [desk.put()])
        recording = source.probe(recording)
        clock.time += VERSION_HOLDS + SECOND
        assert source.check_unchanged(recording) is None
        desk.put(content=ANOTHER)
        clock.time -= 2 * SECOND
        assert source.check_unchanged(recording) is None, "a version holds for a while"
        clock.time += 2 * SECOND
        with pytest.raises(RecordingError, match=r"replaced after it was found.*1\.ogg.*A retry submits") as raised:
            source.check_unchanged(recording)
        assert raised.value.retry_can_help


def test_a_recording_deleted_while_it_waited_is_not_sent(desk: Desk, emulator_s3: Any) -> None:
    clock = Clock()
    with SpeechKitHook() as hook:
        source = source_of(hook, clock)
        [recording] = resolve(source, [desk.put()])
        emulator_s3.delete_object(Bucket=desk.bucket, Key=f"{desk.prefix}/1.ogg")
        clock.time += VERSION_HOLDS + SECOND
        with pytest.raises(RecordingError, match="no such object"):
            source.check_unchanged(recording)


def test_a_replaced_recording_does_not_stop_the_others(desk: Desk) -> None:
    class Replacing(RecordingSource):
        """Has one recording replaced right after it was probed."""

        def probe(self, recording: Recording) -> Recording:
            probed = super().probe(recording)
            if recording.audio_uri.endswith("1.ogg"):
                desk.put("1.ogg", content=ANOTHER)
            return probed

    archive = Archive.at(desk.archive_url)
    archive.probe(datetime.now(UTC))
    hours = (Clock.time + timedelta(hours=hour) for hour in itertools.count())
    with SpeechKitHook() as hook:
        # By this clock an hour passes between any two requests.
        source = Replacing(**vars(source_of(hook, lambda: next(hours))))
        recordings = resolve(source, [desk.put("1.ogg"), desk.put("2.ogg")])
        outcomes = Submitter(archive, source, hook).submit(recordings)
    assert [one.status for one in outcomes] == [SubmitStatus.REFUSED, SubmitStatus.SUBMITTED]
    assert isinstance(outcomes[0].error, RecordingError)
    assert desk.billed() == 1


def test_a_key_without_a_link_does_not_stop_the_others(desk: Desk, emulator_s3: Any) -> None:
    desk.put("1.ogg")
    emulator_s3.put_object(Bucket=desk.bucket, Key=f"{desk.prefix}/x/../2.ogg", Body=OGG)
    with SpeechKitHook() as hook:
        found = resolve(source_of(hook, Clock()), f"s3://{desk.bucket}/{desk.prefix}/")
    assert [(one.audio_uri.rpartition("/")[2], one.error is None) for one in found] == [
        ("1.ogg", True),
        ("2.ogg", False),
    ]


def test_how_many_there_are_is_known_before_anything_is_looked_up_or_uploaded(desk: Desk) -> None:
    with SpeechKitHook() as hook:
        source = source_of(hook, Clock(), upload_to=f"s3://{desk.bucket}/{desk.prefix}/")
        findings = source.find(["/calls/1.wav", desk.put("1.ogg"), "s3://there-is-no-such-bucket/1.ogg"])
        assert (len(findings.places), findings.by_pattern) == (3, False)
        desk.put("2.ogg", OGG)
        findings = source.find([f"s3://{desk.bucket}/{desk.prefix}/", "/calls/1.wav"])
        assert (len(findings.places), findings.by_pattern) == (3, True)


def test_a_later_visit_finds_the_same_recordings_as_they_are_then(desk: Desk, tmp_path: Path) -> None:
    call = tmp_path / "call.ogg"
    call.write_bytes(OGG)
    with SpeechKitHook() as hook:
        settings = RecognitionSettings(api_version=ApiVersion.V3)
        source = source_of(hook, Clock(), settings=settings)
        first = source.resolve(source.find([desk.put(), str(call)]), [{"call_id": "1"}, {"call_id": "2"}])
        assert source.resolve_again(first) == first
        desk.put(content=ANOTHER)
        call.write_bytes(ANOTHER)
        later = source.resolve_again(first)
    assert [one.audio_uri for one in later] == [one.audio_uri for one in first]
    assert [one.labels for one in later] == [{"call_id": "1"}, {"call_id": "2"}]
    assert {one.version for one in later}.isdisjoint({one.version for one in first})


def test_a_local_file_changed_or_deleted_before_sending_is_not_sent(desk: Desk, tmp_path: Path) -> None:
    call = tmp_path / "call.ogg"
    call.write_bytes(OGG)
    with SpeechKitHook() as hook:
        source = source_of(hook, Clock(), settings=RecognitionSettings(api_version=ApiVersion.V3))
        [recording] = source.resolve(Findings([call]), [{}])
        assert source.check_unchanged(recording) == OGG
        call.write_bytes(ANOTHER)
        with pytest.raises(RecordingError, match="changed"):
            source.check_unchanged(recording)
        call.unlink()
        with pytest.raises(RecordingError, match="can't be read"):
            source.check_unchanged(recording)
