"""Listing and verifying a whole archive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_speechkit.archive.inspection import Problem, operations, verify
from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.maintenance import delete_operation
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import OnFailure, SubmitStatus
from airflow_speechkit.cli import main
from airflow_speechkit.errors import RefusedError
from tests.unit.archive.world import T0, Service, answer, failure, recording, submitter


def submitted(archive: Archive, service: Service, name: str = "1") -> str:
    [outcome] = submitter(archive, service).submit([recording(name)])
    assert outcome.status is SubmitStatus.SUBMITTED
    return outcome.operation_id or ""


def refused(archive: Archive, service: Service, name: str = "1") -> str:
    """Have a recording refused, and return its synthetic id."""
    service.script[name] = [RefusedError("no", http_status=400, grpc_code=3)]
    process = submitter(archive, service)
    [operation_id] = process.returned_ids(process.submit([recording(name)]), OnFailure.RECORD)
    return operation_id


def problems(archive: Archive) -> set[tuple[str, Problem]]:
    return {(one.about, one.problem) for one in verify(archive, T0).findings}


class TestMissing:
    @pytest.mark.parametrize("file", ["outcome.json", "operation.json.gz", "submission.json", ""])
    def test_an_answer_without_one_of_its_files_is_damaged(self, archive: Archive, service: Service, file: str) -> None:
        operation_id = submitted(archive, service)
        archive.keep(answer(operation_id), now=T0)
        assert problems(archive) == set()
        for name in list(archive.folder.names(f"operations/{operation_id}")):
            if name.endswith(file):
                archive.folder.delete(name)
        assert problems(archive) == {(operation_id, Problem.DAMAGED)}

    def test_a_failure_of_which_the_reason_is_missing_is_damaged(self, archive: Archive, service: Service) -> None:
        operation_id = submitted(archive, service)
        archive.keep(answer(operation_id), failure(13), now=T0)
        archive.folder.delete(f"operations/{operation_id}/outcome.json")
        assert problems(archive) == {(operation_id, Problem.DAMAGED)}

    def test_a_submission_that_a_killed_process_did_not_get_to_write_is_made_whole(
        self, archive: Archive, service: Service
    ) -> None:
        operation_id = submitted(archive, service)
        archive.folder.delete(f"operations/{operation_id}/submission.json")
        assert verify(archive, T0).operations == {"running": 1}
        assert archive.submission(operation_id) is not None

    def test_an_answer_under_another_recording_s_operation_is_damaged(self, archive: Archive, service: Service) -> None:
        one, other = submitted(archive, service, "1"), submitted(archive, service, "2")
        for operation_id in (one, other):
            archive.keep(answer(operation_id), now=T0)
        folder = archive.folder
        folder.replace(f"operations/{one}/submission.json", folder.read(f"operations/{other}/submission.json"))
        assert problems(archive) == {(one, Problem.DAMAGED)}


class TestSuperseded:
    def test_a_refused_recording_that_was_submitted_later_is_one_in_the_listing(
        self, archive: Archive, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        stands_for_it = refused(archive, service)
        assert [one.state for one in operations(archive)] == ["refused"]
        service.clock.advance(minutes=5)
        operation_id = submitted(archive, service)
        command = ["archive", "list", "--archive", archive.url]
        capsys.readouterr()  # what Airflow 2.11 logged of it
        assert main(command) == 0
        [line] = capsys.readouterr().out.splitlines()
        assert line.startswith(operation_id)
        assert main([*command, "--state", "superseded"]) == 0
        [line] = capsys.readouterr().out.splitlines()
        assert line.startswith(stands_for_it)
        assert main([*command, "--state", "refused"]) == 0
        assert capsys.readouterr().out == ""
        assert verify(archive, T0).operations == {"running": 1, "superseded": 1}
        # A task that has that id finds the reason as before.
        outcome = archive.outcome(stands_for_it)
        assert outcome is not None
        assert outcome.state is AttemptState.REFUSED

    def test_one_that_was_refused_after_it_was_submitted_is_not(self, archive: Archive, service: Service) -> None:
        archive.keep(answer(submitted(archive, service)), failure(13), now=T0)
        service.clock.advance(minutes=5)
        refused(archive, service)
        assert sorted(one.state for one in operations(archive)) == ["failed", "refused"]

    def test_one_whose_operation_was_deleted_is_not(self, archive: Archive, service: Service) -> None:
        refused(archive, service)
        service.clock.advance(minutes=5)
        operation_id = submitted(archive, service)
        archive.keep(answer(operation_id), now=T0)
        delete_operation(archive, operation_id, now=T0)
        assert [one.state for one in operations(archive)] == ["refused"]

    def test_one_that_was_submitted_and_refused_again_is_not(self, archive: Archive, service: Service) -> None:
        refused(archive, service)
        service.clock.advance(minutes=5)
        archive.keep(answer(submitted(archive, service)), failure(13), now=T0 + timedelta(minutes=5))
        service.clock.advance(minutes=5)
        refused(archive, service)
        assert sorted(one.state for one in operations(archive)) == ["failed", "refused"]


class TestStrayFiles:
    STRAY = (
        "ledger/{mark}/.DS_Store",
        "ledger/{mark}/0001.claim.sync-conflict-20261122.json",
        "ledger/{mark}/0001.claim (1).json",
        "ledger/{mark}/2.claim.json",
        "ledger/{mark}/copy/0002.claim.json",
        "ledger/{mark}/notes.txt",
        "ledger/.Trash/0001.claim.json",
        "ledger/.DS_Store",
        "operations/.Trash/x",
        "operations/.DS_Store",
    )

    def test_what_is_not_the_archive_s_is_left_alone(
        self, archive: Archive, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        service.clock.time = datetime.now(UTC)  # the command line takes the time from the machine
        operation_id = submitted(archive, service)
        [mark] = archive.fingerprints()
        for name in self.STRAY:
            archive.folder.create(name.format(mark=mark), b"stray")
        [again] = submitter(archive, service).submit([recording("1")])
        assert (again.status, again.operation_id) == (SubmitStatus.JOINED, operation_id)
        for command in ("list", "verify"):
            assert main(["archive", command, "--archive", archive.url]) == 0
        assert list(archive.fingerprints()) == [mark]
        assert main(["archive", "forget", operation_id, "--even-if-running", "--archive", archive.url]) == 0
        for name in self.STRAY:
            assert archive.folder.read(name.format(mark=mark)) == b"stray"
