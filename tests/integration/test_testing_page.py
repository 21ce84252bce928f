"""The files of the page on testing a DAG are a passing test."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import airflow

from tests.fixtures.environment import ROOT, airflow_environment


def test_the_pages_files_are_a_passing_test(tmp_path: Path) -> None:
    page = (ROOT / "docs/testing.md").read_text()
    conftest, test = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    if airflow.__version__.startswith("2."):
        test = test.replace("logical_date=", "execution_date=")
    project = tmp_path / "project"
    (project / "tests").mkdir(parents=True)
    (project / "dags").mkdir()
    (project / "tests/conftest.py").write_text(conftest)
    (project / "tests/test_nightly.py").write_text(test)
    shutil.copy(ROOT / "dags/speechkit_nightly.py", project / "dags")
    # No Airflow of this machine: the page's own conftest makes one.
    environment = airflow_environment(tmp_path, project / "dags", "")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'made'}", "tests"],
        cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800, check=False,
        env={name: value for name, value in environment.items() if not name.startswith("AIRFLOW_")}
        | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:]
    assert "1 passed" in done.stdout
