"""A conversion takes no more memory for a long recording than for a short one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.environment import ROOT
from tests.unit.recordings.sounds import wav_format, wav_of_chunks

CONVERT = """
import sys
from functools import partial
from pathlib import Path
from airflow_speechkit.recordings.conversion.convert import Converter
from airflow_speechkit.recordings.conversion.decoding import open_source
from airflow_speechkit.settings import ApiVersion
with Converter(partial(open_source, Path(sys.argv[1])), ApiVersion.V2, "1.wav").whole():
    pass
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
A_LAW, RATE = 6, 8_000


def peak_kb(path: Path, minutes: int) -> int:
    """Convert a call of two channels in a process of its own, and return how much memory that took."""
    form = wav_format(RATE, 2, form=A_LAW, bits=8)
    path.write_bytes(wav_of_chunks((b"fmt ", form), (b"data", bytes(range(256)) * (minutes * 60 * RATE * 2 // 256))))
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says so")
def test_memory_is_flat(tmp_path: Path) -> None:
    short, long = peak_kb(tmp_path / "1.wav", 2), peak_kb(tmp_path / "2.wav", 60)
    assert long < short + 20_000
    assert long < 200_000
