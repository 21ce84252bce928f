from __future__ import annotations

from collections.abc import Iterator

import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.caller import Caller, quick


@pytest.fixture(scope="module")
def running() -> Iterator[EmulatorProcess]:
    with quick() as emulator:
        yield emulator


@pytest.fixture
def speechkit(running: EmulatorProcess) -> Iterator[EmulatorProcess]:
    yield running
    running.clear_faults()


@pytest.fixture
def caller(speechkit: EmulatorProcess) -> Iterator[Caller]:
    caller = Caller(speechkit)
    yield caller
    caller.session.close()
