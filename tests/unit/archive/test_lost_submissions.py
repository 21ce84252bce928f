"""Submissions that may have been taken: what keeps them lost, who settles them, and what sending them again says."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_speechkit.archive.inspection import Problem, verify
from airflow_speechkit.archive.layout import plain
from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.maintenance import adopt, delete_operation, release
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import SubmitOutcome, SubmitStatus
from airflow_speechkit.cli import main
from airflow_speechkit.errors import ArchiveError, SubmissionLostError
from airflow_speechkit.models import Submission
from tests.unit.archive.world import (
    T0,
    Clock,
    Killed,
    Life,
    Service,
    answer,
    failure,
    lost,
    mortal,
    origin,
    recording,
    submitter,
)


def contents(archive: Archive) -> dict[str, bytes]:
    return {name: archive.folder.read(name) for name in archive.folder.names()}


def lose(archive: Archive, service: Service, name: str = "1", run: str = "run-1", **policy: object) -> SubmitOutcome:
    service.script.setdefault(name, []).append(lost())
    [outcome] = submitter(archive, service, run=run, **policy).submit([recording(name)])
    assert outcome.status is SubmitStatus.LOST
    return outcome


def submitted(archive: Archive, service: Service, name: str = "1", run: str = "run-1", **policy: object) -> str:
    [outcome] = submitter(archive, service, run=run, **policy).submit([recording(name)])
    assert outcome.status is SubmitStatus.SUBMITTED
    assert outcome.operation_id is not None
    return outcome.operation_id


def finished(archive: Archive, service: Service, name: str = "1", run: str = "run-1", **policy: object) -> str:
    operation_id = submitted(archive, service, name, run, **policy)
    archive.keep(answer(operation_id), now=service.clock.now())
    return operation_id


def states(archive: Archive, fingerprint: str) -> list[AttemptState]:
    return [one.state for one in archive.attempts(fingerprint)]


class TestAdopt:
    def test_an_id_that_belongs_to_another_recording_changes_nothing(self, archive: Archive, service: Service) -> None:
        other = finished(archive, service, "other")
        lost_one = lose(archive, service)
        before = contents(archive)
        with pytest.raises(ArchiveError, match=r"of s3://calls/other\.ogg.*Check the operation id") as raised:
            adopt(archive, lost_one.fingerprint, other, now=T0)
        assert not raised.value.retry_can_help
        assert contents(archive) == before
        [again] = submitter(archive, service).submit([recording("1")])
        assert again.status is SubmitStatus.LOST
        [real] = [one for one, link in service.operations.items() if link == "1"]
        adopt(archive, lost_one.fingerprint, real, now=T0)
        [again] = submitter(archive, service).submit([recording("1")])
        assert (again.status, again.operation_id) == (SubmitStatus.JOINED, real)

    def test_the_id_of_another_attempt_at_the_same_recording_changes_nothing(
        self, archive: Archive, service: Service
    ) -> None:
        first = submitted(archive, service)
        lost_one = lose(archive, service, run="again", reuse=False)
        before = contents(archive)
        with pytest.raises(ArchiveError, match="attempt 1"):
            adopt(archive, lost_one.fingerprint, first, now=T0)
        assert contents(archive) == before

    @pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
    def test_fault_adopt_killed_at_every_step_is_finished_by_the_next_one_or_by_a_request(
        self, tmp_path: Path, dies_after: bool
    ) -> None:
        step, done = 0, False
        while not done:
            path = tmp_path / str(step)
            service, archive = Service(Clock()), Archive.at(path)
            archive.probe(T0)
            lost_one = lose(archive, service)
            [operation_id] = service.operations
            try:
                adopt(mortal(path, Life(step, dies_after=dies_after)), lost_one.fingerprint, operation_id, now=T0)
                done = True
            except Killed:
                step += 1
            [again] = submitter(archive, service).submit([recording("1")])
            if again.status is SubmitStatus.LOST:
                adopt(archive, lost_one.fingerprint, operation_id, now=T0)
                [again] = submitter(archive, service).submit([recording("1")])
            assert (again.status, again.operation_id) == (SubmitStatus.JOINED, operation_id)
            assert archive.submission(operation_id) is not None
            assert service.accepted.total() == 1
        assert step >= 5

    def test_an_attempt_that_names_the_operation_of_another_recording_is_an_error(
        self, archive: Archive, service: Service
    ) -> None:
        # As two who adopt the same id at the same moment could leave it.
        other = finished(archive, service, "other")
        lost_one = lose(archive, service)
        claim = archive.planned(lost_one.fingerprint, 1)
        assert claim is not None
        record = {
            "archive_version": 1,
            "attempt": 1,
            "scope": claim.scope,
            "submission": {**plain(claim.planned), "operation_id": other},
        }
        poisoned = f"ledger/{lost_one.fingerprint}/0001.operation.json"
        archive.folder.create(poisoned, json.dumps(record).encode())
        with pytest.raises(ArchiveError, match=r"on record as attempt 1 of s3://calls/other\.ogg") as raised:
            submitter(archive, service).submit([recording("1")])
        assert poisoned in str(raised.value)
        assert [(one.about, one.problem) for one in verify(archive, T0).findings] == [
            (lost_one.fingerprint, Problem.DAMAGED)
        ]
        archive.folder.delete(poisoned)
        assert states(archive, lost_one.fingerprint) == [AttemptState.LOST]


class TestBehindOthers:
    """A lost submission is found whatever became of the recording's other ones."""

    def test_one_behind_an_answer_is_found_and_settled(
        self, archive: Archive, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        finished(archive, service)
        lost_one = lose(archive, service, run="again", reuse=False)
        [finding] = verify(archive, T0).findings
        assert (finding.about, finding.problem) == (lost_one.fingerprint, Problem.LOST)
        assert "attempt 2" in finding.text
        assert main(["archive", "release", lost_one.fingerprint, "--archive", archive.url]) == 0
        assert "Attempt 2 is released" in capsys.readouterr().out
        assert verify(archive, T0).findings == []

    def test_one_behind_an_answer_can_be_adopted(self, archive: Archive, service: Service) -> None:
        first = finished(archive, service)
        lost_one = lose(archive, service, run="again", reuse=False)
        [second] = set(service.operations) - {first}
        assert adopt(archive, lost_one.fingerprint, second, now=T0) == 2
        [retry] = submitter(archive, service, run="again", reuse=False).submit([recording("1")])
        assert (retry.status, retry.operation_id) == (SubmitStatus.JOINED, second)

    def test_one_whose_process_was_killed_is_found_once_its_lease_is_over(
        self, archive: Archive, service: Service
    ) -> None:
        finished(archive, service)
        service.script["1"] = [Killed()]
        with suppress(Killed):
            submitter(archive, service, run="again", reuse=False).submit([recording("1")])
        [mark] = archive.fingerprints()
        assert verify(archive, T0).findings == []
        with pytest.raises(ArchiveError, match=r"attempt 2 \(claim\).*once its lease has expired"):
            release(archive, mark, now=T0)
        later = T0 + timedelta(minutes=10)
        assert [one.problem for one in verify(archive, later).findings] == [Problem.LOST]
        assert release(archive, mark, now=later) == 2

    def test_of_several_the_newest_is_meant_unless_another_is_named(
        self, archive: Archive, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for run in ("one", "two", "three"):
            lost_one = lose(archive, service, run=run, reuse=False)
        assert len(verify(archive, T0).findings) == 3
        command = ["archive", "release", lost_one.fingerprint, "--archive", archive.url]
        assert main([*command, "--attempt", "2"]) == 0
        assert main([*command, "--attempt", "2"]) == 1
        assert "no such lost submission" in capsys.readouterr().err
        assert main(command) == 0
        assert states(archive, lost_one.fingerprint) == [
            AttemptState.LOST,
            AttemptState.REFUSED,
            AttemptState.REFUSED,
        ]
        [first] = [one for one, at in service.created_at.items() if one.endswith("1")]
        assert main(["archive", "adopt", lost_one.fingerprint, first, "--archive", archive.url, "--attempt", "1"]) == 0
        assert states(archive, lost_one.fingerprint) == [
            AttemptState.IN_FLIGHT,
            AttemptState.REFUSED,
            AttemptState.REFUSED,
        ]

    def test_the_error_names_the_attempt_that_its_commands_are_about(self, archive: Archive, service: Service) -> None:
        finished(archive, service)
        lost_one = lose(archive, service, run="again", reuse=False)
        assert f"adopt {lost_one.fingerprint} OPERATION_ID --attempt 2 --archive {archive.url}`" in str(lost_one.error)
        assert f"release {lost_one.fingerprint} --attempt 2 --archive {archive.url}`" in str(lost_one.error)


class TestUntilSomebodySettlesIt:
    @pytest.mark.parametrize("end", ["failed", "expired", "forgotten"])
    def test_anothers_submission_without_a_result_does_not_settle_it(
        self, archive: Archive, service: Service, end: str
    ) -> None:
        lose(archive, service)
        other = submitted(archive, service, run="other", reuse=False)
        if end == "expired":
            service.clock.advance(days=4)
            assert archive.expire(other, service.clock.now())
        else:
            archive.keep(answer(other), failure(13), now=T0)
        if end == "forgotten":
            delete_operation(archive, other, now=T0)
        for _ in range(2):
            [again] = submitter(archive, service, run="third").submit([recording("1")])
            assert again.status is SubmitStatus.LOST
        assert service.accepted["1"] == 2

    @pytest.mark.parametrize("forgotten", [False, True])
    def test_sending_it_again_on_purpose_settles_it_for_good(
        self, archive: Archive, service: Service, forgotten: bool
    ) -> None:
        lose(archive, service)
        second = submitted(archive, service, run="other", on_lost_submission="resubmit")
        assert verify(archive, T0).findings == []
        archive.keep(answer(second), failure(13), now=T0)
        if forgotten:
            delete_operation(archive, second, now=T0)
        [mark] = archive.fingerprints()
        assert [one.supersedes for one in archive.attempts(mark)] == [(), (1,)]
        [third] = submitter(archive, service, run="third").submit([recording("1")])
        assert third.status is SubmitStatus.SUBMITTED

    def test_one_that_was_sent_again_on_purpose_can_still_be_adopted_by_its_number(
        self, archive: Archive, service: Service
    ) -> None:
        lost_one = lose(archive, service)
        [first] = service.operations
        submitted(archive, service, run="other", on_lost_submission="resubmit")
        with pytest.raises(ArchiveError, match="no such lost submission"):
            adopt(archive, lost_one.fingerprint, first, now=T0)
        assert adopt(archive, lost_one.fingerprint, first, now=T0, attempt=1) == 1

    def test_records_that_are_older_than_that_fact_are_read(self, archive: Archive, service: Service) -> None:
        lost_one = lose(archive, service)
        submitted(archive, service, run="other", on_lost_submission="resubmit")
        for name, raw in contents(archive).items():
            data = json.loads(raw)
            data.pop("over", None)
            archive.folder.replace(name, json.dumps(data).encode())
        assert [one.supersedes for one in archive.attempts(lost_one.fingerprint)] == [(), ()]
        claim = archive.planned(lost_one.fingerprint, 2)
        assert claim is not None
        assert claim.supersedes == ()


class TestResubmit:
    WARNING = "s3://calls/1.ogg may be paid for twice: attempt 1 may have been accepted"

    def test_it_is_logged_also_when_another_process_lost_it(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        lose(archive, service)
        assert self.WARNING not in caplog.text
        submitted(archive, service, run="other", on_lost_submission="resubmit")
        assert caplog.text.count(self.WARNING) == 1

    def test_it_is_logged_once_in_the_run_that_lost_it(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        service.script["1"] = [lost()]
        submitted(archive, service, on_lost_submission="resubmit")
        assert caplog.text.count("may be paid for twice") == 1

    def test_it_is_logged_after_a_kill_and_a_restart(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        service.script["1"] = [Killed()]
        with suppress(Killed):
            submitter(archive, service, on_lost_submission="resubmit").submit([recording("1")])
        submitted(archive, service, on_lost_submission="resubmit")
        assert caplog.text.count(self.WARNING) == 1
        assert sum(service.clock.slept_s) == pytest.approx(600)

    def test_nothing_is_logged_of_a_first_submission(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        submitted(archive, service, on_lost_submission="resubmit")
        assert "twice" not in caplog.text

    @pytest.mark.parametrize("how", ["lost", "killed"])
    def test_a_task_instance_does_it_once_however_often_it_is_tried_again(
        self, archive: Archive, service: Service, how: str
    ) -> None:
        service.script["1"] = [lost(), lost() if how == "lost" else Killed(), *(lost() for _ in range(9))]
        for _ in range(3):
            with suppress(Killed):
                [outcome] = submitter(archive, service, on_lost_submission="resubmit").submit([recording("1")])
                assert outcome.status is SubmitStatus.LOST
        assert isinstance(outcome.error, SubmissionLostError)
        assert "once for each task instance" in str(outcome.error)
        assert service.accepted["1"] == 2
        # Another run is another decision to pay.
        service.script.clear()
        submitted(archive, service, run="run-2", on_lost_submission="resubmit")
        assert service.accepted["1"] == 3


class TestWithoutAnArchive:
    def test_the_error_has_what_a_retry_costs_and_names_no_command(self, archive: Archive, service: Service) -> None:
        text = str(lose(archive, service, without_archive=True).error)
        assert "pays again" in text
        assert "billing" in text
        for word in ("adopt", "release", archive.url, "says the same"):
            assert word not in text

    def test_an_operation_that_cannot_be_put_on_record_is_named(
        self, archive: Archive, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise ArchiveError("No space left on device")

        monkeypatch.setattr(Archive, "record_submission", full)
        with pytest.raises(ArchiveError) as raised:
            submitter(archive, service, without_archive=True).submit([recording("1")])
        [operation_id] = service.operations
        assert operation_id in str(raised.value)
        assert "pays again" in str(raised.value)
        assert "adopt" not in str(raised.value)


def test_a_submission_that_is_put_on_record_again_changes_nothing(archive: Archive, service: Service) -> None:
    operation_id = submitted(archive, service)
    before = contents(archive)
    submission = archive.submission(operation_id)
    assert isinstance(submission, Submission)
    scope = origin().scope
    assert scope is not None
    archive.record_submission(1, scope, submission)
    assert contents(archive) == before
