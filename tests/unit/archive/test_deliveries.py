"""Deliveries of operations to runs are on record, also where a process was killed in the middle of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Barrier, Thread

import pytest

from airflow_speechkit.archive.runs import delivered_before, record_delivery
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import Origin
from airflow_speechkit.errors import SettingsError
from tests.unit.archive.world import T0, Killed, Life, mortal

MONDAY = Origin(dag_id="calls", task_id="submit", run_id="scheduled__2026-11-23T00:00:00+00:00")
TUESDAY = replace(MONDAY, run_id="scheduled__2026-11-24T00:00:00+00:00")
IDS = [f"e03{number:017d}" for number in range(5)]


@pytest.mark.parametrize(
    "other", [replace(MONDAY, dag_id="quality"), replace(MONDAY, task_id="submit_others")], ids=["dag", "task"]
)
def test_each_task_of_each_dag_gets_everything(tmp_path: Path, other: Origin) -> None:
    archive = Archive.at(tmp_path)
    record_delivery(archive, MONDAY, IDS, T0)
    assert delivered_before(archive, replace(other, run_id=TUESDAY.run_id), IDS) == set()
    assert delivered_before(archive, TUESDAY, IDS) == set(IDS)


def test_a_run_that_got_something_gets_it_again(tmp_path: Path) -> None:
    archive = Archive.at(tmp_path)
    for _ in range(2):
        record_delivery(archive, MONDAY, [*IDS[:3], IDS[0]], T0)
        record_delivery(archive, TUESDAY, IDS[2:], T0)
    assert delivered_before(archive, MONDAY, IDS) == set(IDS[3:])
    assert delivered_before(archive, TUESDAY, IDS) == set(IDS[:2])
    assert len(list(archive.folder.names("handed_on"))) == 6


def test_what_people_call_a_run_is_in_the_file_and_does_no_harm_in_its_name(tmp_path: Path) -> None:
    archive = Archive.at(tmp_path)
    odd = Origin(dag_id="звонки/../x", task_id="group.submit", run_id="manual__../../etc")
    record_delivery(archive, odd, IDS[:1], T0)
    [name] = archive.folder.names()
    assert name.startswith("handed_on/")
    assert ".." not in name
    assert "group.submit" in archive.folder.read(name).decode()
    with pytest.raises(SettingsError):
        record_delivery(archive, odd, ["../../etc"], T0)


def test_a_process_that_is_killed_at_any_point_leaves_all_of_it_to_its_retry(tmp_path: Path) -> None:
    for number in range(5):
        place = tmp_path / str(number)
        with pytest.raises(Killed):
            record_delivery(mortal(place, Life(number)), MONDAY, IDS, T0)
        archive = Archive.at(place)
        assert delivered_before(archive, MONDAY, IDS) == set()
        record_delivery(archive, MONDAY, IDS, T0)
        assert delivered_before(archive, TUESDAY, IDS) == set(IDS)


def test_two_at_once_do_no_harm(tmp_path: Path) -> None:
    archive = Archive.at(tmp_path)
    threads = [Thread(target=record_delivery, args=(archive, MONDAY, IDS, T0)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(archive.folder.names())) == len(IDS)


def test_thousands_are_asked_for_concurrency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive.at(tmp_path)
    names = type(archive.folder).names
    first_eight, calls = Barrier(8), count()

    def together(*args: object) -> object:
        if next(calls) < 8:
            first_eight.wait(timeout=600)
        return names(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(type(archive.folder), "names", together)
    assert delivered_before(archive, MONDAY, [f"e03{number:017d}" for number in range(800)]) == set()
