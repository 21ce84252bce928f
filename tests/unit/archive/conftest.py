"""An archive on a disk, and the service that it keeps the books of."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_speechkit.archive.store import Archive
from tests.unit.archive.world import T0, Clock, Service


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive.at(tmp_path / "archive")
    archive.probe(T0)
    return archive


@pytest.fixture
def service() -> Service:
    return Service(Clock())
