"""Keys, load times, and the upgrade of version 0.1's tables, in a real PostgreSQL."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import pytest

from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.results.schema import TABLES
from airflow_speechkit.transfers.sql import read_sources
from airflow_speechkit.warehouse.ddl import Dialect, Names
from airflow_speechkit.warehouse.load import load as load_into
from airflow_speechkit.warehouse.postgresql import PostgreSQL
from tests.fixtures import version_0_1
from tests.fixtures.manifests import analysis, recognition, the_call, write_manifest

NULLABLE = "SELECT table_name || '.' || column_name, is_nullable = 'YES' FROM information_schema.columns"
CONSTRAINTS = (
    "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE contype IN ('p', 'u', 'f') AND connamespace = 'public'::regnamespace ORDER BY 1, contype DESC"
)
KEYS = [
    ("analyses", "PRIMARY KEY (recognition_id, analysis_index)"),
    ("analyses", "FOREIGN KEY (recognition_id) REFERENCES recognitions(recognition_id) ON DELETE CASCADE"),
    ("recognitions", "PRIMARY KEY (recognition_id)"),
    ("utterances", "PRIMARY KEY (recognition_id, utterance, alternative)"),
    ("utterances", "FOREIGN KEY (recognition_id) REFERENCES recognitions(recognition_id) ON DELETE CASCADE"),
]
SHAPE = (
    "SELECT c.relname, c.oid, c.relfilenode, a.attname, a.xmin::text FROM pg_class c "
    "LEFT JOIN pg_attribute a ON a.attrelid = c.oid WHERE relnamespace = 'public'::regnamespace ORDER BY 1, 4"
)


@pytest.fixture
def old(url, ask):
    for statement in version_0_1.statements("postgresql"):
        ask(statement)


def test_tables_have_keys_not_null_columns_and_comments(tmp_path, ask, load) -> None:
    load(write_manifest(tmp_path, the_call() | {"analyses": [analysis("op-new")]}))
    assert ask(CONSTRAINTS) == KEYS
    nullable = dict(ask(NULLABLE))
    for table in TABLES:
        (comment,) = ask("SELECT obj_description(%s::regclass)", table.name)[0]
        assert table.row in comment
        for number, column in enumerate(table.columns, 1):
            assert nullable[f"{table.name}.{column.name}"] is column.nullable, column.name
            assert ask("SELECT col_description(%s::regclass, %s)", table.name, number) == [(column.about,)]
    ask("DELETE FROM recognitions WHERE recognition_id = 'op-new'")
    assert ask("SELECT count(*) FROM analyses") == [(0,)]


def test_a_load_that_began_before_another_committed_has_a_later_load_time(tmp_path, url, ask, load) -> None:
    first, second = (
        write_manifest(tmp_path, {"recognitions": [recognition(name, None)]}, name=name) for name in ("op-1", "op-2")
    )
    load(write_manifest(tmp_path, {"recognitions": []}, name="none"))
    with closing(psycopg2.connect(url)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")  # its transaction begins here
        load(first)
        slow = PostgreSQL(connection, Names(Dialect.POSTGRESQL), lock_timeout_s=60)
        load_into(slow, read_sources(second), create=True)
    newest = "SELECT recognition_id FROM recognitions WHERE loaded_at > (SELECT loaded_at FROM recognitions WHERE {})"
    assert ask(newest.format("recognition_id = 'op-1'")) == [("op-2",)]
    load(first)
    assert ask(newest.format("recognition_id = 'op-2'")) == [("op-1",)]


def test_old_tables_are_upgraded_once_and_keep_their_rows(driver, tmp_path, old, ask, load) -> None:
    manifest = write_manifest(tmp_path, version_0_1.NEW_ROWS)
    load(manifest)
    assert ask(version_0_1.RECOGNITIONS) == version_0_1.UPGRADED
    assert ask(version_0_1.ANALYSES) == version_0_1.NUMBERED
    assert ask("SELECT recognition_id, word FROM words ORDER BY 1, word_index") == [
        ("op-new", "новое"),
        ("op-old", "до"),
        ("op-old", "свидания"),
    ]
    assert ask("SELECT count(*), count(mine) FROM own") == [(3, 3)]
    assert ask("SELECT text FROM dialogue WHERE recognition_id = 'op-old'") == [("до свидания",)]
    # Rows of 0.1 may lack their recognition, so they don't refer to it.
    assert ask(CONSTRAINTS) == [(table, key) for table, key in KEYS if not key.startswith("FOREIGN")]
    assert [name for (name,) in ask("SELECT indexname FROM pg_indexes WHERE tablename = 'words'")] == [
        "words_recognition_id"
    ]
    before = ask(SHAPE)
    load(manifest)
    assert ask(SHAPE) == before


def test_primary_keys_of_the_users_own_are_kept(tmp_path, old, ask, load) -> None:
    ask("ALTER TABLE recognitions RENAME CONSTRAINT recognitions_pkey TO renamed")
    for table in ("utterances", "analyses"):
        ask(f"ALTER TABLE {table} ADD mykey serial PRIMARY KEY")
    load(write_manifest(tmp_path, version_0_1.NEW_ROWS))
    assert ask(version_0_1.RECOGNITIONS) == version_0_1.UPGRADED
    assert set(ask(CONSTRAINTS)) == {
        ("recognitions", "PRIMARY KEY (recognition_id)"),
        ("utterances", "PRIMARY KEY (mykey)"),
        ("utterances", "UNIQUE (recognition_id, utterance, alternative)"),
        ("analyses", "PRIMARY KEY (mykey)"),
        ("analyses", "UNIQUE (recognition_id, analysis_index)"),
    }


def test_rows_of_a_table_that_was_upgraded_by_hand_get_a_load_time(tmp_path, ask, load) -> None:
    load(write_manifest(tmp_path / "1", the_call()))
    ask("ALTER TABLE recognitions DROP COLUMN loaded_at CASCADE")
    load(write_manifest(tmp_path / "2", version_0_1.NEW_ROWS))
    assert ask("SELECT count(*) FROM recognitions WHERE loaded_at IS NULL") == [(0,)]


SPOILS = {
    "a row without an id": (
        "INSERT INTO utterances (text) VALUES ('x')", "DELETE FROM utterances WHERE text = 'x'", "23502",
    ),
    "a row twice": (
        "INSERT INTO utterances SELECT * FROM utterances WHERE operation_id = 'op-old'",
        "DELETE FROM utterances WHERE operation_id = 'op-old'",
        "23505",
    ),
    "a foreign key of the user's own": (
        "CREATE TABLE calls (operation_id text REFERENCES recognitions)", "DROP TABLE calls", "2BP01",
    ),
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS)
def test_an_upgrade_that_postgresql_refuses_changes_nothing(spoil, tmp_path, old, ask, load) -> None:
    statement, repair, sqlstate = SPOILS[spoil]
    ask(statement)
    before = ask(SHAPE)
    manifest = write_manifest(tmp_path, version_0_1.NEW_ROWS)
    with pytest.raises(StorageError, match=rf"ALTER TABLE.*{sqlstate}.*Nothing was changed. Correct") as caught:
        load(manifest)
    assert caught.value.retry_can_help is False
    assert ask(SHAPE) == before
    ask(repair)
    load(manifest)
    assert ask(version_0_1.RECOGNITIONS) == version_0_1.UPGRADED


def test_without_create_the_error_names_old_tables(tmp_path, old, load) -> None:
    with pytest.raises(SettingsError, match=r'version 0.1.*"recognitions".*`create=True`'):
        load(write_manifest(tmp_path, version_0_1.NEW_ROWS), create=False)
