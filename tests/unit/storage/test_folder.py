"""A folder of files on a real disk, on a real S3 server, and on whatever else fsspec knows."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import ArchiveError, StorageError
from airflow_speechkit.storage import Folder
from tests.fixtures.s3 import CREDENTIALS


def bucket_folder(endpoint: str, path: str = "lake/archive", **options: Any) -> Folder:
    import s3fs

    fs = s3fs.S3FileSystem(
        key=CREDENTIALS["aws_access_key_id"],
        secret=CREDENTIALS["aws_secret_access_key"],
        endpoint_url=endpoint,
        skip_instance_cache=True,
        client_kwargs={"region_name": "ru-central1"},
        **options,
    )
    return Folder(fs, path, f"s3://{path}")


@pytest.fixture(params=["disk", "s3", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "disk":
        yield Folder.at(tmp_path / "archive")
    elif request.param == "s3":
        client = request.getfixturevalue("s3_client")
        client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
        yield bucket_folder(request.getfixturevalue("s3_endpoint"))
    else:
        from fsspec.implementations.memory import MemoryFileSystem

        fs = MemoryFileSystem()
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]
        yield Folder(fs, "/lake/archive", "memory://lake/archive")


def test_read_returns_what_was_written(folder: Folder) -> None:
    folder.replace("a/b/one.json", b"1")
    assert folder.read("a/b/one.json") == b"1"
    folder.replace("a/b/one.json", b"another")
    assert folder.read("a/b/one.json") == b"another"


def test_an_empty_file_is_not_a_missing_one(folder: Folder) -> None:
    folder.replace("empty", b"")
    assert folder.read("empty") == b""
    assert folder.exists("empty")


def test_a_missing_file_raises_file_not_found(folder: Folder) -> None:
    folder.replace("something/else", b"1")
    with pytest.raises(FileNotFoundError):
        folder.read("nothing/here")
    assert not folder.exists("nothing/here")


def test_only_the_first_create_writes(folder: Folder) -> None:
    assert folder.create("a/claim", b"first")
    assert not folder.create("a/claim", b"second")
    assert folder.read("a/claim") == b"first"


def test_names_are_all_files_below(folder: Folder) -> None:
    for name in ("b/2", "a/1", "a/c/3", "ab/4"):
        folder.replace(name, b"x")
    assert list(folder.names()) == ["a/1", "a/c/3", "ab/4", "b/2"]
    assert list(folder.names("a")) == ["a/1", "a/c/3"]
    assert list(folder.names("nowhere")) == []


def test_folders_are_those_right_below(folder: Folder) -> None:
    for name in ("top", "a/1", "a/c/3", "b/2"):
        folder.replace(name, b"x")
    assert list(folder.folders()) == ["a", "b"]
    assert list(folder.folders("a")) == ["c"]
    assert list(folder.folders("nowhere")) == []


def test_a_link_to_a_folder_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/link").symlink_to(tmp_path / "elsewhere")
    assert list(Folder.at(tmp_path / "archive").folders()) == ["link"]


def test_deleting_a_missing_file_is_no_error(folder: Folder) -> None:
    folder.replace("a", b"1")
    folder.delete("a")
    folder.delete("a")
    assert not folder.exists("a")


def test_a_finished_file_is_put_in_place(folder: Folder, tmp_path: Path) -> None:
    finished = tmp_path / "finished"
    finished.write_bytes(b"x" * 100_000)
    folder.replace("tables/words/1.parquet", finished)
    assert folder.read("tables/words/1.parquet") == b"x" * 100_000
    assert finished.exists()


class TestUnfinished:
    """Files that are being written: on a disk only."""

    def test_files_of_a_killed_process_are_listed_and_can_be_deleted(self, tmp_path: Path) -> None:
        folder = Folder.at(tmp_path)
        folder.replace("a/b/whole", b"1")
        (tmp_path / "a" / "b" / "tmp1.part").write_bytes(b"half")
        (tmp_path / "c.part").write_bytes(b"half")
        assert list(folder.unfinished("a")) == ["a/b/tmp1.part"]
        assert list(folder.unfinished()) == ["a/b/tmp1.part", "c.part"]
        assert list(folder.unfinished("nowhere")) == []
        folder.delete("a/b/tmp1.part")
        assert list(folder.unfinished("a")) == []

    def test_recently_written_files_can_be_left_out(self, tmp_path: Path) -> None:
        folder = Folder.at(tmp_path)
        (tmp_path / "old.part").write_bytes(b"half")
        (tmp_path / "young.part").write_bytes(b"half")
        # By the clock of this process, which need not be the one that the kernel dates files by.
        for name, age_s in (("old.part", 3601), ("young.part", 0)):
            os.utime(tmp_path / name, (time.time() - age_s,) * 2)
        assert list(folder.unfinished(untouched_for=timedelta(hours=1))) == ["old.part"]

    def test_a_file_finished_during_the_listing_is_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Folder.at(tmp_path)
        (tmp_path / "a.part").write_bytes(b"half")

        def gone(path: str) -> None:
            raise FileNotFoundError(path)

        monkeypatch.setattr(os, "stat", gone)
        assert list(folder.unfinished(untouched_for=timedelta(hours=1))) == []

    def test_a_bucket_has_no_unfinished_objects(self, folder: Folder) -> None:
        folder.replace("a/whole", b"1")
        assert list(folder.unfinished()) == []

    def test_only_an_empty_folder_is_removed(self, folder: Folder) -> None:
        folder.replace("a/1", b"1")
        folder.prune("a")
        assert folder.read("a/1") == b"1"
        folder.delete("a/1")
        folder.prune("a")
        folder.prune("a")
        if folder.fs.protocol != "memory":
            assert list(folder.folders()) == []


class TestDisk:
    def test_one_of_many_concurrent_creates_succeeds(self, tmp_path: Path) -> None:
        folder = Folder.at(tmp_path)
        with ThreadPoolExecutor(16) as pool:
            for name in ("a", "b", "c"):
                won = list(pool.map(lambda n, name=name: folder.create(name, b"%d" % n), range(64)))
                assert sum(won) == 1
                assert folder.read(name) == b"%d" % won.index(True)

    def test_a_failed_write_leaves_no_partial_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = Folder.at(tmp_path)
        folder.replace("a", b"old")

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        for write in (folder.create, folder.replace):
            with pytest.raises(StorageError, match="No space left on device"):
                write("b", b"new")
            with pytest.raises(StorageError):
                folder.replace("a", b"new")
        assert list(folder.names()) == ["a"]
        assert folder.read("a") == b"old"
        assert os.listdir(tmp_path) == ["a"]

    def test_a_disk_without_hard_links_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def cannot(*_: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", cannot)
        with pytest.raises(StorageError, match="not permitted"):
            Folder.at(tmp_path).create("a", b"1")
        assert os.listdir(tmp_path) == []

    def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Folder.at(tmp_path)
        folder.replace("a/1", b"1")

        def forbidden(*_: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(os, "scandir", forbidden)
        with pytest.raises(StorageError, match="Permission denied"):
            list(folder.names("a"))
        with pytest.raises(StorageError, match="Permission denied"):
            list(folder.folders())

    def test_a_second_user_of_the_same_group_can_read_it(self, tmp_path: Path) -> None:
        Folder.at(tmp_path).create("a", b"1")
        reference = tmp_path / "reference"
        reference.touch()
        assert (tmp_path / "a").stat().st_mode == reference.stat().st_mode

    def test_the_errors_kind_can_be_set(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        folder = replace(Folder.at(tmp_path / "file"), fault=ArchiveError)
        with pytest.raises(ArchiveError, match="Can't create"):
            folder.create("a", b"1")

    def test_an_object_storage_path_is_accepted(self, tmp_path: Path) -> None:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        folder = Folder.at(ObjectStoragePath(f"file://{tmp_path}"))
        assert folder.create("a", b"1")
        assert (tmp_path / "a").read_bytes() == b"1"


class TestBucket:
    @pytest.fixture
    def lake(self, s3_client: Any) -> Any:
        s3_client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
        return s3_client

    def test_changes_of_another_process_are_visible_at_once(self, lake: Any, s3_endpoint: str) -> None:
        folder = bucket_folder(s3_endpoint)
        folder.replace("a/1", b"1")
        # s3fs caches what a listing says, and would believe it from then on.
        folder.fs.ls("lake/archive/a")
        assert list(folder.names("a")) == ["a/1"]
        lake.put_object(Bucket="lake", Key="archive/a/2", Body=b"2")
        assert folder.exists("a/2")
        assert folder.read("a/2") == b"2"
        assert list(folder.names("a")) == ["a/1", "a/2"]
        lake.put_object(Bucket="lake", Key="archive/a/1", Body=b"longer than before")
        assert folder.read("a/1") == b"longer than before"
        lake.delete_object(Bucket="lake", Key="archive/a/1")
        assert not folder.exists("a/1")
        assert list(folder.names("a")) == ["a/2"]

    def test_a_missing_bucket_is_not_an_empty_one(self, lake: Any, s3_endpoint: str) -> None:
        folder = bucket_folder(s3_endpoint, "elsewhere/archive")
        for act in (
            lambda: folder.read("a"),
            lambda: folder.exists("a"),
            lambda: list(folder.names("a")),
            lambda: list(folder.names()),
            lambda: list(folder.folders()),
            lambda: folder.create("a", b"1"),
            lambda: folder.replace("a", b"1"),
        ):
            with pytest.raises(StorageError):
                act()

    def test_an_unreachable_store_is_an_error(self) -> None:
        folder = bucket_folder(
            "http://127.0.0.1:9", config_kwargs={"retries": {"max_attempts": 0}, "connect_timeout": 1}
        )
        for act in (lambda: folder.read("a"), lambda: list(folder.names("a")), lambda: folder.create("a", b"1")):
            with pytest.raises(StorageError, match="Can't"):
                act()

    def test_conflicts_are_retried_and_a_failed_condition_means_it_exists(self, lake: Any, s3_endpoint: str) -> None:
        # AWS and moto name the condition in the body of the 412, others need not; 409 means "just now, by another".
        from botocore.exceptions import ClientError

        folder = bucket_folder(s3_endpoint)
        answers = [(409, "ConditionalRequestConflict"), (409, "ConditionalRequestConflict"), (412, "Whatever")]

        def refuse(*_: Any, **__: Any) -> None:
            status, code = answers.pop(0)
            cause = ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")
            raise OSError(errno.EIO, "translated") from cause

        folder.fs.pipe_file = refuse
        assert folder.create("a", b"1") is False
        assert answers == []

    def test_reading_and_listing_take_one_request_each(self, lake: Any, s3_endpoint: str) -> None:
        folder = bucket_folder(s3_endpoint)
        folder.replace("a/1", b"1")
        requests: list[str] = []
        call = folder.fs._call_s3

        async def counted(method: str, *args: Any, **kwargs: Any) -> Any:
            requests.append(method)
            return await call(method, *args, **kwargs)

        folder.fs._call_s3 = counted
        folder.read("a/1")
        list(folder.names("a"))
        list(folder.names("unknown"))
        folder.exists("a/1")
        folder.create("a/2", b"2")
        # Not every s3fs lists by this way.
        assert requests.count("list_objects_v2") in (0, 2)
        assert [one for one in requests if one != "list_objects_v2"] == ["get_object", "get_object", "put_object"]
