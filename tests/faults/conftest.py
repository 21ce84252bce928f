"""The world of the fault matrix, its rows, and the matrix as it is printed at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.faults.job import Job
from tests.faults.matrix import Scene
from tests.faults.report import printed
from tests.faults.row import Ending, Meeting, run_row
from tests.faults.world import SETTINGS, World
from tests.fixtures.airflow import RealAirflow
from tests.fixtures.postgres import PostgresServer

ENDINGS = pytest.StashKey[dict[str, Ending]]()


@pytest.fixture(scope="session")
def airflow_settings() -> dict[str, str]:
    """What this Airflow is told besides; the scenes make their own connections."""
    return SETTINGS


@pytest.fixture(scope="session")
def world(
    real_airflow: RealAirflow,
    emulator: EmulatorProcess,
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    shared = World(
        airflow=real_airflow,
        emulator=emulator,
        postgres=postgres,
        warehouse=postgres.create_database("warehouse"),
        disk=tmp_path_factory.mktemp("archives"),
    )
    shared.prepare()
    return shared


@pytest.fixture(scope="session")
def ending_of(world: World, request: pytest.FixtureRequest) -> Callable[[Scene], Ending]:
    """What came of a scene. The first that is asked for of a row runs all of the row that was selected."""
    endings: dict[str, Ending] = {}
    request.config.stash[ENDINGS] = endings
    selected: list[Scene] = [
        item.callspec.params["scene"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "scene" in item.callspec.params
    ]

    def play(scene: Scene, meeting: Meeting, clock: Meeting) -> None:
        job = Job(world, scene, meeting, clock)
        try:
            scene.play(job)
        finally:
            job.shut_down()

    def ending(scene: Scene) -> Ending:
        if scene.id not in endings:
            world.emulator.clear_faults()
            endings.update(run_row([one for one in selected if one.fault is scene.fault], play))
        return endings[scene.id]

    return ending


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    endings = config.stash.get(ENDINGS, {})
    if endings:
        terminalreporter.section("The fault matrix")
        for line in printed({name: ending.error is None for name, ending in endings.items()}):
            terminalreporter.line(line)
        for name, ending in sorted(endings.items(), key=lambda one: -one[1].seconds):
            terminalreporter.line(f"{ending.seconds:6.0f} s  {name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cells are the last: whatever else there is here is quick."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.is_relative_to(here) and item.path.name == "test_faults.py")
