"""Several threads make the first settings of a process at the same time."""

from __future__ import annotations

import subprocess
import sys

FIRST_SETTINGS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from airflow_speechkit.settings import RecognitionSettings

together = Barrier(8)
summary = {"model_uri": "gpt://folder/model", "properties": [{"instruction": "Sum up", "json_schema": {"a": 1}}]}

def make(_):
    together.wait()
    return RecognitionSettings(api_version="v3", summarization=summary, classifiers={"x": ["ON_FINAL"]})

sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(8) as pool:
    assert len(set(map(str, pool.map(make, range(8))))) == 1
"""


def test_threads_that_make_the_first_settings_at_once_do_not_crash_or_hang() -> None:
    # Each process has one first conversion, and not every one of them crashed.
    for _ in range(20):
        subprocess.run([sys.executable, "-c", FIRST_SETTINGS], check=True, timeout=120)
