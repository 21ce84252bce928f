"""What stands between a claim and its sending: a disk that fails, a store that can't exclude, a listing that lags."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.storage import Folder
from tests.unit.archive.world import T0, Clock, Service, recording, submitter


def test_a_claim_whose_folder_could_not_be_synced_is_no_lost_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, service = Archive.at(tmp_path), Service(Clock())
    archive.probe(T0)
    sync = os.fsync

    def failing(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EIO, "Input/output error")
        sync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ArchiveError):
        submitter(archive, service).submit([recording("1")])
    assert service.asked == 0
    monkeypatch.undo()
    service.clock.advance(hours=1)
    (outcome,) = submitter(archive, service).submit([recording("1")])
    assert outcome.status == "submitted"
    assert service.accepted == {"1": 1}


class Refusing:
    """A store's filesystem that answers a conditional write with a given status, below one folder."""

    protocol = "s3"

    def __init__(self, status: int, below: str) -> None:
        self.status, self.below, self.files = status, below, {}  # type: ignore[var-annotated]

    def cat_file(self, path: str, **_: Any) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return bytes(self.files[path])

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        if mode == "create" and self.below in path:
            response: Any = {"ResponseMetadata": {"HTTPStatusCode": self.status}, "Error": {"Code": "NotImplemented"}}
            raise OSError(errno.EIO, "no") from ClientError(response, "PutObject")
        if path in self.files:
            raise FileExistsError(path)
        self.files[path] = value


@pytest.mark.parametrize("status", [400, 501])
@pytest.mark.parametrize("below", ["archive.json", "ledger/"])
def test_a_store_that_supports_no_conditional_write_is_refused_for_good(status: int, below: str) -> None:
    fs: Any = Refusing(status, below)
    with pytest.raises(ArchiveError, match="If-None-Match") as caught:
        Archive(Folder(fs, "b/archive", "s3://b/archive", ArchiveError)).probe(T0)
    assert not caught.value.retry_can_help


def test_who_waits_for_a_claim_that_no_listing_shows_yet_pauses_between_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, service = Archive.at(tmp_path), Service(Clock())
    archive.probe(T0)
    submitter(archive, service, run="other").submit([recording("1")])
    names, looks = Folder.names, 0

    def lagging(self: Folder, below: str = "") -> Iterator[str]:
        nonlocal looks
        looks += below.startswith("ledger/")
        if below.startswith("ledger/") and service.clock.now() < T0.replace(hour=13):
            return iter(())
        return names(self, below)

    monkeypatch.setattr(Folder, "names", lagging)
    (outcome,) = submitter(archive, service).submit([recording("1")])
    assert outcome.status == "joined"
    assert looks < 3600 / 5 * 3
