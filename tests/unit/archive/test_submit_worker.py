"""One recording on its way: what its sender may still find out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.archive.layout import SUBMISSION_FILE, operation_file
from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.maintenance import adopt, delete_operation
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import SubmitOutcome, SubmitStatus
from airflow_speechkit.errors import ArchiveError, RecordingError
from airflow_speechkit.settings import RecognitionSettings
from airflow_speechkit.storage import Folder
from tests.unit.archive.world import T0, Life, Service, answer, lost, mortal, recording, submitter


def ends(outcomes: list[SubmitOutcome]) -> list[SubmitStatus]:
    return [one.status for one in outcomes]


class TestFoundOutWhileSending:
    def test_a_file_that_was_changed_is_refused_at_once_and_the_others_go_on(
        self, archive: Archive, service: Service
    ) -> None:
        changed = RecordingError("The file was changed after it was looked at", retry_can_help=True)
        service.script["1"] = [changed for _ in range(9)]
        outcomes = submitter(archive, service).submit([recording("1"), recording("2")])
        assert ends(outcomes) == [SubmitStatus.REFUSED, SubmitStatus.SUBMITTED]
        assert outcomes[0].error is changed
        assert len(service.script["1"]) == 8, "it was asked once"
        assert service.clock.slept_s == []
        [attempt] = archive.attempts(outcomes[0].fingerprint)
        assert attempt.state is AttemptState.REFUSED
        service.script.clear()
        assert ends(submitter(archive, service).submit([recording("1")])) == [SubmitStatus.SUBMITTED]
        assert service.clock.slept_s == [], "no process waits for a claim that was given up"


class Held(Life):
    """A process that is held up before its n-th access to the archive, while another process does something."""

    def __init__(self, moment: int, other: Callable[[], object]) -> None:
        super().__init__()
        self.moment = moment
        self.other = other

    def before(self) -> None:
        if self.used == self.moment:
            self.used += 1
            self.other()

    def after(self) -> None:
        self.used += 1


class TestInTheLastMoment:
    def test_what_a_person_has_found_in_the_meantime_is_not_sent_again(
        self, tmp_path: Path, archive: Archive, service: Service
    ) -> None:
        for moment in range(16):
            name = f"r{moment}"
            service.script[name] = [lost()]
            [lost_one] = submitter(archive, service).submit([recording(name)])
            [operation_id] = [one for one, link in service.operations.items() if link == name]

            def find(mark: str = lost_one.fingerprint, operation_id: str = operation_id) -> None:
                adopt(archive, mark, operation_id, now=service.clock.now(), attempt=1)

            process = submitter(
                mortal(tmp_path / "archive", Held(moment, find)), service, run="b", on_lost_submission="resubmit"
            )
            [outcome] = process.submit([recording(name)])
            # Sent again it was only if it was lost at the last look, after the claim and right before the request.
            taken = [one for one, link in service.operations.items() if link == name]
            assert (outcome.status is SubmitStatus.SUBMITTED) is (len(taken) == 2)
            assert (outcome.status is SubmitStatus.SUBMITTED) is (moment > 6), f"{outcome.status} at {moment}"

    def test_an_answer_that_is_deleted_while_it_is_read_is_no_error(
        self, tmp_path: Path, archive: Archive, service: Service
    ) -> None:
        [first] = submitter(archive, service).submit([recording("1")])
        operation_id = first.operation_id or ""
        archive.keep(answer(operation_id), now=T0)
        held = mortal(tmp_path / "archive", Held(2, lambda: delete_operation(archive, operation_id, now=T0)))
        [outcome] = submitter(held, service).submit([recording("1")])
        assert outcome.status is SubmitStatus.SUBMITTED
        assert outcome.operation_id != operation_id


class TestAnswersThatHaveGone:
    @pytest.mark.parametrize("file", ["outcome.json", ""])
    def test_the_ledger_is_not_believed_without_the_answer_s_record(
        self, archive: Archive, service: Service, file: str
    ) -> None:
        [first] = submitter(archive, service).submit([recording("1")])
        operation_id = first.operation_id or ""
        archive.keep(answer(operation_id), now=T0)
        for name in list(archive.folder.names(f"operations/{operation_id}")):
            if name.endswith(file):
                archive.folder.delete(name)
        with pytest.raises(ArchiveError, match="is missing") as raised:
            submitter(archive, service).submit([recording("1")])
        assert raised.value.operation_id == operation_id
        assert raised.value.recording == "s3://calls/1.ogg"
        assert f"archive forget {operation_id} --archive {archive.url}" in str(raised.value)
        assert raised.value.retry_can_help is False
        assert service.accepted["1"] == 1


class Full(Folder):
    """A disk on which there is no room once something was sent."""

    def create(self, name: str, data: bytes) -> bool:
        if name.endswith(".operation.json"):
            raise ArchiveError(f"Can't write {name}: no space left")
        return super().create(name, data)


class TestOnRecord:
    def test_each_of_many_ids_that_can_not_be_put_on_record_stands_in_the_log(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        all_sent = Barrier(4)

        def send(link: str, settings: RecognitionSettings) -> Operation:
            operation = service.send(link, settings)
            all_sent.wait(10)
            return operation

        full = replace(archive, folder=Full(**vars(archive.folder)))
        with pytest.raises(ArchiveError, match="no space left"):
            submitter(full, service, send=send, concurrency=4).submit([recording(name) for name in "1234"])
        assert len(service.operations) == 4
        assert all(operation_id in caplog.text for operation_id in service.operations)

    def test_an_age_that_two_writers_put_down_differently_is_one_age(self, archive: Archive, service: Service) -> None:
        [outcome] = submitter(archive, service).submit([recording("1")])
        operation_id = outcome.operation_id or ""
        place = operation_file(operation_id, SUBMISSION_FILE)
        record = json.loads(archive.folder.read(place))
        record["submission"]["submitted_at"] = (T0 + timedelta(minutes=20)).isoformat()
        (Path(archive.folder.root) / place).write_text(json.dumps(record))
        service.clock.time = T0 + timedelta(days=3, minutes=10)
        asked = []

        def is_there(one: str) -> bool:
            asked.append(one)
            assert len(asked) < 5, "it is asked for without end"
            return False

        assert ends(submitter(archive, service, has=is_there, run="later").submit([recording("1")])) == [
            SubmitStatus.JOINED
        ]
        service.clock.time += timedelta(minutes=20)
        assert ends(submitter(archive, service, has=is_there, run="later").submit([recording("1")])) == [
            SubmitStatus.SUBMITTED
        ]
        assert asked == [operation_id]
