"""What later runs, backfills and corrections make of a recording in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_speechkit.recordings.audio import facts as limits
from tests.fixtures.direct import Desk
from tests.integration.operators.long_recordings import seed_parts, submit, wav_of
from tests.unit.recordings.clicks import written

#: 50 seconds, which are silent, or in a format that is looked into by its conversion only.
SILENT = wav_of([[]], 50)
FLAC = written("flac", "flac", 8_000, 1, samples=np.random.default_rng(1).normal(scale=0.1, size=(1, 400_000)))


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client believes that the service takes 20 s of one channel."""
    monkeypatch.setattr(limits, "MAX_CHANNEL_MS", 20_000)


@pytest.mark.parametrize(
    ("name", "content", "filters"),
    [("silent.wav", SILENT, {"skip_silent": True}), ("long.flac", FLAC, {"max_duration_s": 30})],
    ids=["silent", "long"],
)
def test_a_filter_that_is_set_later_leaves_out_what_has_its_parts_already(
    desk: Desk, emulator_s3: Any, name: str, content: bytes, filters: dict[str, Any]
) -> None:
    audio = desk.put(name, content)
    assert len(seed_parts(desk, emulator_s3, audio, [[]])) > 1
    with pytest.raises(AirflowSkipException):
        submit(desk, audio, **filters)
    assert not list(desk.archive.operations())
