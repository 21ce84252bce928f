"""What the tests of polling share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.unit.polling.pollers import Written


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return request.node.name


@pytest.fixture
def written() -> Iterator[Written]:
    handler = Written()
    logger = logging.getLogger("airflow_speechkit")
    before, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.level = before
