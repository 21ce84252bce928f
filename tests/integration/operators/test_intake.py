"""What was looked at is what is sent, however long it waits for the quota in between."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_speechkit.archive.batch import How
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submitting import Submitter
from airflow_speechkit.errors import RecordingError
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.models import Recording
from airflow_speechkit.operators.intake import LOOK_HOLDS_S, Intake
from airflow_speechkit.settings import RecognitionSettings
from tests.fixtures.direct import OGG, Desk
from tests.fixtures.environment import ROOT

ANOTHER = (ROOT / "emulator/speechkit_emulator/samples/delivery.ogg").read_bytes()


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


def intake(hook: SpeechKitHook, clock: Any) -> Intake:
    return Intake(hook, RecognitionSettings(language="en-US"), "aws_default", clock=clock)


def test_a_recording_that_was_replaced_while_it_waited_is_not_sent_for_the_old_one(desk: Desk) -> None:
    clock = Clock()
    with SpeechKitHook() as hook:
        desk_intake = intake(hook, clock)
        [item] = desk_intake.recordings(desk_intake.find([desk.put()]), None)
        item = desk_intake.prepare(item)
        clock.time += LOOK_HOLDS_S + 1
        desk_intake.send(item.link, item.settings)
        desk.put(content=ANOTHER)
        clock.time += LOOK_HOLDS_S - 1
        desk_intake.send(item.link, item.settings)
        assert desk.billed() == 2, "a look holds good for a while"
        clock.time += 2
        with pytest.raises(RecordingError, match=r"replaced while it waited.*1\.ogg.*A retry takes") as raised:
            desk_intake.send(item.link, item.settings)
        assert raised.value.retry_can_help
        assert desk.billed() == 2


def test_a_recording_that_has_gone_while_it_waited_is_not_sent(desk: Desk, emulator_s3: Any) -> None:
    clock = Clock()
    with SpeechKitHook() as hook:
        desk_intake = intake(hook, clock)
        [item] = desk_intake.recordings(desk_intake.find([desk.put()]), None)
        emulator_s3.delete_object(Bucket=desk.bucket, Key=f"{desk.prefix}/1.ogg")
        clock.time += LOOK_HOLDS_S + 1
        with pytest.raises(RecordingError, match="isn't there"):
            desk_intake.send(item.link, item.settings)
    assert desk.billed() == 0


def test_one_that_was_replaced_does_not_hold_up_the_others(desk: Desk) -> None:
    archive = Archive.at(desk.archive_url)
    with SpeechKitHook() as hook:
        # Each look at the clock finds the last one long ago.
        desk_intake = intake(hook, itertools.count(step=1000).__next__)
        items = desk_intake.recordings(desk_intake.find([desk.put("1.ogg"), desk.put("2.ogg")]), None)

        def prepare(item: Recording) -> Recording:
            prepared = desk_intake.prepare(item)
            if item.audio_uri.endswith("1.ogg"):
                desk.put("1.ogg", content=ANOTHER)
            return prepared

        archive.probe(datetime.now(UTC))
        outcomes = Submitter(archive, desk_intake.send, prepare=prepare).submit(items)
    assert [one.how for one in outcomes] == [How.REFUSED, How.SUBMITTED]
    assert isinstance(outcomes[0].error, RecordingError)
    assert desk.billed() == 1


def test_a_key_that_no_link_leads_to_does_not_hold_up_the_others(desk: Desk, emulator_s3: Any) -> None:
    desk.put("1.ogg")
    emulator_s3.put_object(Bucket=desk.bucket, Key=f"{desk.prefix}/x/../2.ogg", Body=OGG)
    with SpeechKitHook() as hook:
        desk_intake = intake(hook, Clock())
        found = desk_intake.recordings(desk_intake.find(f"s3://{desk.bucket}/{desk.prefix}/"), None)
    assert [(item.audio_uri.rpartition("/")[2], item.error is None) for item in found] == [
        ("1.ogg", True),
        ("2.ogg", False),
    ]


def test_how_many_there_are_is_known_before_anything_is_looked_at_or_uploaded(desk: Desk) -> None:
    with SpeechKitHook() as hook:
        found = replace(intake(hook, Clock()), upload_to=f"s3://{desk.bucket}/{desk.prefix}/")
        listed = found.find(["/calls/1.wav", desk.put("1.ogg"), "s3://there-is-no-such-bucket/1.ogg"])
        assert (len(listed.looks), listed.by_pattern) == (3, False)
        desk.put("2.ogg", OGG)
        listed = found.find([f"s3://{desk.bucket}/{desk.prefix}/", "/calls/1.wav"])
        assert (len(listed.looks), listed.by_pattern) == (3, True)
