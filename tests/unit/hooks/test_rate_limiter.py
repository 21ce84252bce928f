"""The limiter that a connection asks for."""

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
    limiter = await SpeechKitHook().rate_limiter("v2")
    assert limiter.rate(0.0) * 3600 == pytest.approx(per_hour, rel=0.02)


async def test_a_connection_sets_the_limits_of_both_apis(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"checks_per_hour": 300, "checks_per_second": 2}
    connection = {"conn_type": "speechkit", "password": "key", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps(connection))
    hook = SpeechKitHook()
    assert (await hook.rate_limiter("v2")).limit == 300
    assert (await hook.rate_limiter("v3")).limit == 2


async def test_a_worker_starts_at_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps({"conn_type": "speechkit", "password": "key"}))
    limiter = await SpeechKitHook().rate_limiter("v2", cautious=True)
    assert limiter.rate(0.0) * 3600 == pytest.approx(200, rel=0.02)
