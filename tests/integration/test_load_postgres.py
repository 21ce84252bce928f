"""Load into a real PostgreSQL, through both drivers that Airflow's hook can return."""

from __future__ import annotations

import json
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import StorageError
from airflow_speechkit.warehouse.views import VIEWS
from tests.fixtures.leaks import everything_in_error
from tests.fixtures.manifests import (
    analysis,
    calls_without_times,
    recognition,
    the_call,
    utterance,
    words_of,
    write_manifest,
)
from tests.fixtures.views import FIGURES, FIGURES_WITHOUT_TIMES

EVERYTHING = {"recognitions": 7, "utterances": 6, "words": 16, "analyses": 1}
SECRET = "паспорт-4509-secret"


def the_call_with_an_analysis() -> dict[str, list[dict[str, Any]]]:
    return the_call() | {"analyses": [analysis("op-new")]}


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_a_rerun_duplicates_nothing_and_columns_have_postgresql_types(file_format, driver, tmp_path, ask, load) -> None:
    manifest = write_manifest(tmp_path, the_call_with_an_analysis(), file_format=file_format)
    assert load(manifest) == load(manifest) == EVERYTHING
    assert ask("SELECT count(*), count(DISTINCT operation_id) FROM recognitions") == [(7, 7)]
    assert ask("SELECT count(*) FROM words") == [(16,)]
    types = dict(ask("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'recognitions'"))
    assert types["labels"] == "jsonb"
    assert types["created_at"] == "timestamp with time zone"
    assert types["duration_ms"] == "bigint"
    assert ask(
        "SELECT labels ->> 'call_id', created_at = '2026-11-22 10:00+00', model, error_message FROM recognitions "
        "WHERE operation_id = 'op-new'"
    ) == [("17", True, "general", None)]
    assert ask("SELECT payload ->> 'a' FROM analyses") == [("б",)]


def test_texts_are_loaded_unchanged(driver, tmp_path, ask, load) -> None:
    texts = ["", '"', "a,b", "line\nbreak", "\\.", "\\N", "NULL", "\t", "é́🎤", "'); DROP TABLE words; --", "a\0b"]
    said = [utterance("op-1", i, 1, i, i + 1, text) for i, text in enumerate(texts)]
    load(write_manifest(tmp_path, {"recognitions": [recognition("op-1", None)], "utterances": said}))
    arrived = [text for (text,) in ask("SELECT text FROM utterances ORDER BY utterance")]
    # A text of PostgreSQL can't hold U+0000.
    assert arrived == [*texts[:-1], "a\N{REPLACEMENT CHARACTER}b"]
    assert ask("SELECT count(*) FROM utterances WHERE text_raw IS NULL") == [(len(texts),)]


@pytest.mark.parametrize("view", VIEWS)
def test_views_give_the_figures_computed_by_hand(view, tmp_path, url, ask, load) -> None:
    load(write_manifest(tmp_path, the_call()))
    query, expected = FIGURES[view]
    assert ask(query) == expected


@pytest.mark.parametrize("view", FIGURES_WITHOUT_TIMES)
def test_a_channel_whose_utterances_have_no_times_is_not_silent(view, tmp_path, url, ask, load) -> None:
    load(write_manifest(tmp_path, calls_without_times()))
    query, expected = FIGURES_WITHOUT_TIMES[view]
    assert ask(query) == expected


def test_new_columns_are_added_and_none_is_dropped(driver, tmp_path, ask, load) -> None:
    ask("CREATE TABLE recognitions (operation_id text, mine text DEFAULT 'yes')")
    ask("INSERT INTO recognitions VALUES ('op-before', 'kept')")
    load(write_manifest(tmp_path, the_call()))
    assert ask("SELECT mine, status FROM recognitions WHERE operation_id = 'op-before'") == [("kept", None)]
    assert ask("SELECT mine, status FROM recognitions WHERE operation_id = 'op-new'") == [("yes", "finished")]


def test_a_schema_and_a_prefix_keep_the_tables_apart(driver, tmp_path, ask, load) -> None:
    manifest = write_manifest(tmp_path, the_call())
    for _ in range(2):
        load(manifest, schema="Speech data", table_prefix="sk_")
    assert ask('SELECT count(*) FROM "Speech data".sk_words') == [(16,)]
    assert ask('SELECT count(*) FROM "Speech data".sk_dialogue') == [(5,)]
    assert ask("SELECT indexname FROM pg_indexes WHERE schemaname = 'Speech data' ORDER BY 1") == [
        ("sk_analyses_pkey",),
        ("sk_recognitions_pkey",),
        ("sk_utterances_pkey",),
        ("sk_words_recognition_id",),
    ]
    assert ask("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]


def test_a_second_load_changes_no_table_view_or_index(driver, tmp_path, ask, load) -> None:
    manifest = write_manifest(tmp_path, the_call())
    load(manifest)
    shape = "SELECT xmin::text, oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY oid"
    before = ask(shape)
    # A reader in the midst of a query on a view, which any change of the view would wait for.
    ask("BEGIN")
    ask("SELECT * FROM dialogue")
    load(manifest, lock_timeout_s=2)
    ask("COMMIT")
    assert [row[1:] for row in ask(shape)] == [row[1:] for row in before]


def test_a_user_who_can_only_write_rows_can_load(tmp_path, url, ask, monkeypatch, load) -> None:
    manifest = write_manifest(tmp_path, the_call())
    load(manifest)
    role = f"loader_{url.rsplit('_', 1)[1]}"
    ask(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    ask(f"GRANT SELECT, INSERT, DELETE ON recognitions, utterances, words, analyses TO {role}")
    connection = json.loads(os.environ["AIRFLOW_CONN_WAREHOUSE"]) | {"login": role, "password": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    assert load(manifest)["words"] == 16
    assert load(manifest, create=False)["words"] == 16


def test_concurrent_loads_duplicate_nothing(driver, tmp_path, ask, load) -> None:
    manifest = write_manifest(tmp_path, the_call())
    barrier = threading.Barrier(4)
    failures: list[Exception] = []

    def run() -> None:
        barrier.wait()
        try:
            load(manifest)
        except Exception as error:  # noqa: BLE001 - reported by the test
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ask("SELECT count(*) FROM recognitions") == [(7,)]
    assert ask("SELECT count(*) FROM words") == [(16,)]


def test_a_reader_never_sees_a_partial_load(driver, tmp_path, ask, load) -> None:
    first = write_manifest(tmp_path, the_call())
    load(first)
    ask("ALTER TABLE words ADD CONSTRAINT no_more CHECK (word <> 'новое')")
    said = [utterance("op-new", 0, 1, 0, 100, "новое")]
    again = {"recognitions": [recognition("op-new", None)], "utterances": said, "words": words_of(said)}
    with pytest.raises(StorageError, match="23514"):
        load(write_manifest(tmp_path, again, name="again"))
    assert ask("SELECT count(*) FROM words WHERE operation_id = 'op-new'") == [(13,)]
    assert ask("SELECT count(*) FROM utterances WHERE operation_id = 'op-new'") == [(5,)]


def test_a_lock_that_is_not_released_is_an_error(driver, tmp_path, ask, load) -> None:
    manifest = write_manifest(tmp_path, the_call())
    load(manifest)
    ask("BEGIN")
    ask("LOCK TABLE words")
    with pytest.raises(StorageError, match="55P03") as caught:
        load(manifest, lock_timeout_s=0.2)
    assert caught.value.retry_can_help
    ask("ROLLBACK")
    assert load(manifest)["words"] == 16


SPOILS = {
    "a key that is there already": (
        "CREATE TABLE words (operation_id text, word text PRIMARY KEY);"
        f"INSERT INTO words VALUES ('op-other', '{SECRET}')",
        ["23505", "table words", "constraint words_pkey"],
    ),
    "a type that does not take it": (
        "CREATE TABLE words (operation_id text, word bigint)",
        ["22P02", "column word"],
    ),
    "a check that refuses it": (
        f"CREATE TABLE words (operation_id text, word text CHECK (word <> '{SECRET}'))",
        ["23514", "table words"],
    ),
    "a trigger that quotes it": (
        "CREATE TABLE words (operation_id text, word text); CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RAISE NOTICE ''%'', NEW.word; RAISE EXCEPTION ''%'', NEW.word; END'; "
        "CREATE TRIGGER quote BEFORE INSERT ON words FOR EACH ROW EXECUTE FUNCTION quote()",
        ["P0001"],
    ),
    "JSON that is none": ("SELECT 1", ["22P02"]),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_the_error_of_a_failed_load_contains_no_row(spoil, driver, tmp_path, ask, capfd, caplog, load) -> None:
    before, details = SPOILS[spoil]
    ask(before)
    said = [utterance("op-1", 0, 1, 0, 100, SECRET)]
    rows = {"recognitions": [recognition("op-1", None)], "utterances": said, "words": words_of(said)}
    if spoil == "JSON that is none":
        rows["analyses"] = [analysis("op-1", f'{{"a": {SECRET}}}')]
    manifest = write_manifest(tmp_path, rows)
    with caplog.at_level("DEBUG"), pytest.raises(StorageError) as caught:
        load(manifest)
    out, err = capfd.readouterr()
    for text in (everything_in_error(caught.value), out, err, caplog.text):
        assert SECRET not in text
    assert SECRET.encode() not in pickle.dumps(caught.value)
    for detail in details:
        assert detail in caught.value.what
    assert "inserting" in caught.value.what
    assert caught.value.retry_can_help is (spoil == "a trigger that quotes it")


def test_an_unreachable_server_is_an_error(tmp_path, url, monkeypatch, load) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_WAREHOUSE"]) | {"password": "wrong-password"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    with pytest.raises(
        StorageError, match=r"connecting with 'warehouse'.*authentication failed.*what the connection says"
    ) as caught:
        load(write_manifest(tmp_path, the_call()))
    assert "wrong-password" not in everything_in_error(caught.value)


def test_a_view_that_others_build_on_does_not_stop_a_load(tmp_path, url, ask, load) -> None:
    load(write_manifest(tmp_path, the_call()))
    ask("COMMENT ON VIEW word_search IS 'airflow-speechkit view of an older version'")
    ask("CREATE VIEW mine AS SELECT * FROM word_search")
    load(write_manifest(Path(tmp_path), the_call()))
    assert ask("SELECT count(*) FROM mine") == [(13,)]
