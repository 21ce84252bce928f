"""The views over a call whose figures were computed by hand. PostgreSQL: test_load_postgres.py."""

from __future__ import annotations

import pytest

from airflow_speechkit.warehouse.ddl import Dialect, Names
from airflow_speechkit.warehouse.views import VIEWS, sql_of, views_for
from tests.fixtures.manifests import calls_without_times, the_call, write_manifest
from tests.fixtures.views import FIGURES, FIGURES_WITHOUT_TIMES


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_gives_the_figures_computed_by_hand(view, tmp_path, database, load, ask) -> None:
    load(write_manifest(tmp_path, the_call()))
    query, expected = FIGURES[view]
    assert ask(query) == expected


@pytest.mark.parametrize("view", FIGURES_WITHOUT_TIMES)
def test_a_channel_whose_utterances_have_no_times_is_not_silent(view, tmp_path, database, load, ask) -> None:
    load(write_manifest(tmp_path, calls_without_times()))
    query, expected = FIGURES_WITHOUT_TIMES[view]
    assert ask(query) == expected


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dialect", [Dialect.DUCKDB, Dialect.POSTGRESQL])
def test_a_file_quotes_only_tables_and_views(view, dialect) -> None:
    plain = {one.name: one.statement for one in views_for(Names(dialect))}
    assert plain[view] == sql_of(view)
    renamed = {one.name: one.statement for one in views_for(Names(dialect, "s", "p_"))}
    assert f'VIEW "s"."p_{view}" AS' in renamed[view]
    assert renamed[view].replace('"s"."p_', '"') == plain[view]


def test_existing_views_are_not_created_again(tmp_path, database, load, ask) -> None:
    manifest = write_manifest(tmp_path, the_call())
    load(manifest)
    made = ask("SELECT view_name, view_oid FROM duckdb_views() WHERE NOT internal ORDER BY 1")
    assert len(made) == len(VIEWS)
    load(manifest)
    assert ask("SELECT view_name, view_oid FROM duckdb_views() WHERE NOT internal ORDER BY 1") == made


def test_views_can_be_switched_off(tmp_path, database, load, ask) -> None:
    load(write_manifest(tmp_path, the_call()), views=False)
    assert ask("SELECT count(*) FROM duckdb_views() WHERE NOT internal") == [(0,)]
