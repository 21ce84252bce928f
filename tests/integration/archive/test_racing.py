"""Two processes that claim the same recordings at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.environment import ROOT


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_two_racing_processes_never_hold_the_same_claim(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root, endpoint = str(tmp_path), ""
    if where == "s3":
        root, endpoint = f"lake/{tmp_path.name}", request.getfixturevalue("s3_endpoint")
        request.getfixturevalue("s3_client").create_bucket(
            Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "ru-central1"}
        )
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.archive.racer", name, root, endpoint, "50"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        held = [json.loads(racer.communicate(timeout=600)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert sorted(held[0] + held[1], key=int) == [str(n) for n in range(50)]
