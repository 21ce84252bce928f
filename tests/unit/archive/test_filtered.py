"""A recording that is left out isn't sent, and isn't an attempt; on request it is on record, with its reason."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from airflow_speechkit.archive.inspection import look_up, operations, verify
from airflow_speechkit.archive.maintenance import delete_operation
from airflow_speechkit.archive.runs import SubmitRun, read_run, write_run
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit import Submitter
from airflow_speechkit.archive.submit_rules import OnFailure, OnFiltered, SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import RefusedError
from airflow_speechkit.models import FilterReason, Recording
from airflow_speechkit.recordings.filters import FilteredError, Filters, left_out
from tests.unit.archive.world import T0, Service, Source, recording, submitter

FILTERS = Filters(min_duration_s=5, max_duration_s=100)


def found(name: str) -> Recording:
    """A recording that isn't probed yet."""
    return recording(name, duration_ms=None, channels=None, billed_seconds=None)


def probe(recording: Recording) -> Recording:
    """Read a recording whose name is its length in seconds."""
    duration_ms = 1000 * int(recording.link)
    try:
        FILTERS.check(duration_ms, 2)
    except FilteredError as error:
        return left_out(recording, error)
    return replace(recording, duration_ms=duration_ms, channels=2, billed_seconds=duration_ms // 1000)


def process(archive: Archive, service: Service, run: str = "run-1", **policy: object) -> Submitter:
    made = submitter(archive, service, run=run, **policy)
    made.source = Source(probe, FILTERS)  # type: ignore[assignment]
    return made


def recordings() -> list[Recording]:
    return [found(name) for name in ("3", "60", "300", "1")]


def test_it_is_neither_sent_nor_an_error(archive: Archive, service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = process(archive, service, max_billed_seconds=60)
    outcomes = first.submit(recordings())
    short = (SubmitStatus.FILTERED, FilterReason.TOO_SHORT, 0)
    assert [(one.status, one.recording.filter_reason, one.recording.billed_seconds) for one in outcomes] == [
        short,
        (SubmitStatus.SUBMITTED, None, 60),
        (SubmitStatus.FILTERED, FilterReason.TOO_LONG, 0),
        short,
    ]
    assert first.returned_ids(outcomes, OnFailure.FAIL) == [outcomes[1].operation_id]
    assert service.accepted == {"60": 1}
    assert "3 recordings are left out: 2 shorter than 5 s, 1 longer than 100 s" in caplog.text
    assert not archive.attempts(outcomes[0].fingerprint)
    assert len(list(archive.operations())) == 1


def test_it_is_on_record_if_it_is_to_be(archive: Archive, service: Service) -> None:
    first = process(archive, service, on_filtered=OnFiltered.RECORD)
    outcomes = first.submit(recordings())
    for _ in range(2):
        ids = first.returned_ids(outcomes, OnFailure.SKIP)
        assert ids == [outcomes[1].operation_id if n == 1 else f"filtered-{outcomes[n].fingerprint}" for n in range(4)]
    submission = archive.submission(ids[2])
    assert submission is not None
    assert (submission.filter_reason, submission.duration_ms, submission.billed_seconds, submission.labels) == (
        FilterReason.TOO_LONG,
        300_000,
        0,
        {"call_id": "300"},
    )
    outcome = archive.outcome(ids[2])
    assert outcome is not None
    assert outcome.failure is None
    assert sorted(one.state for one in operations(archive)) == ["filtered"] * 3 + ["running"]
    assert verify(archive, T0).operations == {"filtered": 3, "running": 1}
    assert not verify(archive, T0).findings


def test_it_is_sent_once_the_filter_allows_it(archive: Archive, service: Service) -> None:
    first = process(archive, service, on_filtered=OnFiltered.RECORD)
    [filtered_id] = first.returned_ids(first.submit([found("3")]), OnFailure.FAIL)
    service.clock.advance(hours=1)
    second = submitter(archive, service, run="run-2")
    [operation_id] = second.returned_ids(second.submit([found("3")]), OnFailure.FAIL)
    assert service.accepted == {"3": 1}
    assert operation_id != filtered_id
    listed = look_up(archive, filtered_id)
    assert listed is not None
    assert listed.state == "superseded"
    # The filter is back, and the recording has its operation.
    third = process(archive, service, run="run-3", on_filtered=OnFiltered.RECORD)
    assert third.returned_ids(third.submit([found("3")]), OnFailure.FAIL) == [operation_id]


def test_it_can_be_forgotten_and_be_put_on_record_again(archive: Archive, service: Service) -> None:
    first = process(archive, service, on_filtered=OnFiltered.RECORD)
    outcomes = first.submit([found("3")])
    [filtered_id] = first.returned_ids(outcomes, OnFailure.FAIL)
    for _ in range(2):
        delete_operation(archive, filtered_id, now=T0)
        assert archive.submission(filtered_id) is None
        assert first.returned_ids(outcomes, OnFailure.FAIL) == [filtered_id]
        assert archive.submission(filtered_id) is not None


def test_later_visits_know_what_is_left_out(archive: Archive, service: Service) -> None:
    pending = [SubmitOutcome(recording=found(name)) for name in ("3", "60", "61", "300")]
    visit = process(archive, service, submits_per_hour=1).visit(SubmitRun(began_at=T0, outcomes=pending))
    assert visit.next_at is not None
    write_run(archive, "run-1", visit)
    record = read_run(archive, "run-1", pending[0].recording.settings)
    assert record is not None
    assert [one.recording.link or one.recording.audio_uri for one in record.outcomes if one.status is None] == [
        "s3://calls/61.ogg"
    ]
    left = [SubmitOutcome(recording=found("61")) if one.status is None else one for one in record.outcomes]
    service.clock.time = visit.next_at
    last = process(archive, service, submits_per_hour=1, on_filtered=OnFiltered.RECORD)
    done = last.visit(replace(record, outcomes=left)).done
    assert [one.status for one in done] == ["filtered", "submitted", "submitted", "filtered"]
    ids = last.returned_ids(done, OnFailure.FAIL)
    reasons = [known.filter_reason for one in ids if (known := archive.submission(one)) is not None]
    assert reasons == [FilterReason.TOO_SHORT, None, None, FilterReason.TOO_LONG]


def test_one_that_is_found_to_be_short_when_it_is_sent_does_not_use_the_quota(
    archive: Archive, service: Service
) -> None:
    run = SubmitRun(began_at=T0, is_resumed=True, outcomes=[SubmitOutcome(recording=found(one)) for one in ("3", "60")])
    visit = process(archive, service, submits_per_hour=1).visit(run)
    assert [one.status for one in visit.done] == ["filtered", "submitted"]
    assert len(visit.sent_at) == 1


def test_the_task_fails_for_the_others_only(archive: Archive, service: Service) -> None:
    service.script["60"] = [RefusedError("no", http_status=400, grpc_code=3)]
    first = process(archive, service, on_filtered=OnFiltered.RECORD)
    outcomes = first.submit(recordings())
    with pytest.raises(RefusedError) as refused:
        first.returned_ids(outcomes, OnFailure.FAIL)
    assert "The others" not in str(refused.value), "nothing of them is in the archive"
    ids = first.returned_ids(outcomes, OnFailure.RECORD)
    assert [one.partition("-")[0] for one in ids] == ["filtered", "refused", "filtered", "filtered"]
