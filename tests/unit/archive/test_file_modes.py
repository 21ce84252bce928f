"""Who may read an archive on a disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import SettingsError
from airflow_speechkit.hooks.archive import open_archive
from airflow_speechkit.storage import disk
from tests.unit.archive.world import T0, Clock, Service, answer, recording, submitter


def modes(root: Path) -> tuple[set[int], set[int]]:
    """Return the modes of all files, and of all folders."""
    found = [root, *root.rglob("*")]
    each = [(stat.S_IMODE(path.stat().st_mode), path.is_dir()) for path in found]
    return {mode for mode, is_folder in each if not is_folder}, {mode for mode, is_folder in each if is_folder}


def filled(archive: Archive) -> None:
    archive.probe(T0)
    (outcome,) = submitter(archive, Service(Clock())).submit([recording("1")])
    archive.keep(answer(outcome.operation_id or ""), now=T0)


@pytest.fixture(params=[0o022, 0o002, 0o077, 0o000])
def umask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(disk, "_UMASK", request.param)
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_an_archive_is_for_its_owner_and_group_or_less_by_the_umask(tmp_path: Path, umask: int) -> None:
    filled(open_archive(str(tmp_path / "a" / "archive")))
    assert modes(tmp_path / "a" / "archive") == ({0o640 & ~umask}, {0o750 & ~umask})


@pytest.mark.parametrize(("mode", "of_folders"), [("0600", 0o700), ("0660", 0o770), ("0o644", 0o755)])
def test_the_configuration_sets_others_whatever_the_umask_is(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch, mode: str, of_folders: int
) -> None:
    monkeypatch.setenv("AIRFLOW__SPEECHKIT__ARCHIVE_MODE", mode)
    filled(open_archive(str(tmp_path / "archive")))
    assert modes(tmp_path / "archive") == ({int(mode, 8)}, {of_folders})


def test_folders_that_are_there_keep_their_modes_and_pass_on_their_group(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    root.chmod(0o2775)
    filled(Archive.at(root))
    assert stat.S_IMODE(root.stat().st_mode) == 0o2775
    _, of_folders = modes(root / "operations")
    assert of_folders == {0o2750}


@pytest.mark.parametrize("mode", ["0999", "rw-r-----", "0040", "0777", "01640", "-640"])
def test_what_is_no_mode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("AIRFLOW__SPEECHKIT__ARCHIVE_MODE", mode)
    with pytest.raises(SettingsError, match="archive_mode"):
        open_archive(str(tmp_path))
