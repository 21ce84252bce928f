"""Rows of what is forgotten leave the tables' files and databases too."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.cli import main
from tests.unit.archive.world import T0, Clock, Service, answer, recording, submitter


@pytest.fixture
def operation_id(archive: Archive) -> str:
    """An operation that has ended."""
    [outcome] = submitter(archive, Service(Clock())).submit([recording("1")])
    assert outcome.operation_id is not None
    archive.keep(answer(outcome.operation_id), now=T0)
    return outcome.operation_id


def command(archive: Archive, *arguments: str) -> int:
    return main(["archive", arguments[0], "--archive", archive.url, *arguments[1:]])


def database_at(path: Path, *tables: str, operation_id: str) -> str:
    import duckdb

    with duckdb.connect(str(path)) as connection:
        for table in tables:
            if "." in table:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.partition('.')[0]}")
            connection.execute(f"CREATE TABLE {table} (operation_id VARCHAR)")
            connection.execute(f"INSERT INTO {table} VALUES (?), ('e03other')", [operation_id])
    return str(path)


def rows_in(database: str, table: str) -> int:
    import duckdb

    with duckdb.connect(database) as connection:
        [(count,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(count)


class TestTables:
    def test_what_a_process_was_killed_while_it_wrote_is_removed_once_it_is_old(
        self, archive: Archive, operation_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tables = tmp_path / "tables"
        for table in ("words", "utterances"):
            (tables / table).mkdir(parents=True)
        old, young = tables / "words" / "batch.parquet.1f.part", tables / "utterances" / "batch.parquet.2f.part"
        elsewhere = tables / "download.part"
        for file in (old, young, elsewhere):
            file.write_bytes(b"words")
        # By the clock of this process, which need not be the one that the kernel dates files by.
        for file, age_s in ((old, 3700), (elsewhere, 3700), (young, 0)):
            os.utime(file, (time.time() - age_s,) * 2)
        assert command(archive, "forget", operation_id, "--tables", str(tables)) == 0
        assert (old.exists(), young.exists(), elsewhere.exists()) == (False, True, True)
        out = capsys.readouterr().out
        assert f"{young} may still be written to" in out

    def test_tables_with_a_prefix_in_a_schema_are_found(
        self, archive: Archive, operation_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tables = ("calls.sk_words", "words", "main.sk_words")
        database = database_at(tmp_path / "a.duckdb", *tables, operation_id=operation_id)
        where = ["--duckdb", database, "--table-prefix", "sk_", "--schema", "calls"]
        assert command(archive, "forget", operation_id, *where) == 0
        assert "Deleted 1 rows" in capsys.readouterr().out
        assert [rows_in(database, table) for table in tables] == [1, 2, 2]

    @pytest.mark.parametrize("more", [[], ["--table-prefix", "x_"], ["--schema", "other"]])
    def test_a_database_without_any_table_of_ours_is_an_error_and_nothing_is_deleted(
        self, archive: Archive, operation_id: str, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = "words" if more else "sk_words"
        database = database_at(tmp_path / "a.duckdb", table, operation_id=operation_id)
        assert command(archive, "forget", operation_id, "--duckdb", database, *more) == 1
        err = capsys.readouterr().err
        assert "none of the tables" in err
        assert "table_prefix" in err
        assert archive.answer(operation_id) is not None

    def test_the_statements_for_other_databases_name_the_same_tables(
        self, archive: Archive, operation_id: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for schema, prefix, words in (
            ("My calls", "sk_", '"My calls"."sk_words"'),
            ("calls", "2026_", '"calls"."2026_words"'),
            ("lake.calls", "sk_", "lake.calls.sk_words"),
        ):
            options = ["--table-prefix", prefix, "--schema", schema]
            assert command(archive, "forget", operation_id, *options) == 0
            assert f"DELETE FROM {words} WHERE recognition_id IN ('{operation_id}');" in capsys.readouterr().out

    def test_a_prefix_that_no_table_can_have_is_an_error(self, archive: Archive, operation_id: str) -> None:
        assert command(archive, "forget", operation_id, "--table-prefix", "a; DROP") == 1
        assert archive.answer(operation_id) is not None


class TestMissingModules:
    def test_a_command_that_needs_an_extra_names_it_in_one_line(
        self,
        archive: Archive,
        operation_id: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        database = database_at(tmp_path / "a.duckdb", "words", operation_id=operation_id)
        monkeypatch.setitem(sys.modules, "duckdb", None)
        assert command(archive, "forget", operation_id, "--duckdb", database) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "airflow-speechkit[duckdb]" in line

    @pytest.mark.parametrize(
        ("module", "hint"),
        [
            ("speechkit_emulator.process", "[emulator]"),
            ("airflow.providers.duckdb.hooks.duckdb", "airflow-speechkit[duckdb]"),
            ("something.else", "install it"),
        ],
    )
    def test_any_missing_module_is_named(
        self,
        archive: Archive,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        module: str,
        hint: str,
    ) -> None:
        def missing(*_: object) -> None:
            raise ModuleNotFoundError(f"No module named '{module}'", name=module)

        monkeypatch.setattr(Archive, "operations", missing)
        assert command(archive, "list") == 1
        [line] = capsys.readouterr().err.splitlines()
        assert f"`{module}`" in line
        assert hint in line

    def test_a_module_of_our_own_that_is_missing_is_not_excused(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(*_: object) -> None:
            raise ModuleNotFoundError("No module named 'airflow_speechkit.typo'", name="airflow_speechkit.typo")

        monkeypatch.setattr(Archive, "operations", missing)
        with pytest.raises(ModuleNotFoundError):
            command(archive, "list")
