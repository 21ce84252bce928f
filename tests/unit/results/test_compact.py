"""Parts of days that are over become one file for each table, and nothing is lost or doubled on the way."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_speechkit.cli import main
from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.results.compact import compact
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.results.schema import TABLES
from airflow_speechkit.storage import Folder
from tests.fixtures.manifests import write_rows
from tests.unit.results.answers import chunk, submission, v2, word

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)
DAYS = ("2026-11-22", "2026-11-23", "2026-11-24")


def said(operation_id: str, text: str = "да", day: str = DAYS[0]):
    return flatten(
        v2(*([chunk("1", word(text, "1s", "2s"))] if text else []), operation_id=operation_id, day=day),
        submission(operation_id),
    )


@pytest.fixture(params=["disk", "s3"])
def folders(request, tmp_path):
    if request.param == "disk":
        return Folder.at(tmp_path / "lake"), Folder.at(tmp_path / "large")
    bucket = request.getfixturevalue("lake_bucket")
    return tuple(Folder(bucket, f"lake/{one}", f"s3://lake/{one}") for one in ("parts", "large"))


def run(folders, **how):
    return list(compact(*folders, now=NOW, **how))


def words(folder: Folder) -> list[tuple[str, str]]:
    """What is said in each operation, by the files below a folder; an operation without words too."""
    found: dict[str, list[str]] = {}
    for table, column in (("recognitions", "recognition_id"), ("words", "word")):
        for name in folder.names(table):
            rows = pq.read_table(pa.BufferReader(folder.read(name)))
            for one, value in zip(rows["recognition_id"].to_pylist(), rows[column].to_pylist(), strict=True):
                found.setdefault(one, []).append(value)
    return sorted((one, " ".join(value[1:])) for one, value in found.items())


def test_each_day_that_is_over_has_one_file_for_each_table_with_the_rows_of_its_parts(folders):
    source, target = folders
    write_rows(source, *(said(f"e03{n:03}", f"слово{n}", DAYS[n % 3]) for n in range(90)))
    assert [one.day.isoformat() for one in run(folders)] == [*DAYS[:2]]
    assert sorted(target.names()) == sorted(
        f"{table.name}/day={day}/part-0.parquet" for table in TABLES for day in DAYS[:2]
    )
    assert words(target) == [(f"e03{n:03}", f"слово{n}") for n in range(90) if n % 3 < 2]
    for table in TABLES:
        written = pq.read_schema(pa.BufferReader(target.read(f"{table.name}/day={DAYS[0]}/part-0.parquet")))
        assert written.names == table.arrow.names
    assert [one.day.isoformat() for one in run(folders, through=date(2026, 11, 24))] == [*DAYS]


def test_a_day_is_written_again_only_if_its_parts_are_others(folders):
    source, target = folders
    write_rows(source, said("e03a"), said("e03b", day=DAYS[1]))
    run(folders)
    before = {name: target.read(name) for name in target.names()}
    assert [one.rows for one in run(folders)] == [None, None]
    assert {name: target.read(name) for name in target.names()} == before
    write_rows(source, said("e03a", "нет"), said("e03c", ""))
    first, second = run(folders)
    assert (first.rows["recognitions"], first.rows["words"], second.rows) == (2, 1, None)
    assert words(target) == [("e03a", "нет"), ("e03b", "да"), ("e03c", "")]


def test_parts_can_be_removed_and_an_operation_be_transformed_again_after_that(folders):
    source, target = folders
    write_rows(source, *(said(f"e03{n}", f"слово{n}") for n in range(4)))
    (done,) = run(folders, delete_parts=True)
    assert done.removed == 12
    assert [name for name in source.names() if not name.startswith("_manifests/")] == []
    assert run(folders, delete_parts=True) == []
    write_rows(source, said("e031", "иначе"), said("e032", ""), said("e03new", "новое"))
    run(folders, delete_parts=True)
    expected = [("e030", "слово0"), ("e031", "иначе"), ("e032", ""), ("e033", "слово3"), ("e03new", "новое")]
    assert words(target) == expected


@pytest.mark.parametrize("delete_parts", [False, True])
@pytest.mark.parametrize("action", ["replace", "delete"])
def test_the_next_run_completes_one_that_was_killed_at_any_step(tmp_path, monkeypatch, action, delete_parts):
    """Each run gets one step further than the one before it."""
    folders = source, target = Folder.at(tmp_path / "lake"), Folder.at(tmp_path / "large")
    write_rows(source, said("e030", "было"), said("e031", "слово1"), said("e032", ""))
    run(folders, delete_parts=True)
    write_rows(source, said("e030", "стало"), said("e032", "больше"), said("e033", "слово3"))
    original = getattr(Folder, action)
    after = [("e030", "стало"), ("e031", "слово1"), ("e032", "больше"), ("e033", "слово3")]
    for steps in range(20):
        left = steps

        def one_more(self, *arguments):
            nonlocal left
            if left == 0:
                raise StorageError("the process was killed")
            left -= 1
            original(self, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(Folder, action, one_more)
            try:
                run(folders, delete_parts=delete_parts)
            except StorageError:
                killed = True
            else:
                killed = False
        if action == "delete":
            assert words(target) == after
        if not killed:
            break
    assert words(target) == after
    run(folders, delete_parts=delete_parts)
    assert words(target) == after


def test_what_a_killed_deletion_left_counts_for_nothing_and_goes_a_day_later(tmp_path):
    folders = source, target = Folder.at(tmp_path / "lake"), Folder.at(tmp_path / "large")
    write_rows(source, said("e03a"), said("e03b"))
    run(folders)
    source.delete(f"recognitions/day={DAYS[0]}/e03a.parquet")
    written_at = (tmp_path / f"lake/words/day={DAYS[0]}/e03a.parquet").stat().st_mtime
    later = datetime.fromtimestamp(written_at, UTC) + timedelta(minutes=1)
    list(compact(*folders, now=later, delete_parts=True))
    assert words(target) == [("e03a", "да"), ("e03b", "да")]
    assert {Path(name).stem for name in source.names("words")} == {"e03a"}
    list(compact(*folders, now=later + timedelta(days=2), delete_parts=True))
    assert list(source.names("words")) == []
    assert words(target) == [("e03a", "да"), ("e03b", "да")]


def test_what_was_written_since_it_was_read_is_not_removed(tmp_path, monkeypatch):
    folders = source, target = Folder.at(tmp_path / "lake"), Folder.at(tmp_path / "large")
    write_rows(source, said("e03a"), said("e03b"))
    replace = Folder.replace

    def put_and_write(self, name, finished):
        replace(self, name, finished)
        if self is target and name.startswith("recognitions"):
            monkeypatch.setattr(Folder, "replace", replace)
            write_rows(source, said("e03a", "иначе"))

    monkeypatch.setattr(Folder, "replace", put_and_write)
    run(folders, delete_parts=True)
    assert {Path(name).stem for name in source.names("words")} == {"e03a"}
    run(folders, delete_parts=True)
    assert words(target) == [("e03a", "иначе"), ("e03b", "да")]


def test_a_folder_inside_the_other_and_other_formats_are_refused(tmp_path):
    source = Folder.at(tmp_path / "lake")
    write_rows(source, said("e03a"), file_format="csv")
    for target in (tmp_path / "lake", tmp_path / "lake" / "large", tmp_path):
        with pytest.raises(SettingsError, match="inside the other"):
            run((source, Folder.at(target)))
    with pytest.raises(SettingsError, match=r"e03a.csv isn't Parquet"):
        run((source, Folder.at(tmp_path / "lake-2")))
    assert not os.path.exists(tmp_path / "lake-2")


def test_a_folder_of_an_impossible_day_is_refused(tmp_path):
    (tmp_path / "lake/words/day=2026-11-45").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"lake has a folder of an impossible day.*Remove it"):
        list(compact(Folder.at(tmp_path / "lake"), Folder.at(tmp_path / "large"), now=NOW))


def test_a_damaged_part_is_named_and_nothing_is_replaced(tmp_path):
    folders = source, target = Folder.at(tmp_path / "lake"), Folder.at(tmp_path / "large")
    write_rows(source, said("e03a"))
    run(folders)
    before = {name: target.read(name) for name in target.names()}
    source.replace(f"words/day={DAYS[0]}/e03a.parquet", b"PAR1 and no more")
    with pytest.raises(StorageError, match=r"words/day=2026-11-22/e03a.parquet can't be read"):
        run(folders, delete_parts=True)
    assert {name: target.read(name) for name in target.names()} == before
    assert len(list(source.names("words"))) == 1


def test_the_command(tmp_path, capsys):
    write_rows(Folder.at(tmp_path / "lake"), said("e03a"), said("e03b", day=DAYS[1]))
    how = ["compact", str(tmp_path / "lake"), "--to", str(tmp_path / "large"), "--through", DAYS[0]]
    assert main([*how, "--delete-parts"]) == 0
    assert "2026-11-22: 0 rows of analyses, 1 rows of words, 1 rows of utterances, 1 rows of recognitions; 3 files" in (
        capsys.readouterr().err
    )
    assert [path.name for path in tmp_path.glob("lake/words/*")] == [f"day={DAYS[1]}"]
    assert main([*how[:3], str(tmp_path / "lake")]) == 1


def test_the_command_says_that_no_day_is_over(tmp_path, capsys):
    write_rows(Folder.at(tmp_path / "lake"), said("e03a", day=DAYS[2]))
    folders = [str(tmp_path / "lake"), "--to", str(tmp_path / "large")]
    assert main(["compact", *folders, "--through", DAYS[1]]) == 0
    assert "no files of a day that is over" in capsys.readouterr().err
    assert main(["compact", *folders, "--through", DAYS[2]]) == 0
    assert "1 rows of words" in capsys.readouterr().err
