from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_speechkit.errors import (
    AnswerUnreadableError,
    ArchiveError,
    AuthenticationError,
    ConnectionSettingsError,
    NotFinishedError,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    ResultExpiredError,
    ServiceFaultError,
    SettingsError,
    StorageError,
    UnreachableError,
)
from airflow_speechkit.models import Answer
from airflow_speechkit.results.flatten import failed_row, flatten
from airflow_speechkit.results.many import write_many
from airflow_speechkit.results.schema import Status, Tables
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage import Folder
from tests.fixtures.manifests import write_rows
from tests.unit.results.answers import chunk, final, submission, v2, v3, word


def rows_of(manifest, table):
    return pa.concat_tables(
        [pq.read_table(f"{manifest.target}/{path}", partitioning=None) for path in manifest.tables[table].paths]
    )


IDS = [f"e03{number:03d}" for number in range(60)]


def load(operation_id):
    number = int(operation_id.removeprefix("e03"))
    if number % 10 == 7:
        return replace(v3(final("0", 0, (f"слово{number}", number, number + 1))), operation_id=operation_id), None
    words = [word(f"слово{number}", f"{second}s", f"{second}.5s") for second in range(number % 4 + 1)]
    return v2(chunk("1", *words), operation_id=operation_id, indent=number % 3 or None), submission(operation_id)


def test_many_answers_are_the_same_rows_in_the_order_of_their_ids_however_they_are_bounded(tmp_path):
    expected = Tables.concat([flatten(*load(operation_id), exact=True) for operation_id in IDS])
    for memory_bytes, side_by_side in ((256 << 20, 8), (20_000, 3), (1, 1)):
        manifest = write_many(load, IDS, Folder.at(tmp_path), memory_bytes=memory_bytes, side_by_side=side_by_side)
        assert manifest.operations == 60
        for schema, table in expected.items():
            assert not table.num_rows or rows_of(manifest, schema.name).equals(table), schema.name


def test_answers_that_cannot_be_had_or_read_are_reported_and_stop_nothing(tmp_path):
    def load_some(operation_id):
        if operation_id == "e03003":
            return Answer(operation_id, ApiVersion.V2, load(operation_id)[0].operation[:-9]), None
        if operation_id == "e03005":
            raise ResultExpiredError("The service has forgotten it", operation_id=operation_id)
        if operation_id == "e03006":
            raise FileNotFoundError(operation_id)
        if operation_id == "e03008":
            raise ArchiveError("It is damaged", retry_can_help=False)
        if operation_id == "e03009":
            return failed_row(submission(operation_id), Status.FAILED, 13, "internal")
        return load(operation_id)

    manifest = write_many(load_some, IDS[:12], Folder.at(tmp_path))
    assert {one.operation_id: one.reason for one in manifest.unread} == {
        "e03003": "The answer can't be read: it isn't JSON, or is cut off",
        "e03005": "The service has forgotten it",
        "e03006": "There is no such file",
        "e03008": "It is damaged",
    }
    assert manifest.to_json()["unread"]["count"] == 4
    rows = rows_of(manifest, "recognitions")
    assert rows.num_rows == manifest.operations == 8
    assert dict(zip(rows["operation_id"].to_pylist(), rows["status"].to_pylist(), strict=True))["e03009"] == "failed"


def placed(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def no_rights():
    error = ArchiveError("It may not be read", retry_can_help=False)
    error.__cause__ = PermissionError("AccessDenied")
    return error


@pytest.mark.parametrize(
    "error",
    [
        QuotaExceededError("slow down"),
        ServiceFaultError("out of order"),
        UnreachableError("nobody answers"),
        NotFinishedError("it is running"),
        AnswerUnreadableError("it broke off"),
        AuthenticationError("a wrong key"),
        PermissionDeniedError("a missing role"),
        ConnectionSettingsError("no such connection"),
        StorageError("the bucket is away"),
        no_rights(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("leave_out_unread", [True, False])
def test_what_another_try_or_a_person_can_bring_is_not_left_out(tmp_path, error, leave_out_unread):
    def load_some(operation_id):
        if operation_id == "e03005":
            raise error
        return load(operation_id)

    write_many(load, IDS[:12], Folder.at(tmp_path))
    before = placed(tmp_path)
    with pytest.raises(type(error), match=error.what):
        write_many(load_some, IDS[:12], Folder.at(tmp_path), leave_out_unread=leave_out_unread)
    assert placed(tmp_path) == before


@pytest.mark.parametrize(
    "error",
    [OperationNotFoundError("not here"), ArchiveError("is not what was written", retry_can_help=False)],
    ids=lambda error: type(error).__name__,
)
def test_where_nothing_can_be_read_the_files_that_are_there_stay(tmp_path, error):
    def load_none(operation_id):
        raise error

    write_many(load, IDS[:3], Folder.at(tmp_path))
    before = placed(tmp_path)
    with pytest.raises(AnswerUnreadableError, match=f"3 of 3.*nothing is written.*e03001: {error.what}") as raised:
        write_many(load_none, IDS[:3], Folder.at(tmp_path))
    assert not raised.value.retry_can_help
    assert placed(tmp_path) == before


def test_where_none_may_be_left_out_one_that_cannot_be_read_replaces_nothing(tmp_path):
    def load_some(operation_id):
        answer, submission = load(operation_id)
        return (replace(answer, operation=answer.operation[:-9]) if operation_id == "e03003" else answer), submission

    write_many(load, IDS[:6], Folder.at(tmp_path))
    before = placed(tmp_path)
    with pytest.raises(AnswerUnreadableError, match=r"1 of 6.*e03003: The answer can't be read") as raised:
        write_many(load_some, IDS[:6], Folder.at(tmp_path), leave_out_unread=False)
    assert raised.value.retry_can_help is False
    assert "others are written" not in str(raised.value)
    assert placed(tmp_path) == before


@pytest.mark.parametrize("memory_bytes", [1, 256 << 20])
def test_an_operation_that_is_given_twice_has_its_rows_once(tmp_path, memory_bytes):
    files = {"a.json": "e03001", "again/a.json": "e03001", "b.json": "e03002"}

    manifest = write_many(lambda path: load(files[path]), files, Folder.at(tmp_path), memory_bytes=memory_bytes)
    assert [(one.operation_id, one.reason) for one in manifest.unread] == [
        ("again/a.json", "It holds operation e03001, as a.json does")
    ]
    assert manifest.operations == 2
    assert rows_of(manifest, "words").equals(Tables.concat([flatten(*load(one)) for one in ("e03001", "e03002")]).words)


def test_manifests_are_named_after_their_operations_in_whatever_order_and_from_wherever(tmp_path):
    def named(load_one, asked_for):
        return write_many(load_one, asked_for, Folder.at(tmp_path)).name

    def from_files(path):
        if path == "/there/e03002.json":
            raise FileNotFoundError(path)
        return load({"x.json": "e03000", "/y/z.json.gz": "e03001"}.get(path, path))

    assert named(load, ["e03001"]) == named(from_files, ["/y/z.json.gz"]) == "e03001"
    both = named(load, ["e03000", "e03001"])
    assert both == named(load, ["e03001", "e03000"]) == named(from_files, ["x.json", "/y/z.json.gz"])
    assert both != named(load, ["e03000", "e03002"])
    # One that can't be read counts by its file's name: once it can be, the same files are replaced.
    three = named(load, ["e03000", "e03001", "e03002"])
    assert three == named(from_files, ["x.json", "/y/z.json.gz", "/there/e03002.json"])


def test_an_error_of_ours_stops_everything_and_leaves_nothing(tmp_path):
    def broken(operation_id):
        raise ZeroDivisionError(operation_id)

    with pytest.raises(ZeroDivisionError):
        write_many(broken, IDS, Folder.at(tmp_path / "lake"))
    assert not list(tmp_path.iterdir())


def test_answers_are_fetched_side_by_side(tmp_path):
    together = threading.Barrier(3)

    def load_together(operation_id):
        if int(operation_id.removeprefix("e03")) >= 9:
            together.wait(timeout=600)
        return load(operation_id)

    manifest = write_many(load_together, IDS[:21], Folder.at(tmp_path), side_by_side=3)
    assert manifest.operations == 21


def test_memory_is_bounded_by_the_setting_and_not_by_the_number_of_answers(tmp_path):
    answer = v2(*[chunk("1", *[word("слово", f"{n}.020s", f"{n}.480s") for n in range(40)]) for _ in range(40)])
    alive = most = 0
    lock = threading.Lock()

    class Counted(bytes):
        def __del__(self):
            nonlocal alive
            with lock:
                alive -= len(self)

    def load_counted(operation_id):
        nonlocal alive, most
        body = Counted(answer.operation)
        with lock:
            alive += len(body)
            most = max(most, alive)
        return Answer(operation_id, ApiVersion.V2, body), None

    most_at = {}
    for number in (20, 80):
        most = 0
        tracemalloc.start()
        ids = [f"e03{one:04d}" for one in range(number)]
        write_many(load_counted, ids, Folder.at(tmp_path), memory_bytes=8 << 20)
        most_at[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most <= 4 << 20
    assert most_at[80] < 8 << 20
    assert most_at[80] < most_at[20] * 1.5


def test_large_answers_after_small_ones_take_side_by_side_times_the_largest_on_top(tmp_path):
    large = v2(*[chunk("1", *[word("слово", f"{n}.020s", f"{n}.480s") for n in range(200)]) for _ in range(200)])
    small = v2(chunk("1", word("слово", "1s", "2s")))
    largest, allowed, side_by_side = len(large.operation), 16 << 20, 4
    assert largest > 3 << 20
    alive = most = 0
    lock = threading.Lock()

    class Counted(bytes):
        def __del__(self):
            nonlocal alive
            with lock:
                alive -= len(self)

    def load_counted(operation_id):
        nonlocal alive, most
        body = Counted(small.operation if int(operation_id) < 20 else large.operation)
        with lock:
            alive += len(body)
            most = max(most, alive)
        return Answer(operation_id, ApiVersion.V2, body), None

    tracemalloc.start()
    ids = [f"{number:03d}" for number in range(36)]
    write_many(load_counted, ids, Folder.at(tmp_path), memory_bytes=allowed, side_by_side=side_by_side)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= allowed // 4 + side_by_side * largest
    assert peak <= allowed + side_by_side * largest


def test_progress_is_reported(tmp_path):
    done = []
    write_many(load, IDS, Folder.at(tmp_path), memory_bytes=50_000, progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 60


@pytest.mark.parametrize("wrong", [{"memory_bytes": 0}, {"side_by_side": 0}, {"file_format": "orc"}])
def test_wrong_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(SettingsError):
        write_many(load, IDS, Folder.at(tmp_path), **wrong)


def test_mono_that_was_stored_as_stereo_is_counted(tmp_path):
    def both(text, other):
        return v2(chunk("1", word(text, "1s", "2s")), chunk("2", word(other, "1s", "2s")), operation_id=text)

    pieces = [flatten(both("да", "да")), flatten(both("да", "нет")), flatten(v2(chunk("1", word("да", "1s", "2s"))))]
    assert write_rows(Folder.at(tmp_path), *pieces).identical_channels == 1
