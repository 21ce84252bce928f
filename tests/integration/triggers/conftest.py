"""Short pauses, so that a test goes through many of them."""

from __future__ import annotations

import pytest

from airflow_speechkit.archive import keeping


@pytest.fixture
def brief_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "RETRY_PAUSES_S", (0.3,) * 4)
    monkeypatch.setattr(keeping, "FIRST_PAUSE_S", 0.3)
    monkeypatch.setattr(keeping, "LONGEST_PAUSE_S", 0.3)
    # Those of the client between the attempts of one request.
    monkeypatch.setattr("airflow_speechkit.api.steps._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("airflow_speechkit.api.service._NOT_READY_PAUSES_S", (0.05, 0.05))
