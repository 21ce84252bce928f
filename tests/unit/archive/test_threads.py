"""Several threads read the first records of a process at the same time."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from tests.fixtures.environment import ROOT

FIRST_READS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.storage import Folder

archive = Archive(Folder.at(sys.argv[1]))
(operation_id, *_) = (path.name for path in Path(sys.argv[1], "operations").iterdir())
together = Barrier(8)

def read(_):
    together.wait()
    return archive.submission(operation_id)

sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(8) as pool:
    assert len(set(map(str, pool.map(read, range(8))))) == 1
"""


def test_threads_that_read_the_first_records_at_once_do_not_crash_or_hang(tmp_path: Path) -> None:
    # Each process has one first read, and not every one of them crashed.
    with tarfile.open(ROOT / "tests/fixtures/archives/0.1/v3.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    (operations,) = tmp_path.rglob("operations")
    for _ in range(20):
        subprocess.run([sys.executable, "-c", FIRST_READS, str(operations.parent)], check=True, timeout=120)
