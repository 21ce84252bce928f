"""Records of an archive, mutated: each is read as what it says, or refused as damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow_speechkit.archive.inspection import look_up, operations, verify
from airflow_speechkit.archive.ledger import Request, decide
from airflow_speechkit.archive.maintenance import delete_operation
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import SpeechKitError
from airflow_speechkit.results.flatten import failed_row
from airflow_speechkit.results.schema import Status
from tests.fuzz.cases import Reached, cases
from tests.fuzz.mutations import TEXTS, mutate, written
from tests.fuzz.plainly import writable
from tests.unit.archive.world import T0, Clock, Service, answer, failure, lost, recording, submitter

CASES = 250


def one_of_each(path: Path) -> tuple[Archive, list[str], list[str]]:
    """Make an archive with records of every kind; return it with its operations and fingerprints."""
    archive = Archive.at(path)
    clock = Clock()
    service = Service(clock, script={"lost": [lost()]})
    archive.probe(clock.now())
    outcomes = submitter(archive, service).submit(
        [recording(name) for name in ("done", "failed", "runs", "lost", "gone")]
    )
    ids = [one.operation_id for one in outcomes if one.operation_id]
    archive.keep(answer(ids[0]), now=T0)
    archive.keep(answer(ids[1]), failure(3), now=T0)
    archive.keep(answer(ids[3]), now=T0)
    delete_operation(archive, ids[3], now=T0)
    return archive, ids, [one.fingerprint for one in outcomes]


def ways_to_read(archive: Archive, ids: list[str], fingerprints: list[str]) -> Iterator[Callable[[], object]]:
    later = T0 + timedelta(days=5)
    yield lambda: verify(archive, later)
    yield lambda: list(operations(archive))
    for one in ids:
        yield lambda one=one: look_up(archive, one)
        yield lambda one=one: archive.answer(one)
        yield lambda one=one: failed(archive, one)
    for one in fingerprints:
        yield lambda one=one: decide(archive.attempts(one), Request(scope="a"), later)
        yield lambda one=one: [archive.planned(one, number) for number in (1, 2)]
    yield lambda: delete_operation(archive, ids[3], now=later)


def failed(archive: Archive, operation_id: str) -> Any:
    submission, outcome = archive.submission(operation_id), archive.outcome(operation_id)
    if submission is None or outcome is None or outcome.failure is None:
        return None
    return failed_row(submission, Status.LOST, outcome.failure.code, outcome.failure.message)


def test_a_record_is_read_or_damaged(tmp_path: Path) -> None:
    archive, ids, fingerprints = one_of_each(tmp_path)
    files = sorted(one for one in tmp_path.rglob("*.json"))
    originals = {file: file.read_bytes() for file in files}
    reached, refused = Reached(), 0
    for case in cases("records", CASES):
        with case:
            file = case.chance.choice(files)
            record = json.loads(originals[file])
            mutate(record, case.chance)
            raw = written(record, case.chance)
            file.write_bytes(raw)
            reached.count(is_object(raw))
            for read in ways_to_read(archive, ids, fingerprints):
                try:
                    read()
                except SpeechKitError as error:
                    refused += 1
                    str(error).encode()
            for one in tmp_path.rglob("*.json"):
                if one not in originals:
                    one.unlink()
            for one, before in originals.items():
                one.parent.mkdir(parents=True, exist_ok=True)
                one.write_bytes(before)
    reached.check()
    assert refused > CASES / 2


def test_whatever_a_label_holds_is_kept_and_becomes_rows(tmp_path: Path) -> None:
    for case in cases("labels", 60):
        with case:
            archive = Archive.at(tmp_path / case.name)
            archive.probe(T0)
            labels = {case.chance.choice(TEXTS): case.chance.choice(TEXTS) for _ in range(3)}
            [outcome] = submitter(archive, Service(Clock())).submit([recording(labels=labels)])
            assert outcome.operation_id is not None
            submission = archive.submission(outcome.operation_id)
            assert submission is not None
            assert submission.labels == labels
            [row] = failed_row(submission, Status.LOST, 3, case.chance.choice(TEXTS)).recognitions.to_pylist()
            assert len(json.loads(row["labels"])) == len(
                {text.replace("\0", "\ufffd") for text in map(writable, labels)}
            )


def is_object(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False
