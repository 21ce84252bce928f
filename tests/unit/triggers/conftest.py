"""What the tests of waiting share."""

from __future__ import annotations

import pytest

from airflow_speechkit.triggers import wait
from tests.unit.triggers.service import Service


@pytest.fixture
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service in this process, by a connection of its own."""
    made = Service(request.node.name)
    monkeypatch.setattr(wait, "_hook", lambda conn_id: made)
    return made
