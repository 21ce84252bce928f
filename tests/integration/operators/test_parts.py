"""A recording that is longer than the service takes: recognised in parts, and joined again in the tables."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from airflow.exceptions import AirflowException

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.cli import main
from airflow_speechkit.errors import (
    RecognitionFailedError,
    RecordingError,
    SettingsError,
    TooLongError,
)
from airflow_speechkit.recordings.audio import facts as limits
from airflow_speechkit.recordings.conversion import convert
from tests.fixtures.direct import Desk
from tests.integration.operators.long_recordings import (
    Word,
    keys_of,
    said,
    seed_parts,
    submit,
    tables,
    transcript,
    wait,
    wav_of,
    words_of,
)

pytestmark = pytest.mark.usefixtures("instant_answers")


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client believes that the service takes 20 s of one channel."""
    monkeypatch.setattr(limits, "MAX_CHANNEL_MS", 20_000)


@pytest.fixture
def parts_seeded(desk: Desk, emulator_s3: Any) -> Any:
    """Return a function that converts a recording, and tells the emulator what is said in each part."""
    return partial(seed_parts, desk, emulator_s3)


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize("api_version", ["v2", "v3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_tables_are_those_of_the_whole(
    desk: Desk, parts_seeded: Any, monkeypatch: pytest.MonkeyPatch, api_version: str, channels: int
) -> None:
    seconds = 50 / channels
    spoken = words_of(seconds, channels)
    audio = desk.put("long.wav", wav_of(spoken, seconds))
    starts = parts_seeded(audio, spoken, api_version=api_version)
    assert len(starts) >= 3
    ids = submit(desk, audio, api_version=api_version)
    assert len(ids) == len(starts)
    wait(ids)
    parts = tables(desk, ids, "parts")

    monkeypatch.setattr(limits, "MAX_CHANNEL_MS", 4 * 3_600_000)
    desk.emulator.seed(transcript(spoken), glob=f"*{desk.prefix}*whole*")
    whole = submit(desk, desk.put("whole.wav", wav_of(spoken, seconds)), api_version=api_version)
    wait(whole)
    control = tables(desk, whole, "whole")
    assert said(parts["words"]) == said(control["words"])
    [row], [known] = parts["recognitions"], control["recognitions"]
    same = ("utterances", "words", "duration_ms", "channels", "status", "labels", "language", "api_version")
    assert {name: row[name] for name in same} == {name: known[name] for name in same}
    assert row["audio_uri"] == audio
    assert row["recognition_id"].startswith("parts-")
    assert row["operation_id"] is None
    described = json.loads(row["parts"])
    assert [one["operation_id"] for one in described] == ids
    assert [one["start_ms"] for one in described] == starts
    assert {one["recognition_id"] for one in parts["words"]} == {row["recognition_id"]}
    assert row["billed_seconds"] == sum(max(15, -(-one["duration_ms"] // 1000)) for one in described)


@pytest.mark.usefixtures("short_limit")
def test_a_part_that_failed_is_forgotten_and_submitted_alone(
    desk: Desk, parts_seeded: Any, emulator_s3: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken = words_of(50)
    audio = desk.put("long.wav", wav_of(spoken, 50))
    starts = parts_seeded(audio, spoken, failing=2)
    ids = submit(desk, audio, labels={"call": "7"})
    assert wait(ids, on_failure="record")
    failed = tables(desk, ids, "failed")
    [row] = failed["recognitions"]
    assert (row["status"], row["error_code"]) == ("failed", 3)
    assert row["error_message"] == "Part 2 of 3: bad"
    assert row["duration_ms"] == 50_000
    first = said(transcript_rows(spoken, 0, starts[1]))
    assert [one[:4] for one in said(failed["words"]) if one[3] <= starts[1]] == [one[:4] for one in first]

    capsys.readouterr()
    assert main(["archive", "list", "--archive", desk.archive_url]) == 0
    assert f"{audio} (part 2 of 3)  bad" in capsys.readouterr().out

    # The same again: nothing is paid, the failed part is named.
    with pytest.raises((RecognitionFailedError, AirflowException), match="failed: bad"):
        submit(desk, audio)
    assert billed(desk) == 3

    parts_seeded_again = transcript(spoken, starts[1], starts[2])
    key = next(one for one in keys_of(desk, emulator_s3) if "-part2" in one)
    desk.emulator.seed(parts_seeded_again, key=key)
    connection = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", connection["login"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", connection["password"])
    at = ["--archive", desk.archive_url, "--endpoint-url", desk.emulator.storage_url]
    capsys.readouterr()
    assert main(["archive", "forget", ids[1], *at]) == 0
    said_about_rows = capsys.readouterr().out
    assert f"'{row['recognition_id']}'" in said_about_rows
    again = submit(desk, audio)
    assert again[0] == ids[0]
    assert again[2] == ids[2]
    assert again[1] != ids[1]
    assert billed(desk) == 4
    wait(again)
    # The rows of the whole come with the one part that is new.
    mended = tables(desk, [again[1]], "mended")
    [now] = mended["recognitions"]
    assert (now["status"], now["recognition_id"]) == ("finished", row["recognition_id"])
    assert now["labels"] == row["labels"]
    assert [one[:4] for one in said(mended["words"])] == [one[:4] for one in said(transcript_rows(spoken))]
    # A backfill gets the same operations, and so the same rows.
    assert submit(desk, [audio]) == again
    assert billed(desk) == 4

    assert main(["archive", "forget", "--recording", audio, *at]) == 0
    assert not list(Archive.at(desk.archive_url).operations())
    assert not [one for one in keys_of(desk, emulator_s3) if "-part" in one]


def transcript_rows(
    spoken: Sequence[Sequence[Word]], start_ms: int = 0, end_ms: int | None = None
) -> list[dict[str, Any]]:
    empty = {"utterance": 0, "alternative": 0, "word_index": 0, "channel": "1"}
    return [
        {**empty, "word": text, "start_ms": begin, "end_ms": end}
        for text, begin, end in spoken[0]
        if begin >= start_ms and (end_ms is None or end <= end_ms)
    ]


def billed(desk: Desk) -> int:
    return sum(f"{desk.prefix}-copies/" in str(one) for one in desk.emulator.billing())


@pytest.mark.usefixtures("short_limit")
def test_a_refused_part_is_on_record_and_sent_by_the_next_run(desk: Desk, parts_seeded: Any) -> None:
    spoken = words_of(50)
    audio = desk.put("long.wav", wav_of(spoken, 50))
    parts_seeded(audio, spoken)
    other = desk.put("short.ogg")
    desk.emulator.fault("400", on="submit", times=1, message="no sound", match="-part2.")
    ids = submit(desk, [audio, other], on_failure="record")
    assert len(ids) == 4
    refused = [one for one in ids if one.startswith("refused-")]
    assert len(refused) == 1
    wait(ids)
    rows = {row["audio_uri"]: row for row in tables(desk, ids, "refused")["recognitions"]}
    whole, short = rows[audio], rows[other]
    assert (whole["status"], whole["error_message"]) == (
        "refused",
        'Part 2 of 3: The service refused the submission with HTTP 400: "no sound"',
    )
    assert short["status"] == "finished"
    again = submit(desk, [audio, other])
    wait(again)
    assert {row["status"] for row in tables(desk, again, "again")["recognitions"]} == {"finished"}


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize("what", ["a recording", "a pair"])
def test_it_is_cut_where_it_was_cut_before(
    desk: Desk, parts_seeded: Any, emulator_s3: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    spoken = words_of(50)
    audio: Any = desk.put("7-in.wav", wav_of(spoken, 50))
    if what == "a pair":
        audio = [(audio, desk.put("7-out.wav", wav_of(spoken, 50)))]
    starts = parts_seeded(audio, spoken)
    ids = submit(desk, audio)

    def etags() -> dict[str, str]:
        keys = keys_of(desk, emulator_s3)
        return {key: emulator_s3.head_object(Bucket=desk.bucket, Key=key)["ETag"] for key in keys}

    copies = etags()
    for key in copies:
        emulator_s3.delete_object(Bucket=desk.bucket, Key=key)

    def elsewhere(*_: Any) -> list[int]:
        """As another version of a decoder may find."""
        return [one - 500 for one in starts[1:]]

    monkeypatch.setattr(convert, "cuts_ms", elsewhere)
    assert submit(desk, audio) == ids
    assert billed(desk) == len(ids)
    made_again = {
        key: emulator_s3.head_object(Bucket=desk.bucket, Key=key)["ETag"] for key in keys_of(desk, emulator_s3)
    }
    assert made_again == copies


@pytest.mark.usefixtures("short_limit")
def test_a_local_file_is_uploaded_and_submitted_in_parts(desk: Desk, emulator_s3: Any) -> None:
    path = desk.place / "long.wav"
    path.write_bytes(wav_of(words_of(50), 50))
    desk.emulator.seed({"channels": [{"utterances": [{"text": "yes"}]}], "processing_s": 0}, glob=f"*{desk.prefix}*")
    ids = submit(desk, str(path))
    assert len(ids) == 3
    assert submit(desk, str(path)) == ids
    assert billed(desk) == 3


@pytest.mark.usefixtures("short_limit")
def test_a_pair_that_is_too_long_is_submitted_in_parts(desk: Desk, parts_seeded: Any) -> None:
    spoken = words_of(25, channels=2)
    sides = [desk.put(f"7-{name}.wav", wav_of(spoken[n : n + 1], 25)) for n, name in enumerate(("in", "out"))]
    starts = parts_seeded([sides], spoken)
    ids = submit(desk, [sides])
    assert len(ids) == len(starts) > 1
    wait(ids)
    found = tables(desk, ids, "pair")
    [row] = found["recognitions"]
    assert (row["audio_uri"], row["paired_uri"], row["channels"], row["duration_ms"]) == (*sides, 2, 25_000)
    for channel, words in zip("12", spoken, strict=True):
        assert sorted(one[2] for one in said(found["words"]) if one[0] == channel) == [one[1] for one in words]
    assert submit(desk, [sides]) == ids


@pytest.mark.usefixtures("short_limit")
def test_it_is_refused_without_the_keyword_and_without_an_archive(desk: Desk) -> None:
    audio = desk.put("long.wav", wav_of(words_of(50), 50))
    with pytest.raises((TooLongError, AirflowException), match="split=True"):
        submit(desk, audio, split=False)
    with pytest.raises(SettingsError, match="`split` needs an archive"):
        submit(desk, audio, archive=False)
    with pytest.raises((RecordingError, AirflowException), match="split=True"):
        submit(desk, audio, upload_to=None)
    assert not billed(desk)
