"""Every cell of the fault matrix: each recording is paid for once, archived, and in the table once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import scenes
from tests.faults.matrix import SCENES, Scene
from tests.faults.row import Ending

assert scenes.ALL, "the scenes enter themselves when they are imported"


# The first of a row waits for all of it.
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.id)
def test_fault(scene: Scene, ending_of: Callable[[Scene], Ending]) -> None:
    error = ending_of(scene).error
    if error is not None:
        raise error
