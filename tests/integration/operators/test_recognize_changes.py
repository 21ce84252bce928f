"""Recordings that change between the visits of a recognize task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.direct import OGG, Desk
from tests.integration.operators.test_recognize import Runs, archived, put, recognize

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    """A service that works fast."""
    from speechkit_emulator.process import EmulatorProcess

    with EmulatorProcess(speed=360.0) as process:
        yield process


@pytest.mark.parametrize("by_prefix", [True, False])
@pytest.mark.parametrize("change", ["deleted", "replaced", "one more"])
def test_recordings_are_passed_to_the_next_visit_as_they_were_found(desk: Desk, by_prefix: bool, change: str) -> None:
    prefix = put(desk, 3)
    runs = Runs(recognize(desk, prefix if by_prefix else [f"{prefix}{number:03}.ogg" for number in range(3)]))
    assert runs.start() is None
    if change == "deleted":
        desk.emulator.s3().delete_object(Bucket=desk.bucket, Key=f"{desk.prefix}/001.ogg")
    else:
        desk.emulator.put(f"{desk.prefix}/00{1 if change == 'replaced' else 3}.ogg", OGG + b"a new one")
    ids = runs.go_on()
    submissions = [desk.archive.submission(one) for one in ids]
    assert [one.audio_uri[-7:] for one in submissions if one] == ["000.ogg", "001.ogg", "002.ogg"]
    assert archived(desk, ids) == desk.billed() == 3
    assert not list(desk.archive.folder.names("runs")), "it has addresses and labels"


def test_a_local_file_is_not_needed_on_the_worker_that_resumes(desk: Desk, tmp_path: Path) -> None:
    recording = tmp_path / "call.ogg"
    recording.write_bytes(OGG)
    desk.emulator.seed({"channels": [{"utterances": [{"text": "two words"}]}], "processing_s": 0}, glob="*")
    runs = Runs(recognize(desk, str(recording), upload_to=f"s3://{desk.bucket}/{desk.prefix}/uploads/"))
    assert runs.start() is None
    recording.unlink()
    assert archived(desk, [runs.go_on()]) == desk.billed() == 1
