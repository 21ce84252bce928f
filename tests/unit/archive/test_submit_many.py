"""Many recordings: quota, budget, runs side by side, an archive in trouble, progress."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import OnFailure, SubmitJob, SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import (
    ArchiveError,
    CostLimitExceededError,
    QuotaExceededError,
    RefusedError,
    SpeechKitError,
    SubmissionLostError,
    SubmissionsFailedError,
    UnreachableError,
)
from airflow_speechkit.settings import RecognitionSettings
from tests.unit.archive.world import T0, Life, Service, lost, mortal, recording, submitter


def ends(outcomes: list[SubmitOutcome]) -> list[SubmitStatus]:
    return [one.status for one in outcomes]


class TestQuota:
    def test_a_429_stops_all_for_as_long_as_the_service_asks(self, archive: Archive, service: Service) -> None:
        service.script["2"] = [QuotaExceededError("quota", http_status=429, retry_after_s=95.0)]
        outcomes = submitter(archive, service).submit([recording(name) for name in "123"])
        assert ends(outcomes) == [SubmitStatus.SUBMITTED] * 3
        assert sum(service.clock.slept_s) >= 95
        assert service.accepted == {"1": 1, "2": 1, "3": 1}

    def test_a_429_storm_is_waited_out_with_growing_pauses(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [QuotaExceededError("quota", http_status=429) for _ in range(5)]
        outcomes = submitter(archive, service).submit([recording("1"), recording("2")])
        assert ends(outcomes) == [SubmitStatus.SUBMITTED] * 2
        assert sum(service.clock.slept_s) >= 10 + 20 + 40 + 80

    def test_a_quota_that_stays_used_up_ends_the_task_and_a_retry_goes_on(
        self, archive: Archive, service: Service
    ) -> None:
        service.script["2"] = [QuotaExceededError("quota", http_status=429) for _ in range(99)]
        with pytest.raises(QuotaExceededError):
            submitter(archive, service, patience=timedelta(hours=1)).submit([recording("1"), recording("2")])
        service.script.clear()
        assert ends(submitter(archive, service).submit([recording("1"), recording("2")])) == [
            SubmitStatus.JOINED,
            SubmitStatus.SUBMITTED,
        ]

    @pytest.mark.parametrize("asked_for_s", [None, 3500.0, 3600.0, 86400.0])
    def test_two_hours_without_any_acceptance_end_the_task_whatever_pauses_the_service_asks_for(
        self, archive: Archive, service: Service, asked_for_s: float | None
    ) -> None:
        service.script["2"] = [QuotaExceededError("quota", http_status=429, retry_after_s=asked_for_s)] * 999
        with pytest.raises(QuotaExceededError):
            submitter(archive, service).submit([recording("1"), recording("2")])
        assert service.clock.now() - T0 == timedelta(hours=2)

    def test_so_does_trouble_of_which_each_recording_has_only_a_little(
        self, archive: Archive, service: Service
    ) -> None:
        names = [str(number) for number in range(50)]
        service.script |= {name: [UnreachableError("connection refused")] * 99 for name in names}
        with pytest.raises(UnreachableError):
            submitter(archive, service).submit([recording(name) for name in names])
        assert service.clock.now() - T0 == timedelta(hours=2)

    def test_no_more_go_out_in_any_hour_than_allowed(self, archive: Archive, service: Service) -> None:
        submitter(archive, service, submits_per_hour=5, concurrency=3).submit([recording(str(n)) for n in range(17)])
        sent = sorted(service.created_at.values())
        assert len(sent) == 17
        for earlier, later in zip(sent, sent[5:], strict=False):
            assert later - earlier >= timedelta(hours=1)

    def test_what_others_submit_is_looked_at_while_the_own_quota_is_used_up(
        self, archive: Archive, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service.script["3"] = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            submitter(archive, service, run="killed").submit([recording("3")])
        concluded: dict[str, float] = {}
        end = SubmitJob.end

        def noted(job: SubmitJob, *args: Any, **kwargs: Any) -> None:
            concluded[job.recording.link] = (service.clock.now() - T0).total_seconds()
            end(job, *args, **kwargs)

        monkeypatch.setattr(SubmitJob, "end", noted)
        outcomes = submitter(archive, service, submits_per_hour=1).submit([recording(name) for name in "123"])
        assert ends(outcomes) == [SubmitStatus.SUBMITTED, SubmitStatus.SUBMITTED, SubmitStatus.LOST]
        assert concluded["3"] == pytest.approx(600, abs=10), "when the other's lease ends"
        assert (concluded["1"], concluded["2"]) == (0, pytest.approx(3600))

    def test_looking_at_what_others_submit_uses_up_no_quota(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            submitter(archive, service, run="killed").submit([recording("1")])
        outcomes = submitter(archive, service, submits_per_hour=2).submit([recording(name) for name in "123"])
        assert ends(outcomes) == [SubmitStatus.LOST, SubmitStatus.SUBMITTED, SubmitStatus.SUBMITTED]
        assert sum(service.clock.slept_s) < 700

    def test_trouble_is_retried_after_a_pause_and_then_raised(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [UnreachableError("connection refused") for _ in range(3)]
        assert ends(submitter(archive, service).submit([recording("1")])) == [SubmitStatus.SUBMITTED]
        service.script["2"] = [UnreachableError("connection refused") for _ in range(9)]
        with pytest.raises(UnreachableError):
            submitter(archive, service).submit([recording("2")])
        assert service.accepted == {"1": 1}


class TestBudget:
    def test_nothing_is_sent_past_the_budget(self, archive: Archive, service: Service) -> None:
        with pytest.raises(CostLimitExceededError, match="180 seconds"):
            submitter(archive, service, max_billed_seconds=179).submit([recording(name) for name in "123"])
        assert service.asked == 0

    def test_what_costs_nothing_does_not_count(self, archive: Archive, service: Service) -> None:
        submitter(archive, service).submit([recording("1"), recording("2")])
        outcomes = submitter(archive, service, max_billed_seconds=60).submit([recording(name) for name in "1231"])
        assert ends(outcomes) == [
            SubmitStatus.JOINED,
            SubmitStatus.JOINED,
            SubmitStatus.SUBMITTED,
            SubmitStatus.JOINED,
        ]

    def test_an_unknown_length_with_a_budget_is_an_error_not_a_guess(self, archive: Archive, service: Service) -> None:
        unknown = recording("2", billed_seconds=None, duration_ms=None)
        with pytest.raises(CostLimitExceededError, match="unknown"):
            submitter(archive, service, max_billed_seconds=10_000).submit([recording("1"), unknown])
        assert service.asked == 0
        assert ends(submitter(archive, service).submit([unknown])) == [SubmitStatus.SUBMITTED]

    def test_a_resubmission_counts_too(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [lost()]
        [outcome] = submitter(archive, service, max_billed_seconds=60, on_lost_submission="resubmit").submit(
            [recording()]
        )
        assert isinstance(outcome.error, CostLimitExceededError)
        assert service.accepted["1"] == 1


class TestTwoAtOnce:
    def test_the_second_process_waits_for_the_operation_id(self, archive: Archive, service: Service) -> None:
        other: list[SubmitOutcome] = []
        accept = service.send

        def slowly(link: str, settings: RecognitionSettings) -> Any:
            waiting = submitter(archive, service, run="other")
            waiting.sleep = service.clock.sleep
            thread = Thread(target=lambda: other.extend(waiting.submit([recording()])))
            thread.start()
            while not service.clock.slept_s:
                thread.join(0.01)
            operation = accept(link, settings)
            threads.append(thread)
            return operation

        threads: list[Thread] = []
        [first] = submitter(archive, service, send=slowly, lease=timedelta(days=1000)).submit([recording()])
        threads[0].join()
        assert (other[0].status, other[0].operation_id) == (SubmitStatus.JOINED, first.operation_id)
        assert service.accepted.total() == 1

    def test_a_claim_of_a_killed_process_is_lost_when_its_lease_ends(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            submitter(archive, service, run="killed").submit([recording()])
        [outcome] = submitter(archive, service, run="other").submit([recording()])
        assert outcome.status is SubmitStatus.LOST
        assert sum(service.clock.slept_s) == pytest.approx(600)

    def test_a_process_that_was_held_up_after_its_claim_sends_nothing(self, tmp_path: Path, service: Service) -> None:
        Archive.at(tmp_path).probe(T0)

        class Suspended(Life):
            def after(self) -> None:
                self.used += 1
                if self.used == 3:
                    service.clock.advance(minutes=9)

        [outcome] = submitter(mortal(tmp_path, Suspended()), service).submit([recording()])
        assert outcome.status is SubmitStatus.SUBMITTED
        assert [one.state for one in Archive.at(tmp_path).attempts(outcome.fingerprint)] == [
            AttemptState.REFUSED,
            AttemptState.IN_FLIGHT,
        ]
        assert service.accepted.total() == 1

    def test_many_threads_over_the_same_list_pay_once_each(self, tmp_path: Path, service: Service) -> None:
        Archive.at(tmp_path).probe(T0)
        items = [recording(str(n)) for n in range(40)]
        barrier = Barrier(3)
        found: list[list[str | None]] = []

        def run(name: str) -> None:
            process = submitter(Archive.at(tmp_path), service, run=name, concurrency=4, lease=timedelta(days=9999))
            barrier.wait()
            found.append([one.operation_id for one in process.submit(items)])

        threads = [Thread(target=run, args=(f"run-{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found[0] == found[1] == found[2]
        assert None not in found[0]
        assert set(service.accepted.values()) == {1}


class TestArchiveInTrouble:
    def test_an_operation_that_cannot_be_put_on_record_is_named_so_that_it_can_be_adopted(
        self, archive: Archive, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise ArchiveError("No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Archive, "record_submission", full)
            with pytest.raises(ArchiveError) as raised:
                submitter(archive, service).submit([recording("1"), recording("2")])
        [operation_id] = service.operations
        assert raised.value.operation_id == operation_id
        assert f"{operation_id} --archive {archive.url}" in str(raised.value)
        assert service.accepted.total() == 1

    def test_a_short_outage_of_the_archive_loses_nothing(
        self, archive: Archive, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fails = [ArchiveError("away"), ArchiveError("away")]
        record = Archive.record_submission

        def shaky(self: Archive, *args: Any) -> None:
            if fails:
                raise fails.pop()
            record(self, *args)

        monkeypatch.setattr(Archive, "record_submission", shaky)
        assert (
            ends(submitter(archive, service).submit([recording("1"), recording("2")])) == [SubmitStatus.SUBMITTED] * 2
        )


class TestHandingOn:
    @pytest.mark.parametrize("on_lost_submission", ["fail", "resubmit"])
    @pytest.mark.parametrize("on_failure", list(OnFailure))
    def test_a_lost_submission_is_never_skipped(
        self, archive: Archive, service: Service, on_failure: OnFailure, on_lost_submission: str
    ) -> None:
        service.script["1"] = [lost(), lost()]
        service.script["2"] = [RefusedError("ogg header has not been found", http_status=400, grpc_code=3)]
        process = submitter(archive, service, on_lost_submission=on_lost_submission)
        outcomes = process.submit([recording(name) for name in "123"])
        assert ends(outcomes) == [SubmitStatus.LOST, SubmitStatus.REFUSED, SubmitStatus.SUBMITTED]
        with pytest.raises((SubmissionLostError, SubmissionsFailedError), match=r"s3://calls/1\.ogg"):
            process.returned_ids(outcomes, on_failure)

    def failed(self, archive: Archive, service: Service, names: str, on_failure: OnFailure, **policy: Any) -> str:
        service.script["1"] = [RefusedError("no", http_status=400, grpc_code=3)]
        service.script["2"] = [lost()]
        process = submitter(archive, service, **policy)
        with pytest.raises(SpeechKitError) as raised:
            process.returned_ids(process.submit([recording(name) for name in names]), on_failure)
        return str(raised.value)

    def test_a_failed_task_names_what_becomes_of_the_others(self, archive: Archive, service: Service) -> None:
        said = self.failed(archive, service, "134343", OnFailure.FAIL)
        assert "The others (2) are in the archive, and are not paid for again. on_failure='record'" in said

    def test_where_on_failure_would_change_nothing_it_is_not_advised(self, archive: Archive, service: Service) -> None:
        for on_failure in (OnFailure.SKIP, OnFailure.FAIL):
            assert "on_failure=" not in self.failed(archive, service, "23", on_failure)

    def test_a_retry_without_an_archive_is_not_called_free(self, archive: Archive, service: Service) -> None:
        said = self.failed(archive, service, "13", OnFailure.FAIL, without_archive=True)
        assert "A retry submits everything again and pays again for what was accepted" in said
        said = self.failed(archive, service, "12", OnFailure.FAIL, without_archive=True)
        assert "pays for nothing twice" not in said


class TestProgress:
    def test_lines_say_done_failed_waiting_and_the_expected_end(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        service.script["3"] = [RefusedError("no", http_status=400)]
        submitter(archive, service, submits_per_hour=4).submit([recording(str(n)) for n in range(10)])
        lines = [record.getMessage() for record in caplog.records if "recordings done" in record.getMessage()]
        assert "4 of 10 recordings done (3 submitted, 1 refused), 6 waiting; expected end 2026-11-22 14:00 UTC" in lines
        assert lines[-1] == "10 of 10 recordings done (9 submitted, 1 refused), 0 waiting"

    def test_there_is_at_most_one_line_in_a_while(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        submitter(archive, service).submit([recording(str(n)) for n in range(30)])
        assert sum("recordings done" in record.getMessage() for record in caplog.records) == 1

    def test_the_cost_is_logged_before_anything_is_sent(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        unknown = recording("3", billed_seconds=None)
        submitter(archive, service).submit([recording("1"), recording("2"), unknown])
        assert "3 recordings: 0 known, 0 are being submitted elsewhere, 3 new, which" in caplog.text
        assert "will be billed 120 seconds and 1 of unknown length\n" in caplog.text

    def test_the_cost_is_logged_at_its_price(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        deferred = RecognitionSettings(model="deferred-general")

        submitter(archive, service).submit([recording("1", settings=deferred, billed_seconds=3600)])
        assert "will be billed 3,600 seconds, 3,600 of them at a quarter of the price (deferred model)\n" in caplog.text
        submitter(archive, service).submit([recording("2", settings=deferred, billed_seconds=3600), recording("3")])
        assert "3,660 seconds, 3,600 of them at a quarter of the price (deferred model)\n" in caplog.text
        submitter(archive, service).submit([recording("3")])
        assert "1 recordings: 1 known (1 joined), 0 are being submitted elsewhere, 0 new" in caplog.text
