"""What the tests of polling share."""

from __future__ import annotations

import pytest


@pytest.fixture
def key(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A poller of the test's own."""
    return str(request.node.name), "v2"
