from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.api.loopback import Carrier, ScriptedServer, scripted_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(params=["requests", "aiohttp"])
def carry(request: pytest.FixtureRequest) -> Carrier:
    return Carrier(request.param)
