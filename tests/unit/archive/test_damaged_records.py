"""A record that says something impossible is damaged: taken for what it says, a recording could be paid for again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_speechkit.archive.inspection import Problem, verify
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import ArchiveError
from tests.unit.archive.world import T0, Service, answer, failure, recording, submitter


def ended(archive: Archive, service: Service, *, failed: bool) -> str:
    [outcome] = submitter(archive, service).submit([recording("1")])
    operation_id = outcome.operation_id or ""
    archive.keep(answer(operation_id), failure(3) if failed else None, now=T0)
    return operation_id


def change(archive: Archive, name: str, **fields: Any) -> None:
    data = json.loads(archive.folder.read(name))
    for field, value in fields.items():
        if value is ...:
            del data[field]
        else:
            data[field] = value
    archive.folder.replace(name, json.dumps(data).encode())


def ledger(archive: Archive, stage: str) -> str:
    [mark] = archive.fingerprints()
    return f"ledger/{mark}/0001.{stage}.json"


def is_not_sent_again(archive: Archive, service: Service) -> None:
    asked = service.asked
    with pytest.raises(ArchiveError, match="damaged"):
        submitter(archive, service).submit([recording("1")])
    assert service.asked == asked


@pytest.mark.parametrize(
    "damaged",
    [
        {"failure": {"code": {"a": 1}, "message": "m"}},
        {"failure": {"code": "3x", "message": "m"}},
        {"failure": {"code": True, "message": "m"}},
        {"failure": {"code": 3.0, "message": "m"}},
        {"failure": None},
        {"failure": ...},
        {"operation_id": None},
        {"operation_id": "../x"},
        {"operation_id": ""},
        {"operation_id": "\ud800"},
        {"over": [1]},
    ],
)
def test_a_failure_without_its_reason_or_operation_is_damaged(
    archive: Archive, service: Service, damaged: dict[str, Any]
) -> None:
    ended(archive, service, failed=True)
    change(archive, ledger(archive, "failed"), **damaged)
    is_not_sent_again(archive, service)


@pytest.mark.parametrize("damaged", [{"operation_id": None}, {"operation_id": "../x"}, {"failure": {"message": "m"}}])
def test_an_answer_without_its_operation_is_damaged(
    archive: Archive, service: Service, damaged: dict[str, Any]
) -> None:
    ended(archive, service, failed=False)
    change(archive, ledger(archive, "finished"), **damaged)
    is_not_sent_again(archive, service)


@pytest.mark.parametrize("stage", ["refused", "forgotten", "lost", "claim", "operation"])
def test_an_operation_that_ended_in_an_impossible_state_is_damaged(
    archive: Archive, service: Service, stage: str
) -> None:
    operation_id = ended(archive, service, failed=False)
    archive.folder.delete(ledger(archive, "finished"))
    change(archive, f"operations/{operation_id}/outcome.json", stage=stage)
    is_not_sent_again(archive, service)
    assert {one.problem for one in verify(archive, T0).findings} == {Problem.DAMAGED}


def test_a_lost_attempt_does_not_settle_itself(archive: Archive, service: Service) -> None:
    operation_id = ended(archive, service, failed=True)
    archive.folder.delete(ledger(archive, "failed"))
    archive.folder.delete(ledger(archive, "operation"))
    archive.folder.replace(
        ledger(archive, "lost"), json.dumps({"archive_version": 1, "scope": "s", "over": [1]}).encode()
    )
    assert operation_id
    is_not_sent_again(archive, service)


@pytest.mark.parametrize(
    "damaged",
    [{"at": "2026-11-22T12:00:00"}, {"failure": {"code": 2**63, "message": "m"}}],
    ids=["no offset", "more than 64 bits"],
)
def test_values_that_no_table_can_hold_are_damaged(archive: Archive, service: Service, damaged: dict[str, Any]) -> None:
    operation_id = ended(archive, service, failed=True)
    change(archive, f"operations/{operation_id}/outcome.json", **damaged)
    with pytest.raises(ArchiveError, match="damaged"):
        archive.outcome(operation_id)


def test_a_record_has_only_the_fields_that_are_set(archive: Archive, service: Service) -> None:
    """Version 0.1 takes every claim that has the key `forgotten_at` for a deleted one, and would pay again."""
    ended(archive, service, failed=False)
    for name in ("claim", "operation", "finished"):
        record = json.loads(archive.folder.read(ledger(archive, name)))
        assert not {"forgotten_at", "failure"} & record.keys()
