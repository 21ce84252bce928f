"""Each wheel that ``make wheel`` built does its work, installed alone with nothing but what it asks for, and in the way
that the README says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.fixtures.environment import ROOT, airflow_environment

README = (ROOT / "README.md").read_text()

#: A resolver that goes back through versions without end is stopped by this: many times what an installation takes.
HANGS_AFTER_S = 1800

UV = os.environ.get("UV", str(ROOT / ".work" / "uv" / "bin" / "uv"))


@pytest.fixture(scope="module")
def wheel() -> Path:
    (built,) = (ROOT / "dist").glob("airflow_speechkit-*.whl")
    return built


@pytest.fixture(scope="module")
def emulator_wheel() -> Path:
    (built,) = (ROOT / "dist").glob("speechkit_emulator-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the provider, without an extra."""
    return install(wheel, tmp_path_factory.mktemp("provider") / "venv")


@pytest.fixture(scope="module")
def installed_by_readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that the README's command was run in, with the pip that comes along."""
    environment = tmp_path_factory.mktemp("readme") / "venv"
    subprocess.run([sys._base_executable, "-m", "venv", environment], check=True)  # type: ignore[attr-defined]
    (command,) = re.findall(r"^pip install .*\[s3,duckdb\].*[^\\]$", README, re.MULTILINE)
    run_in(environment, command)
    return environment / "bin"


@pytest.fixture(scope="module")
def emulator_installed(emulator_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the emulator."""
    return install(emulator_wheel, tmp_path_factory.mktemp("emulator") / "venv")


def install(wheel: Path, environment: Path) -> Path:
    """Install a wheel and what it depends on, in the lock's versions; return where its programs are."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys._base_executable, environment], check=True)  # type: ignore[attr-defined]
    versions = ROOT / "locks" / "dev.txt"
    into = environment / "bin" / "python"
    subprocess.run([UV, "pip", "install", "--quiet", "--python", into, "--constraints", versions, wheel], check=True)
    return environment / "bin"


def run_in(environment: Path, command: str) -> None:
    """Run one of the README's commands in the project's folder, as in an environment that was activated."""
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"PATH": path}, cwd=ROOT, capture_output=True, text=True, check=False, timeout=HANGS_AFTER_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def run(program: Path, *arguments: str, home: Path) -> str:
    done = subprocess.run(
        [program, *arguments],
        env=airflow_environment(home, home / "dags", f"sqlite:///{home}/airflow.db"),
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("built", "package", "folder"),
    [("wheel", "airflow_speechkit", ROOT), ("emulator_wheel", "speechkit_emulator", ROOT / "emulator")],
)
def test_a_wheel_holds_its_package_and_its_data_and_nothing_else(
    built: str, package: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    names = set(zipfile.ZipFile(request.getfixturevalue(built)).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", package], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {name for name in names if ".dist-info/" not in name} >= set(tracked)
    assert {name.split("/")[0].partition("-")[0] for name in names} == {package}
    assert f"{package}/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.timeout(2 * HANGS_AFTER_S)
def test_airflow_lists_it_among_its_providers(installed_by_readme: Path, tmp_path: Path) -> None:
    listed = run(installed_by_readme / "airflow", "providers", "list", "--output", "plain", home=tmp_path)
    assert "airflow-speechkit" in listed


def test_airflow_knows_its_hook(installed_by_readme: Path, tmp_path: Path) -> None:
    airflow = installed_by_readme / "airflow"
    assert "SpeechKitHook" in run(airflow, "providers", "hooks", "--output", "plain", home=tmp_path)
    assert "airflow-speechkit" in run(
        airflow, "providers", "get", "airflow-speechkit", "--full", "--output", "yaml", home=tmp_path
    )


def test_what_a_dag_imports_needs_no_extra(installed: Path, tmp_path: Path) -> None:
    modules = ("operators.submit", "operators.transform", "sensors.recognition", "transfers.sql", "hooks.speechkit")
    statement = "; ".join(f"import airflow_speechkit.{module}" for module in modules)
    run(installed / "python", "-c", statement, home=tmp_path)


def test_its_command_line_runs_without_an_extra(installed: Path, tmp_path: Path) -> None:
    assert "transform" in run(installed / "airflow-speechkit", "--help", home=tmp_path)


def test_without_the_emulator_its_command_says_what_to_install(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "airflow-speechkit", "emulator", "--port=0"],
        env={"PATH": str(installed), "HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "install it, or the extra that has it: airflow-speechkit[duckdb], [emulator]" in done.stderr


def test_without_its_extra_a_folder_in_a_bucket_names_it(installed: Path, tmp_path: Path) -> None:
    statement = """
from airflow_speechkit.errors import SettingsError
from airflow_speechkit.hooks.storage import object_storage_path
try:
    object_storage_path("s3://bucket/folder")
except SettingsError as error:
    print(error)
"""
    said = run(installed / "python", "-c", statement, home=tmp_path)
    assert "pip install 'airflow-speechkit[s3]'" in said

    done = subprocess.run(
        [installed / "airflow-speechkit", "archive", "list", "--archive", "s3://bucket/folder"],
        env={"PATH": str(installed), "HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'airflow-speechkit[s3]'" in done.stderr


def test_the_emulator_runs_without_airflow(emulator_installed: Path, tmp_path: Path) -> None:
    assert not (emulator_installed / "airflow").exists()
    assert_emulator_starts(emulator_installed / "speechkit-emulator", home=tmp_path)


# Last: it adds to the environment.
@pytest.mark.timeout(2 * HANGS_AFTER_S)
def test_the_readmes_command_for_the_extra_brings_the_emulator(installed_by_readme: Path, tmp_path: Path) -> None:
    (command,) = re.findall(r"`(pip install [^`]*\[emulator\][^`]*)`", README)
    run_in(installed_by_readme.parent, command.replace("\n", " "))
    assert_emulator_starts(installed_by_readme / "airflow-speechkit", "emulator", home=tmp_path)


def assert_emulator_starts(program: Path, *arguments: str, home: Path) -> None:
    process = subprocess.Popen(
        [program, *arguments, "--no-warm", "--exit-with-stdin", "--port=0", "--storage-port=0"],
        cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["speechkit"]
        page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60)
        assert b"samples/delivery.ogg" in page.read()
        process.terminate()
        assert process.wait(60) == 0
