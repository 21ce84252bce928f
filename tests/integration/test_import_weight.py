"""A DAG file is parsed every few seconds: the modules that it imports must load no heavy library."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.fixtures.environment import ROOT
from tests.fixtures.modules import airflow_side_modules

HEAVY = (
    "aiohttp", "av", "boto3", "botocore", "cryptography", "duckdb", "jwt", "moto", "numpy", "pandas",
    "pocketsphinx", "polars", "psycopg2", "pyarrow", "requests", "s3fs",
)  # fmt: skip

# One fresh interpreter loads what any DAG file loads, and a fork of it each module: so only the module's own shows.
MEASURE = """
import importlib, json, os, sys
import airflow.triggers.base
from airflow.providers.common.compat.sdk import DAG, BaseHook, BaseOperator, BaseSensorOperator, Param
heavy, modules = json.loads(sys.argv[1]), json.loads(sys.argv[2])
before = set(sys.modules)
for module in modules:
    if os.fork() == 0:
        try:
            importlib.import_module(module)
        except Exception as error:
            found = [repr(error)]
        else:
            found = sorted(name for name in heavy if name in set(sys.modules) - before)
        os.write(1, (json.dumps([module, found]) + "\\n").encode())
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The heavy packages that each module loads."""
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(HEAVY), json.dumps(airflow_side_modules())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in measured.stdout.splitlines() if line.startswith('["')]
    assert lines, measured.stderr[-3000:]
    return dict(json.loads(line) for line in lines)


@pytest.mark.parametrize("module", airflow_side_modules())
def test_importing_a_module_loads_no_heavy_library(module: str, loaded: dict[str, list[str]]) -> None:
    assert loaded[module] == []
