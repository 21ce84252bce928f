"""A unit test starts no process and recognises no speech: what does is in `tests/integration`."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def emulator() -> None:
    pytest.fail("a unit test starts no emulator: move it to tests/integration")
