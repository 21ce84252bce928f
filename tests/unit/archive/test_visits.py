"""A task that doesn't wait for the quota works in visits: each goes on by what is on record."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from airflow_speechkit.archive.runs import SubmitRun, read_run, write_run
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import (
    ArchiveError,
    CostLimitExceededError,
    QuotaExceededError,
    RecordingError,
    RefusedError,
    UnreachableError,
)
from airflow_speechkit.models import Recording
from tests.unit.archive.world import Killed, Life, Service, answer, failure, lost, mortal, recording, submitter


@dataclass
class Run:
    """A task instance's tries and visits, each by a process of its own."""

    archive: Archive
    service: Service
    found: list[Recording]
    policy: dict[str, Any] = field(default_factory=dict)
    name: str = "run-1"
    last: SubmitRun | None = None

    def start(self) -> SubmitRun:
        self.last = None
        return self.go_on()

    def go_on(self) -> SubmitRun:
        """Wait until the last visit's `next_at`, and make the next."""
        clock = self.service.clock
        if self.last is not None and self.last.next_at is not None:
            clock.time = max(clock.time, self.last.next_at)
        process = submitter(self.archive, self.service, run=self.name, **{"submits_per_hour": 5, **self.policy})
        pending = [SubmitOutcome(recording=one) for one in self.found]
        run = SubmitRun(began_at=clock.now(), outcomes=pending)
        if self.last is not None:
            record = read_run(self.archive, self.name, recording("00").settings)
            assert record is not None
            # What is left has been looked up again.
            outcomes = [new if old.status is None else old for old, new in zip(record.outcomes, pending, strict=True)]
            run = replace(record, outcomes=outcomes)
        self.last = process.visit(run)
        write_run(self.archive, self.name, self.last)
        return self.last

    def finish(self, visit: SubmitRun | None = None) -> list[SubmitOutcome]:
        visit = visit or self.last or self.start()
        while visit.left:
            visit = self.go_on()
        return visit.done


def recordings(count: int, **about: Any) -> list[Recording]:
    return [recording(f"{number:02}", **about) for number in range(count)]


@pytest.fixture
def run(archive: Archive, service: Service) -> Run:
    return Run(archive, service, recordings(12))


def ends(outcomes: list[SubmitOutcome]) -> set[SubmitStatus]:
    return {one.status for one in outcomes}


def test_each_visit_sends_what_the_quota_allows_and_no_hour_sees_more(run: Run, service: Service) -> None:
    sent = [len(run.start().done)]
    while run.last is not None and run.last.left:
        sent.append(len(run.go_on().done))
    assert sent == [5, 10, 12]
    assert not service.clock.slept_s
    assert ends(run.finish()) == {SubmitStatus.SUBMITTED}
    times = sorted(service.created_at.values())
    assert all(later - earlier >= timedelta(hours=1) for earlier, later in zip(times, times[5:], strict=False))
    assert set(service.accepted.values()) == {1}


@pytest.mark.parametrize("reuse", [True, False])
def test_a_new_try_counts_what_has_used_up_the_quota(run: Run, service: Service, reuse: bool) -> None:
    run.policy = {"reuse": reuse}
    run.start()
    for _ in range(3):
        assert len(run.start().left) == 7
    assert len(run.finish()) == 12
    assert set(service.accepted.values()) == {1}
    assert len(service.accepted) == 12


def test_so_does_another_run(run: Run, archive: Archive, service: Service) -> None:
    other = Run(archive, service, run.found, name="run-2")
    run.start()
    assert len(other.start().left) == 7
    assert ends(other.last.done if other.last else []) == {SubmitStatus.JOINED}
    ids = [one.operation_id for one in run.finish()]
    assert [one.operation_id for one in other.finish()] == ids
    assert set(service.accepted.values()) == {1}


def test_what_is_paid_again_on_purpose_is_so_once_for_each_run(run: Run, archive: Archive, service: Service) -> None:
    run.finish()
    service.clock.advance(hours=1)
    other = Run(archive, service, run.found, {"reuse": False}, name="run-2")
    other.start()
    other.start()
    other.finish()
    assert set(service.accepted.values()) == {2}


def test_others_recordings_are_waited_for_only_while_nothing_else_can_be_sent(run: Run, service: Service) -> None:
    service.script["00"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        Run(run.archive, service, [recording("00")], name="killed").start()
    assert len(run.start().left) == 7
    assert not service.clock.slept_s
    assert [one.status for one in run.finish()] == [SubmitStatus.LOST] + [SubmitStatus.SUBMITTED] * 11


@pytest.mark.parametrize("moment", range(0, 60, 3))
def test_a_process_that_is_killed_at_any_moment_of_a_later_visit_pays_nothing_twice(
    tmp_path: Path, service: Service, moment: int
) -> None:
    archive = Archive.at(tmp_path)
    archive.probe(service.clock.now())
    run = Run(archive, service, recordings(8))
    run.start()
    run.archive = mortal(tmp_path, Life(moment))
    with suppress(Killed):
        run.go_on()
    run.archive = archive
    service.clock.advance(hours=1)
    run.start()
    outcomes = run.finish()
    assert len(outcomes) == 8
    assert set(service.accepted.values()) == {1}
    assert ends(outcomes) <= {SubmitStatus.JOINED, SubmitStatus.SUBMITTED, SubmitStatus.LOST}


class TestWhatBecameOfItMeanwhile:
    @pytest.mark.parametrize("code", [None, 3, 13])
    def test_what_has_ended_is_not_paid_again_by_a_later_visit(
        self, run: Run, archive: Archive, service: Service, code: int | None
    ) -> None:
        [first, *_] = run.start().done
        assert first.operation_id is not None
        why = None if code is None else failure(code)
        archive.keep(answer(first.operation_id), why, now=service.clock.now())
        outcomes = run.finish()
        assert (outcomes[0].status, outcomes[0].operation_id) == (SubmitStatus.SUBMITTED, first.operation_id)
        assert service.accepted.total() == 12
        service.clock.advance(hours=1)
        again = {None: SubmitStatus.REUSED, 3: SubmitStatus.FAILED, 13: SubmitStatus.SUBMITTED}[code]
        run.start()
        assert run.finish()[0].status is again, "a new try does as ever"

    def test_what_runs_for_days_is_still_its_own(self, run: Run, service: Service) -> None:
        run.start()
        service.clock.advance(days=4)
        assert ends(run.finish()) == {SubmitStatus.SUBMITTED}
        assert service.accepted.total() == 12

    def test_what_the_service_refused_is_not_sent_again(self, run: Run, service: Service) -> None:
        names = [one.link for one in run.found[:7]]
        service.script |= {name: [RefusedError("no sound", http_status=400, grpc_code=3)] * 9 for name in names}
        outcomes = run.finish()
        assert service.asked == 12
        assert [one.status for one in outcomes] == [SubmitStatus.REFUSED] * 7 + [SubmitStatus.SUBMITTED] * 5
        assert "no sound" in str(outcomes[0].error)
        assert "s3://calls/00.ogg" in str(outcomes[0].error)
        assert outcomes[0].error is not None
        assert not outcomes[0].error.retry_can_help
        run.start()
        run.finish()
        assert service.asked == 12 + 7, "a new try sends them again, once"

    def test_what_was_not_taken_for_other_reasons_is_sent_again(self, run: Run, service: Service) -> None:
        service.script["00"] = [QuotaExceededError("quota", http_status=429), UnreachableError("refused")]
        assert ends(run.finish()) == {SubmitStatus.SUBMITTED}
        assert set(service.accepted.values()) == {1}

    @pytest.mark.parametrize("again", [False, True])
    def test_a_lost_submission_stays_lost(self, run: Run, service: Service, again: bool) -> None:
        run.policy = {"on_lost_submission": "resubmit" if again else "fail"}
        service.script["00"] = [lost(), lost()]
        outcomes = run.finish()
        assert outcomes[0].status is SubmitStatus.LOST
        assert service.accepted["00"] == (2 if again else 1)
        assert ends(outcomes[1:]) == {SubmitStatus.SUBMITTED}

    def test_what_is_deleted_or_replaced_meanwhile_is_returned(self, run: Run, service: Service) -> None:
        ids = [one.operation_id for one in run.start().done]
        missing = recording("01", version=None, error=RecordingError("There is no such object"))
        run.found = [recording("00", version="another"), missing, *run.found[2:]]
        outcomes = run.finish()
        assert [one.operation_id for one in outcomes[:5]] == ids
        assert ends(outcomes) == {SubmitStatus.SUBMITTED}
        assert service.accepted.total() == 12

    def test_a_later_visit_asks_the_archive_only_for_what_is_left(self, run: Run) -> None:
        run.start()
        with mock.patch.object(Archive, "attempts", autospec=True, side_effect=Archive.attempts) as attempts:
            run.finish()
        assert len({one.args[1] for one in attempts.call_args_list}) == 7

    def test_a_new_try_replaces_the_record_of_the_last_one(self, run: Run, service: Service) -> None:
        run.start()
        run.found = [recording("00", version="another"), *run.found[1:]]
        outcomes = run.finish(run.start())
        assert service.accepted.total() == 13
        assert outcomes[0].recording.version == "another"

    @pytest.mark.parametrize("text", ["s3://", "s3:///key", "s3://a bucket/1.ogg", "s3://calls/", "no address"])
    def test_what_is_no_address_is_refused_in_each_visit(self, run: Run, service: Service, text: str) -> None:
        """A list may hold anything, and a pattern is on record as it is written."""
        error = RecordingError("This is no recording", recording=text)
        settings = recording("00").settings
        run.found = [Recording(audio_uri=text, version=None, settings=settings, error=error), *run.found[1:]]
        outcomes = run.finish()
        assert ends(outcomes[:1]) == {SubmitStatus.REFUSED}
        assert ends(outcomes[1:]) == {SubmitStatus.SUBMITTED}
        assert service.accepted.total() == 11
        assert outcomes[0].recording.audio_uri == text

    def test_a_damaged_record_of_the_run_is_an_error(self, run: Run, archive: Archive) -> None:
        run.start()
        [name] = archive.folder.names("runs")
        archive.folder.replace(name, b'{"archive_version": 1, "recordings": {}}')
        with pytest.raises(ArchiveError, match="damaged"):
            run.go_on()


class TestRefusals:
    def test_a_429_ends_the_visit_and_its_pause_is_kept_to(self, run: Run, service: Service) -> None:
        run.policy = {"submits_per_hour": 500}
        service.script["02"] = [QuotaExceededError("quota", http_status=429, retry_after_s=900.0)]
        visit = run.start()
        assert len(visit.done) == 2
        assert visit.next_at is not None
        assert visit.next_at - service.clock.now() == timedelta(seconds=900)
        assert visit.refused_since == service.clock.now()
        assert ends(run.finish()) == {SubmitStatus.SUBMITTED}

    def test_after_a_429_one_request_finds_out_whether_it_is_over(self, run: Run, service: Service) -> None:
        run.policy = {"concurrency": 8, "submits_per_hour": 500}
        for one in run.found:
            service.script[one.link] = [QuotaExceededError("quota", http_status=429)] * 20
        run.start()
        asked = service.asked
        assert asked <= 8
        run.go_on()
        assert service.asked == asked + 1

    def test_a_quota_that_stays_used_up_is_raised_after_two_hours_of_visits(self, run: Run, service: Service) -> None:
        run.policy = {"submits_per_hour": 500}
        for one in run.found[5:]:
            service.script[one.link] = [QuotaExceededError("quota", http_status=429)] * 999
        began = service.clock.now()
        with pytest.raises(QuotaExceededError):
            run.finish()
        assert service.clock.now() - began == timedelta(hours=2)

    def test_waiting_for_the_own_quota_is_no_refusal(self, run: Run, service: Service) -> None:
        run.policy = {"submits_per_hour": 1}
        service.script["02"] = [QuotaExceededError("quota", http_status=429)]
        run.found, began_at = run.found[:3], service.clock.now()
        assert ends(run.finish()) == {SubmitStatus.SUBMITTED}
        assert service.clock.now() - began_at < timedelta(hours=2, minutes=2)

    def test_trouble_is_sat_out_in_place(self, run: Run, service: Service) -> None:
        run.found = run.found[:1]
        service.script["00"] = [UnreachableError("connection refused")] * 9
        with pytest.raises(UnreachableError):
            run.start()
        assert sum(service.clock.slept_s) == pytest.approx(70)


class TestBudget:
    def test_only_the_first_visit_reads_all_of_them(self, run: Run) -> None:
        read: list[str] = []

        def probe(one: Recording) -> Recording:
            read.append(one.link)
            return replace(one, channels=2)

        run.found = recordings(12, channels=None)
        run.policy = {"probe": probe}
        run.start()
        assert len(read) == 12
        run.go_on()
        assert sorted(read[12:]) == ["05", "06", "07", "08", "09"]

    def test_more_than_the_limit_is_refused_before_anything_is_sent(self, run: Run, service: Service) -> None:
        run.policy = {"max_billed_seconds": 12 * 60 - 1}
        with pytest.raises(CostLimitExceededError, match="720 seconds"):
            run.start()
        assert service.asked == 0

    def test_what_comes_meanwhile_is_sent_within_the_limit_only(self, run: Run, service: Service) -> None:
        run.policy = {"max_billed_seconds": 13 * 60}
        run.start()
        longer = [recording(f"{number:02}", version="another", billed_seconds=120) for number in (10, 11)]
        run.found = [*run.found[:10], *longer]
        outcomes = run.finish()
        assert [one.status for one in outcomes] == [SubmitStatus.SUBMITTED] * 11 + [SubmitStatus.REFUSED]
        assert isinstance(outcomes[-1].error, CostLimitExceededError)
        assert service.accepted.total() == 11

    def test_what_was_lost_may_have_been_billed(self, run: Run, service: Service) -> None:
        run.policy = {"max_billed_seconds": 12 * 60}
        service.script["00"] = [lost()]
        run.start()
        run.found = [*run.found[:11], recording("11", version="another", billed_seconds=61)]
        outcomes = run.finish()
        assert isinstance(outcomes[-1].error, CostLimitExceededError)
        assert service.accepted.total() == 11

    def test_what_an_earlier_try_sent_does_not_count(self, run: Run, service: Service) -> None:
        run.policy = {"max_billed_seconds": 12 * 60}
        run.start()
        service.clock.advance(hours=1)
        run.found = recordings(17)
        run.start()
        assert len(run.finish()) == 17
