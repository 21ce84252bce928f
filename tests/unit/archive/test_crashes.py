"""A process is killed between any two things it does to the archive, and the next one goes on as if it had not been."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import SubmitStatus
from airflow_speechkit.errors import SubmissionLostError
from airflow_speechkit.settings import ApiVersion
from tests.unit.archive.world import T0, Clock, Killed, Life, Service, answer, failure, mortal, recording, submitter

NAMES = ("1", "2", "3")


def new_archive(path: Path) -> Archive:
    archive = Archive.at(path)
    archive.probe(T0)
    return archive


def operations_used_by_a_whole_submit(path: Path) -> int:
    new_archive(path)
    life = Life()
    submitter(mortal(path, life), Service(Clock())).submit([recording(name) for name in NAMES])
    return life.used


@pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
def test_fault_submit_killed_at_every_write_pays_once_or_reports_it_as_lost(tmp_path: Path, dies_after: bool) -> None:
    steps = operations_used_by_a_whole_submit(tmp_path / "whole")
    lost = 0
    for step in range(steps):
        path = tmp_path / f"{step}"
        new_archive(path)
        clock = Clock()
        service = Service(clock)
        with pytest.raises(Killed):
            submitter(mortal(path, Life(step, dies_after=dies_after)), service).submit(
                [recording(name) for name in NAMES]
            )
        sent = dict(service.accepted)
        clock.advance(minutes=1)

        outcomes = submitter(Archive.at(path), service).submit([recording(name) for name in NAMES])

        assert max(service.accepted.values()) == 1, f"paid twice when killed at step {step}"
        for outcome in outcomes:
            name = outcome.recording.link
            if outcome.status is SubmitStatus.LOST:
                # The one window: the request may have gone out, and its answer was never put on record.
                lost += 1
                assert isinstance(outcome.error, SubmissionLostError)
            else:
                assert outcome.status is (SubmitStatus.JOINED if name in sent else SubmitStatus.SUBMITTED)
                assert outcome.operation_id is not None
                assert service.operations[outcome.operation_id] == name
                submission = Archive.at(path).submission(outcome.operation_id)
                assert submission is not None
                assert submission.audio_uri == f"s3://calls/{name}.ogg"
        assert sum(outcome.status is SubmitStatus.LOST for outcome in outcomes) <= 1
    # Between a claim and the operation's record there are one gap for `before`, and two moments for `after`.
    assert 0 < lost <= 3 * len(NAMES)


@pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
def test_fault_submit_killed_with_resubmit_has_exactly_one_operation_on_record_each(
    tmp_path: Path, dies_after: bool
) -> None:
    steps = operations_used_by_a_whole_submit(tmp_path / "whole")
    for step in range(steps):
        path = tmp_path / f"{step}"
        new_archive(path)
        service = Service(Clock())
        with pytest.raises(Killed):
            submitter(mortal(path, Life(step, dies_after=dies_after)), service).submit(
                [recording(name) for name in NAMES]
            )
        again = submitter(Archive.at(path), service, on_lost_submission="resubmit")
        ids = [one.operation_id for one in again.submit([recording(name) for name in NAMES])]
        assert all(ids)
        assert ids == [one.operation_id for one in again.submit([recording(name) for name in NAMES])]
        assert service.accepted.total() <= len(NAMES) + 1


@pytest.mark.parametrize("version", list(ApiVersion))
@pytest.mark.parametrize("failed", [False, True], ids=["finished", "failed"])
@pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
def test_fault_archive_killed_while_it_keeps_an_answer(
    tmp_path: Path, version: ApiVersion, failed: bool, dies_after: bool
) -> None:
    step = 0
    why = failure(3) if failed else None
    while True:
        path = tmp_path / f"{step}"
        archive = new_archive(path)
        service = Service(Clock())
        [outcome] = submitter(archive, service).submit([recording()])
        operation_id = outcome.operation_id
        assert operation_id is not None
        life = Life(step, dies_after=dies_after)
        try:
            mortal(path, life).keep(answer(operation_id, version), why, now=T0)
        except Killed:
            step += 1
        else:
            break
        half = archive.outcome(operation_id)
        kept = archive.answer(operation_id)
        # All of it, or nothing of it.
        assert (kept is None) == (half is None)
        assert kept in (None, answer(operation_id, version))

        archive.keep(answer(operation_id, version), why, now=T0)

        assert archive.answer(operation_id) == answer(operation_id, version)
        [attempt] = archive.attempts(outcome.fingerprint)
        assert attempt.state is (AttemptState.FAILED if failed else AttemptState.FINISHED)
        assert service.accepted.total() == 1
    assert step >= 4


def test_fault_archive_killed_between_answer_and_ledger_is_made_whole_by_the_next_request(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    service = Service(Clock())
    [outcome] = submitter(archive, service).submit([recording()])
    assert outcome.operation_id is not None
    archive.keep(answer(outcome.operation_id), now=T0)
    archive.folder.delete(f"ledger/{outcome.fingerprint}/0001.finished.json")
    service.clock.advance(days=30)
    [again] = submitter(archive, service, run="a year later").submit([recording()])
    assert (again.status, again.operation_id) == (SubmitStatus.REUSED, outcome.operation_id)
    assert archive.folder.exists(f"ledger/{outcome.fingerprint}/0001.finished.json")


@pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
def test_fault_archive_killed_while_it_is_probed_for_the_first_time(tmp_path: Path, dies_after: bool) -> None:
    for step in range(8):
        path = tmp_path / f"{step}"
        with suppress(Killed):
            mortal(path, Life(step, dies_after=dies_after)).probe(T0)
        archive = new_archive(path)
        assert list(archive.operations()) == []
