"""The archive on a disk, in a bucket, and on stores that can't be relied on."""

from __future__ import annotations

import gzip
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.archive.ledger import AttemptState
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import ArchiveError, SettingsError
from airflow_speechkit.models import Answer
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage import Folder
from tests.unit.archive.world import (
    T0,
    Service,
    answer,
    archive_at,
    failure,
    failure_of,
    origin,
    recording,
    submitter,
)


@pytest.fixture(params=["disk", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    if request.param == "disk":
        archive = Archive.at(tmp_path)
    else:
        archive = archive_at(f"lake/{tmp_path.name}", request.getfixturevalue("s3"))
    archive.probe(T0)
    return archive


def submitted(archive: Archive, service: Service, name: str = "1") -> str:
    [outcome] = submitter(archive, service).submit([recording(name)])
    assert outcome.operation_id is not None
    return outcome.operation_id


class TestProbe:
    def test_it_leaves_the_root_and_a_file_among_the_claims(self, archive: Archive) -> None:
        archive.probe(T0)
        archive.probe(T0)
        assert list(archive.folder.names()) == ["archive.json", "ledger/probe.json"]
        assert list(archive.fingerprints()) == []

    def test_a_new_archive_is_announced(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        Archive.at(tmp_path).probe(T0)
        assert "A new archive is created" in caplog.text
        caplog.clear()
        Archive.at(tmp_path).probe(T0)
        assert caplog.text == ""

    def test_a_store_on_which_a_create_does_not_exclude_is_refused(self) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        class Overwriting(MemoryFileSystem):
            """As filesystems are that know of no other way to write."""

            protocol = "overwriting"
            store: dict[str, Any] = {}  # noqa: RUF012

            def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
                super().pipe_file(path, value)

        fs = Overwriting()
        with pytest.raises(ArchiveError, match="If-None-Match"):
            Archive(Folder(fs, "/archive", "memory://archive", ArchiveError)).probe(T0)

    def test_a_role_that_may_write_need_not_be_allowed_to_delete(
        self, archive: Archive, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Folder, name: str) -> None:
            raise ArchiveError(f"Access Denied: {name}")

        # As with the role storage.uploader.
        monkeypatch.setattr(Folder, "delete", refuse)
        archive.probe(T0)
        operation_id = submitted(archive, service)
        archive.keep(answer(operation_id), now=T0)
        assert submitted(archive, service) == operation_id

    def test_a_missing_bucket_is_refused(self, s3: str) -> None:
        with pytest.raises(ArchiveError):
            archive_at("nobody/archive", s3).probe(T0)

    def test_a_file_in_its_place_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "archive").write_text("")
        with pytest.raises(ArchiveError):
            Archive.at(tmp_path / "archive").probe(T0)

    def test_an_archive_of_a_later_version_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "archive.json").write_text(json.dumps({"archive_version": 2}))
        with pytest.raises(ArchiveError, match="later version"):
            Archive.at(tmp_path).probe(T0)


class TestUnreadable:
    """An archive that can't be read is never taken for an empty one."""

    def test_a_damaged_record_stops_the_submit(self, archive: Archive, service: Service) -> None:
        submitted(archive, service)
        [name] = [name for name in archive.folder.names("ledger") if "operation" in name]
        archive.folder.replace(name, b"{")
        with pytest.raises(ArchiveError, match="damaged"):
            submitter(archive, service).submit([recording()])
        archive.folder.replace(name, b'{"archive_version": 1, "submission": {}}')
        with pytest.raises(ArchiveError, match="damaged"):
            submitter(archive, service).submit([recording()])
        assert service.accepted.total() == 1

    def test_an_archive_that_is_missing_stops_the_submit(self, tmp_path: Path, service: Service) -> None:
        archive = Archive.at(tmp_path / "mounted")
        archive.probe(T0)
        submitted(archive, service)
        os.rename(tmp_path / "mounted", tmp_path / "elsewhere")
        with pytest.raises(ArchiveError, match="is missing"):
            submitter(archive, service).submit([recording("2")])
        assert service.accepted.total() == 1

    def test_a_store_that_is_down_stops_the_submit(self, service: Service) -> None:
        import s3fs

        fs = s3fs.S3FileSystem(
            key="k",
            secret="s",
            endpoint_url="http://127.0.0.1:9",
            skip_instance_cache=True,
            config_kwargs={"retries": {"max_attempts": 0}, "connect_timeout": 1},
        )
        archive = Archive(Folder(fs, "lake/archive", "s3://lake/archive", ArchiveError))
        with pytest.raises(ArchiveError):
            submitter(archive, service).submit([recording()])
        assert service.asked == 0

    def test_a_full_disk_keeps_nothing_by_halves(
        self, tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive = Archive.at(tmp_path)
        archive.probe(T0)
        operation_id = submitted(archive, service)
        writes = os.fsync
        left = [1]

        def full(handle: int) -> None:
            if not left:
                raise OSError(28, os.strerror(28))
            left.pop()
            writes(handle)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ArchiveError, match="No space left"):
            archive.keep(answer(operation_id, ApiVersion.V3), now=T0)
        assert archive.answer(operation_id) is None
        monkeypatch.undo()
        archive.keep(answer(operation_id, ApiVersion.V3), now=T0)
        assert archive.answer(operation_id) == answer(operation_id, ApiVersion.V3)

    def test_an_answer_that_is_not_what_was_written_is_reported(self, archive: Archive, service: Service) -> None:
        operation_id = submitted(archive, service)
        archive.keep(answer(operation_id), now=T0)
        archive.folder.replace(f"operations/{operation_id}/operation.json.gz", gzip.compress(b"{}"))
        with pytest.raises(ArchiveError, match="not what was written"):
            archive.answer(operation_id)

    @pytest.mark.parametrize("operation_id", ["../../etc/passwd", "a/b", "", "..", "e03\n"])
    def test_what_is_no_operation_id_never_becomes_a_path(self, archive: Archive, operation_id: str) -> None:
        for ask in (archive.submission, archive.answer, archive.outcome):
            with pytest.raises(SettingsError):
                ask(operation_id)


class TestAnswers:
    def test_an_answer_is_kept_byte_for_byte(self, archive: Archive, service: Service) -> None:
        operation_id = submitted(archive, service)
        raw = b'{"done":true, "response" : {"text": "\xd0\x94\xd0\xb0"}}\n' * 1000
        archive.keep(Answer(operation_id, ApiVersion.V3, raw, b'{"result":1}\n{"result":2}'), now=T0)
        kept = archive.answer(operation_id)
        assert kept is not None
        assert (kept.operation, kept.recognition, kept.api_version) == (raw, b'{"result":1}\n{"result":2}', "v3")

    def test_an_operation_submitted_elsewhere_is_kept_too(self, archive: Archive) -> None:
        archive.keep(answer("e03byhand"), now=T0)
        assert archive.answer("e03byhand") == answer("e03byhand")
        assert archive.submission("e03byhand") is None

    def test_the_failure_of_an_operation_is_kept_with_its_answer(self, archive: Archive, service: Service) -> None:
        operation_id = submitted(archive, service)
        archive.keep(answer(operation_id), failure(3), now=T0)
        outcome = archive.outcome(operation_id)
        assert outcome is not None
        assert (outcome.state, failure_of(archive, operation_id)) == (AttemptState.FAILED, failure(3))
        assert archive.answer(operation_id) == answer(operation_id)

    def test_of_two_who_keep_it_at_once_both_succeed_and_one_is_kept(self, archive: Archive, service: Service) -> None:
        operation_id = submitted(archive, service)
        first = answer(operation_id, ApiVersion.V3)
        second = Answer(operation_id, ApiVersion.V3, first.operation + b" ", b'{"other": {}}')
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: archive.keep((first, second)[n % 2], now=T0), range(8)))
        kept = archive.answer(operation_id)
        assert kept is not None
        assert kept.operation in (first.operation, second.operation)

    def test_an_answer_of_v3_without_its_recognition_is_not_an_answer(self, archive: Archive) -> None:
        with pytest.raises(ValueError, match="without its recognition"):
            archive.keep(Answer("f8d1", ApiVersion.V3, b"{}"), now=T0)

    def test_operations_are_found_by_the_beginning_of_their_id(self, archive: Archive, service: Service) -> None:
        ids = {submitted(archive, service, name) for name in "123"}
        assert set(archive.operations()) == ids
        assert list(archive.operations("nope")) == []

    def test_no_transcript_reaches_the_log(
        self, archive: Archive, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        operation_id = submitted(archive, service)
        kept = Answer(operation_id, ApiVersion.V3, b'{"text": "secret words"}', b'{"text": "secret words"}')
        archive.keep(kept, now=T0)
        archive.answer(operation_id)
        assert "secret words" not in caplog.text + repr(kept) + repr(archive.outcome(operation_id))


class TestClaims:
    def test_a_client_that_finds_its_own_first_try_holds_the_claim(
        self, tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The first try of a write arrives, its answer does not; the client's second try finds it there.
        archive = Archive.at(tmp_path)
        archive.probe(T0)
        create = Folder.create

        def twice(self: Folder, name: str, data: bytes) -> bool:
            create(self, name, data)
            return create(self, name, data)

        monkeypatch.setattr(Folder, "create", twice)
        operation_id = submitted(archive, service)
        archive.keep(answer(operation_id), now=T0)
        [again] = submitter(archive, service).submit([recording()])
        assert again.operation_id == operation_id
        assert service.accepted.total() == 1
        assert service.clock.slept_s == []

    def test_an_operation_on_record_for_something_else_is_an_error(self, archive: Archive, service: Service) -> None:
        operation_id = submitted(archive, service, "1")
        service.operations.clear()
        service._ids = iter([1, 2, 3])
        with pytest.raises(ArchiveError, match="and not as attempt 1 of this recording"):
            submitted(archive, service, "2")
        submission = archive.submission(operation_id)
        assert submission is not None
        assert submission.audio_uri == "s3://calls/1.ogg"


def test_an_object_storage_path_with_a_connection_is_an_archive(
    s3: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_LAKE",
        json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": {"endpoint_url": s3}}),
    )
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    archive = Archive.at(ObjectStoragePath("s3://lake@lake/by-connection"))
    archive.probe(T0)
    operation_id = submitted(archive, service)
    archive.keep(answer(operation_id), now=T0)
    service.clock.time += timedelta(days=30)
    assert submitted(archive, service) == operation_id
    assert archive.url == "s3://lake@lake/by-connection"


class TestRefusals:
    def test_one_that_is_refused_again_keeps_its_time_so_that_its_rows_stay_under_their_day(
        self, archive: Archive, service: Service
    ) -> None:
        planned = archive.submission(submitted(archive, service))
        assert planned is not None
        for days, code in ((0, 3), (1, 5)):
            now = T0 + timedelta(days=days)
            operation_id = archive.refuse(replace(planned, submitted_at=now), failure(code), now)
        refused, outcome = archive.submission(operation_id), archive.outcome(operation_id)
        assert refused is not None
        assert outcome is not None
        assert outcome.failure is not None
        assert (refused.submitted_at, outcome.failure.code) == (T0, 5)


def test_a_recording_that_was_refused_does_not_expire(archive: Archive) -> None:
    """Before, an outcome was recorded that could not be read again."""
    operation_id = archive.refuse(origin().submission(recording(), "f" * 64, T0), failure(3), T0)
    archive.folder.delete(f"operations/{operation_id}/outcome.json")
    assert not archive.expire(operation_id, T0 + timedelta(days=4))
    assert archive.outcome(operation_id) is None
