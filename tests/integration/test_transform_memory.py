"""The memory of `airflow-speechkit transform` for one saved answer stays below its limit, measured from outside."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.storage.test_compressed import AT, CHUNK, MIB, OPERATION_ID, WORD, packed_operation

PEAK = """
import resource, sys
from airflow_speechkit.cli import main
import airflow_speechkit.results.many
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
status = main(["transform", sys.argv[1], "--to", sys.argv[2], "--memory-mib", sys.argv[3]])
print(status, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("packed", [True, False], ids=["json.gz", "json"])
def test_an_answer_that_is_too_large_stays_within_the_memory_limit(tmp_path: Path, packed: bool) -> None:
    saved = tmp_path / "saved.json"
    saved.write_bytes(packed_operation(600) if packed else gzip.decompress(packed_operation(600)))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(saved), str(tmp_path / "rows"), "256"],
        capture_output=True,
        text=True,
        check=True,
    )
    status, peak_mib = map(int, done.stdout.split())
    assert (status, peak_mib < 256) == (1, True), (done.stdout, done.stderr)
    assert "memory_mib" in done.stderr


def test_the_largest_readable_answer_stays_within_the_memory_limit(tmp_path: Path) -> None:
    said = json.dumps({"chunks": [{**CHUNK, "alternatives": [{"words": [WORD] * 40, "text": "да " * 40}]}] * 4000})
    operation = f'{{"done":true,"response":{said},"id":"{OPERATION_ID}","createdAt":"{AT["createdAt"]}"}}'
    assert 12 * MIB < len(operation) < 16 * MIB
    (tmp_path / "saved.json").write_bytes(operation.encode())
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "saved.json"), str(tmp_path / "rows"), "256"],
        capture_output=True,
        text=True,
        check=True,
    )
    *_, last = done.stdout.splitlines()
    status, peak_mib = map(int, last.split())
    assert (status, peak_mib < 256) == (0, True), (done.stdout, done.stderr)
