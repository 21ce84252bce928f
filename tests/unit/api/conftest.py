from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.api.loopback import Carrier, Told, told_server


@pytest.fixture
def server() -> Iterator[Told]:
    with told_server() as told:
        yield told


@pytest.fixture(params=["requests", "aiohttp"])
def carry(request: pytest.FixtureRequest) -> Carrier:
    return Carrier(request.param)
