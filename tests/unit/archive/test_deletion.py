"""A deleted operation leaves nothing, its number stays taken, and an interrupted deletion is finished."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.archive.inspection import operations, verify
from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.maintenance import delete_attempts, delete_operation
from airflow_speechkit.archive.records import Claim
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import SubmitStatus
from airflow_speechkit.cli import main
from airflow_speechkit.errors import ArchiveError, QuotaExceededError, RefusedError, StorageError
from airflow_speechkit.storage import Folder
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
    recording,
    submitter,
)

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def ended(archive: Archive, service: Service, name: str = "1", code: int | None = None) -> str:
    [outcome] = submitter(archive, service).submit([recording(name)])
    assert outcome.status is SubmitStatus.SUBMITTED
    assert outcome.operation_id is not None
    archive.keep(answer(outcome.operation_id), None if code is None else failure(code), now=T0)
    return outcome.operation_id


def command(archive: Archive, *arguments: str) -> int:
    return main(["archive", arguments[0], "--archive", archive.url, *arguments[1:]])


def left_of(archive: Archive, name: str) -> list[str]:
    """Which files, finished or not, still hold the address of a recording."""
    files = [path for path in Path(archive.folder.root).rglob("*") if path.is_file()]
    return [str(path) for path in files if f"{name}.ogg".encode() in path.read_bytes()]


class TestNumbers:
    @pytest.mark.parametrize("what", ["operation", "refusal"])
    def test_a_run_that_waits_for_the_quota_does_not_claim_a_deleted_number(
        self, archive: Archive, service: Service, what: str
    ) -> None:
        """It found number 1 free, was sent to the end of the queue, and meanwhile number 1 came and went."""

        def meanwhile() -> None:
            other = Service(service.clock, operations=service.operations, accepted=service.accepted, _ids=service._ids)
            if what == "refusal":
                other.script["2"] = [RefusedError("no", http_status=400, grpc_code=3)]
            [outcome] = submitter(archive, other, run="other").submit([recording("2")])
            if outcome.operation_id is None:
                assert delete_attempts(archive, "s3://calls/2.ogg", now=T0) == 1
            else:
                archive.keep(answer(outcome.operation_id), now=T0)
                delete_operation(archive, outcome.operation_id, now=T0)

        def send(link: str, settings: Any) -> Any:
            if link == "1" and not service.asked:
                meanwhile()
            return service.send(link, settings)

        service.script["1"] = [QuotaExceededError("quota", http_status=429)]
        outcomes = submitter(archive, service, send=send, concurrency=1).submit([recording("1"), recording("2")])
        second = outcomes[1]
        assert second.status is SubmitStatus.SUBMITTED
        paid = service.accepted["2"]
        [again] = submitter(archive, service, run="next").submit([recording("2")])
        assert (again.status, again.operation_id) == (SubmitStatus.JOINED, second.operation_id)
        assert service.accepted["2"] == paid
        assert archive.attempts(second.fingerprint)[0].state is AttemptState.FORGOTTEN

    def test_what_is_left_in_place_of_a_claim_excludes_and_holds_nothing_of_the_recording(
        self, archive: Archive, service: Service
    ) -> None:
        operation_id = ended(archive, service)
        [mark] = archive.fingerprints()
        claim = archive.planned(mark, 1)
        assert isinstance(claim, Claim)
        delete_operation(archive, operation_id, now=T0)
        grave = archive.folder.read(f"ledger/{mark}/0001.claim.json")
        for secret in (b"s3://", b"1.ogg", b"call_id", b"etag", b"settings"):
            assert secret not in grave
        assert archive.planned(mark, 1) is None
        assert archive.claim(1, claim) is False
        # Should the other file be lost, this one says it too.
        archive.folder.delete(f"ledger/{mark}/0001.forgotten.json")
        [attempt] = archive.attempts(mark)
        assert attempt.state is AttemptState.FORGOTTEN
        assert [one.status for one in submitter(archive, service).submit([recording("1")])] == [SubmitStatus.SUBMITTED]

    def test_a_reader_beside_a_deletion_does_not_restore_the_operation(
        self, archive: Archive, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [outcome] = submitter(archive, service).submit([recording("1")])
        assert outcome.operation_id is not None
        operation_id, read = outcome.operation_id, Folder.read

        def read_then_delete(folder: Folder, name: str, **limits: Any) -> bytes:
            content = read(folder, name, **limits)
            if name.startswith("ledger/"):
                monkeypatch.undo()
                delete_operation(archive, operation_id, now=LATER, even_if_running=True)
            return content

        monkeypatch.setattr(Folder, "read", read_then_delete)
        [attempt] = archive.attempts(outcome.fingerprint)
        assert attempt.state is AttemptState.FORGOTTEN
        assert left_of(archive, "1") == []

    def test_a_deleted_failure_is_submitted_again(self, archive: Archive, service: Service) -> None:
        first = ended(archive, service, code=3)
        delete_operation(archive, first, now=T0)
        assert [one.status for one in submitter(archive, service).submit([recording("1")])] == [SubmitStatus.SUBMITTED]


class TestNothingIsLeft:
    def test_a_deleted_operation_is_neither_listed_nor_overdue(
        self, archive: Archive, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        operation_id = ended(archive, service)
        assert command(archive, "forget", operation_id) == 0
        assert not os.path.exists(archive.folder.path(f"operations/{operation_id}"))
        capsys.readouterr()
        assert command(archive, "list") == 0
        assert capsys.readouterr().out == ""
        assert verify(archive, LATER).findings == []
        assert command(archive, "show", operation_id) == 1
        assert "was forgotten" in capsys.readouterr().err

    def test_an_empty_folder_that_was_left_before_is_neither(self, archive: Archive, service: Service) -> None:
        operation_id = ended(archive, service)
        delete_operation(archive, operation_id, now=T0)
        os.mkdir(archive.folder.path(f"operations/{operation_id}"))
        assert list(operations(archive)) == []
        assert verify(archive, LATER) == verify(archive, T0)
        assert verify(archive, T0).operations == {}

    def test_half_of_an_answer_without_any_record_is_still_found(self, archive: Archive) -> None:
        archive.folder.create("operations/e03half/operation.json.gz", b"x")
        assert [one.state for one in operations(archive)] == ["running"]
        assert [one.about for one in verify(archive, T0).findings] == ["e03half"]

    def test_what_a_process_was_killed_while_it_wrote_goes_with_the_operation(
        self, archive: Archive, service: Service, tmp_path: Path
    ) -> None:
        operation_id = ended(archive, service)
        unfinished = tmp_path / "archive" / "operations" / operation_id / "tmpkilled.part"
        unfinished.write_bytes(b"what was said about 1.ogg")
        [mark] = archive.fingerprints()
        claim = tmp_path / "archive" / "ledger" / mark / "tmpold.part"
        claim.write_bytes(b"1.ogg")
        os.utime(claim, (time.time() - 7200,) * 2)
        young = claim.with_name("tmpyoung.part")
        young.write_bytes(b"")
        # By the clock of this process, which need not be the one that the kernel dates files by.
        os.utime(young, (time.time(),) * 2)
        delete_operation(archive, operation_id, now=T0)
        assert left_of(archive, "1") == []
        assert not unfinished.parent.exists()
        assert young.exists(), "a process may be about to claim the recording again"

    @pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
    def test_fault_forget_killed_at_every_step_is_finished_by_the_same_command(
        self, tmp_path: Path, dies_after: bool
    ) -> None:
        step, done = 0, False
        while not done:
            path = tmp_path / str(step)
            service, archive = Service(Clock()), Archive.at(path)
            archive.probe(T0)
            operation_id = ended(archive, service)
            refused = Service(service.clock, script={"2": [lost()]})
            submitter(archive, refused).submit([recording("2")])
            try:
                half = mortal(path, Life(step, dies_after=dies_after))
                delete_operation(half, operation_id, now=T0)
                delete_attempts(half, "s3://calls/2.ogg", now=T0)
                done = True
            except Killed:
                step += 1
            for name in ("1", "2"):
                # Where nothing is left to delete, that is said.
                status = command(archive, "forget", "--recording", f"s3://calls/{name}.ogg")
                assert status == 0 or left_of(archive, name) == []
            with suppress(ArchiveError):
                delete_operation(archive, operation_id, now=T0)
            assert left_of(archive, "1") == left_of(archive, "2") == []
            assert verify(archive, LATER).findings == []
            outcomes = submitter(archive, service).submit([recording("1"), recording("2")])
            assert [one.status for one in outcomes] == [SubmitStatus.SUBMITTED, SubmitStatus.SUBMITTED]
        assert step >= 15


class TestGone:
    """The files of an operation were removed by a lifecycle rule or by hand, and the ledger still has it."""

    def test_deleting_it_frees_the_recording(self, archive: Archive, service: Service) -> None:
        operation_id = ended(archive, service)
        for name in list(archive.folder.names(f"operations/{operation_id}")):
            archive.folder.delete(name)
        with pytest.raises(ArchiveError, match=f"archive forget {operation_id}"):
            submitter(archive, service).submit([recording("1")])
        assert delete_operation(archive, operation_id, now=T0) > 0
        assert [one.status for one in submitter(archive, service).submit([recording("1")])] == [SubmitStatus.SUBMITTED]
        assert verify(archive, T0).findings == []

    def test_it_is_deleted_with_the_recording(self, archive: Archive, service: Service) -> None:
        operation_id = ended(archive, service)
        for name in list(archive.folder.names(f"operations/{operation_id}")):
            archive.folder.delete(name)
        assert command(archive, "forget", "--recording", "s3://calls/1.ogg") == 0
        assert left_of(archive, "1") == []
        assert [one.status for one in submitter(archive, service).submit([recording("1")])] == [SubmitStatus.SUBMITTED]

    def test_one_that_runs_is_still_deleted_only_on_request(self, archive: Archive, service: Service) -> None:
        [outcome] = submitter(archive, service).submit([recording("1")])
        archive.folder.delete(f"operations/{outcome.operation_id}/submission.json")
        with pytest.raises(ArchiveError, match="--even-if-running"):
            delete_operation(archive, outcome.operation_id or "", now=T0)
        delete_operation(archive, outcome.operation_id or "", now=T0, even_if_running=True)
        assert left_of(archive, "1") == []

    def test_an_operation_submitted_elsewhere_is_deleted_too(self, archive: Archive) -> None:
        archive.keep(answer("e03byhand"), now=T0)
        assert delete_operation(archive, "e03byhand", now=T0) == 2
        assert archive.answer("e03byhand") is None
        assert list(operations(archive)) == []


class TestRecording:
    @pytest.mark.parametrize(
        "address",
        [
            "s3://calls/a b.ogg",
            "s3://some_conn@calls/a b.ogg",
            "https://storage.yandexcloud.net/calls/a%20b.ogg?X-Amz-Signature=secret",
            "https://calls.storage.yandexcloud.net/a%20b.ogg",
        ],
    )
    def test_it_is_found_however_its_address_is_written(self, archive: Archive, service: Service, address: str) -> None:
        ended(archive, service, "a b")
        assert command(archive, "forget", "--recording", address) == 0
        assert left_of(archive, "a b") == []

    def test_a_link_to_the_storage_that_is_named_is_understood(self, archive: Archive, service: Service) -> None:
        ended(archive, service)
        link = "https://storage.example.net/calls/1.ogg"
        assert command(archive, "forget", "--recording", link) == 1
        assert command(archive, "forget", "--recording", link, "--endpoint-url", "https://storage.example.net") == 0

    def test_a_local_file_is_found_by_its_path(
        self, archive: Archive, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        [outcome] = submitter(archive, service).submit([recording("1", audio_uri=(tmp_path / "1.ogg").as_uri())])
        assert command(archive, "forget", "--recording", "1.ogg", "--even-if-running") == 0
        assert archive.submission(outcome.operation_id or "") is None

    @pytest.mark.parametrize("dry", [[], ["--dry-run"]])
    def test_nothing_on_record_of_it_is_an_error(
        self, archive: Archive, service: Service, dry: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        operation_id = ended(archive, service)
        assert command(archive, "forget", operation_id, "--recording", "s3://calls/2.ogg", *dry) == 1
        assert "There is nothing on record to forget" in capsys.readouterr().err
        assert archive.answer(operation_id) is not None

    def test_what_is_no_address_is_an_error(self, archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
        assert command(archive, "forget", "--recording", "ftp://calls/1.ogg") == 1
        assert "s3://bucket/key" in capsys.readouterr().err

    def test_a_dry_run_names_the_attempts_too(
        self, archive: Archive, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        service.script["1"] = [lost()]
        [lost_one] = submitter(archive, service).submit([recording("1")])
        assert command(archive, "forget", "--recording", "s3://calls/1.ogg", "--dry-run") == 0
        assert f"attempt 1 under {lost_one.fingerprint}" in capsys.readouterr().out
        assert [one.state for one in archive.attempts(lost_one.fingerprint)] == [AttemptState.LOST]

    def test_a_process_that_is_submitting_it_is_not_disturbed(self, archive: Archive, service: Service) -> None:
        service.script["1"] = [Killed()]
        with suppress(Killed):
            submitter(archive, service).submit([recording("1")])
        with pytest.raises(ArchiveError, match="12:10:00 UTC"):
            delete_attempts(archive, "s3://calls/1.ogg", now=T0)
        assert delete_attempts(archive, "s3://calls/1.ogg", now=T0 + timedelta(hours=1)) == 1


def test_a_folder_whose_files_cannot_be_removed_is_an_error_and_the_next_call_goes_on(
    archive: Archive, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation_id = ended(archive, service)

    def forbidden(self: Folder, name: str) -> None:
        raise self.fault(f"Can't remove {name}")

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "delete", forbidden)
        with pytest.raises(StorageError):
            delete_operation(archive, operation_id, now=T0)
    record = json.loads(archive.folder.read(f"forgotten/{operation_id}.json"))
    assert "finished_at" not in record
    delete_operation(archive, operation_id, now=T0)
    assert left_of(archive, "1") == []
