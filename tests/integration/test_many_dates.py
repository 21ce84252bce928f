"""Tables of hundreds of dates, written by a process that can open only a few files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

UNDER_A_LOW_LIMIT = """
import resource, sys
import pyarrow.dataset as ds
from airflow_speechkit.storage import Folder
from airflow_speechkit.results.many import write_many
from tests.unit.results.answers import chunk, v2, word

import datetime

def load(operation_id):
    number = int(operation_id)
    day = (datetime.date(2026, 1, 1) + datetime.timedelta(days=number % 400)).isoformat()
    words = [word(f"w{one}", f"{one}s", f"{one}.5s") for one in range(50)]
    return v2(chunk("1", *words), operation_id=operation_id, day=day), None

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
ids = [f"{number:04d}" for number in range(1200)]
manifest = write_many(load, ids, Folder.at(sys.argv[1]), memory_bytes=int(sys.argv[2]))
assert {name: len(table.paths) for name, table in manifest.tables.items()} == {
    "recognitions": 1200, "utterances": 1200, "words": 1200, "analyses": 0
}, manifest
words = ds.dataset(f"{sys.argv[1]}/words", partitioning="hive")
assert words.count_rows() == manifest.tables["words"].rows == 60_000
of_a_day = words.to_table(filter=ds.field("day") == "2026-01-02")["operation_id"].to_pylist()
assert list(dict.fromkeys(of_a_day)) == ["0001", "0401", "0801"]
"""


@pytest.mark.parametrize("memory_bytes", [4_000_000, 256 << 20])
def test_hundreds_of_dates_take_few_descriptors(tmp_path: Path, memory_bytes: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", UNDER_A_LOW_LIMIT, str(tmp_path), str(memory_bytes)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
