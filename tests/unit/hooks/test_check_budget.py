from __future__ import annotations

import json

import pytest

from airflow_speechkit.hooks.speechkit import SpeechKitHook


@pytest.mark.parametrize(("triggerers", "per_hour"), [(None, 2000), ("1", 2000), ("4", 500)])
async def test_each_triggerer_takes_its_part_of_the_checks(
    monkeypatch: pytest.MonkeyPatch, triggerers: str | None, per_hour: int
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps({"conn_type": "speechkit", "password": "key"}))
    if triggerers is not None:
        monkeypatch.setenv("AIRFLOW__SPEECHKIT__TRIGGERERS", triggerers)
    budget = await SpeechKitHook().check_budget("v2")
    assert budget.per_second * 3600 == pytest.approx(per_hour, rel=0.02)
