from __future__ import annotations

import threading
import tracemalloc

import pyarrow.parquet as pq
import pytest

from airflow_speechkit.errors import ResultExpiredError, SettingsError
from airflow_speechkit.folder import Folder
from airflow_speechkit.results.answer import Answer
from airflow_speechkit.results.flatten import failed_row, flatten
from airflow_speechkit.results.many import write_many
from airflow_speechkit.results.schema import Status, Tables
from airflow_speechkit.results.write import write_tables
from airflow_speechkit.settings import ApiVersion
from tests.unit.results.saying import chunk, final, submission, v2, v3, word

IDS = [f"e03{number:03d}" for number in range(60)]


def load(operation_id):
    number = int(operation_id.removeprefix("e03"))
    if number % 10 == 7:
        return v3(final("0", 0, (f"слово{number}", number, number + 1))), None
    words = [word(f"слово{number}", f"{second}s", f"{second}.5s") for second in range(number % 4 + 1)]
    return v2(chunk("1", *words), operation_id=operation_id, indent=number % 3 or None), submission(operation_id)


def test_many_answers_are_the_same_rows_in_the_order_of_their_ids_however_they_are_bounded(tmp_path):
    expected = Tables.concat([flatten(*load(operation_id), exact=True) for operation_id in IDS])
    for memory_bytes, side_by_side in ((256 << 20, 8), (20_000, 3), (1, 1)):
        manifest = write_many(
            load, IDS, Folder.at(tmp_path), name="all", memory_bytes=memory_bytes, side_by_side=side_by_side
        )
        assert manifest.operations == 60
        for schema, table in expected.items():
            assert pq.read_table(tmp_path / schema.name / "all.parquet").equals(table), schema.name


def test_answers_that_cannot_be_had_or_read_are_reported_and_stop_nothing(tmp_path):
    def load_some(operation_id):
        if operation_id == "e03003":
            return Answer(operation_id, ApiVersion.V2, load(operation_id)[0].operation[:-9]), None
        if operation_id == "e03005":
            raise ResultExpiredError("The service has forgotten it", operation_id=operation_id)
        if operation_id == "e03006":
            raise FileNotFoundError(operation_id)
        if operation_id == "e03009":
            return failed_row(submission(operation_id), Status.FAILED, 13, "internal")
        return load(operation_id)

    manifest = write_many(load_some, IDS[:12], Folder.at(tmp_path), name="some")
    assert {one.operation_id: one.reason for one in manifest.unread} == {
        "e03003": "The answer is cut off, or is not JSON",
        "e03005": "The service has forgotten it",
        "e03006": "It can't be fetched (FileNotFoundError)",
    }
    assert manifest.to_json()["unread"]["count"] == 3
    rows = pq.read_table(tmp_path / "recognitions" / "some.parquet")
    assert rows.num_rows == manifest.operations == 9
    assert dict(zip(rows["operation_id"].to_pylist(), rows["status"].to_pylist(), strict=True))["e03009"] == "failed"


def test_an_error_of_ours_stops_everything_and_leaves_nothing(tmp_path):
    def broken(operation_id):
        raise ZeroDivisionError(operation_id)

    with pytest.raises(ZeroDivisionError):
        write_many(broken, IDS, Folder.at(tmp_path / "lake"), name="all")
    assert not list(tmp_path.iterdir())


def test_answers_are_fetched_side_by_side(tmp_path):
    together = threading.Barrier(3)

    def load_together(operation_id):
        if int(operation_id.removeprefix("e03")) >= 9:
            together.wait(timeout=30)
        return load(operation_id)

    manifest = write_many(load_together, IDS[:21], Folder.at(tmp_path), name="all", side_by_side=3)
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
        write_many(load_counted, ids, Folder.at(tmp_path), name="all", memory_bytes=8 << 20)
        most_at[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most <= 4 << 20
    assert most_at[80] < 8 << 20
    assert most_at[80] < most_at[20] * 1.5


def test_progress_is_told(tmp_path):
    told = []
    write_many(load, IDS, Folder.at(tmp_path), name="all", memory_bytes=50_000, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 60


@pytest.mark.parametrize("wrong", [{"memory_bytes": 0}, {"side_by_side": 0}, {"file_format": "orc"}])
def test_wrong_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(SettingsError):
        write_many(load, IDS, Folder.at(tmp_path), name="all", **wrong)


def test_mono_that_was_stored_as_stereo_is_counted(tmp_path):
    def both(text, other):
        return v2(chunk("1", word(text, "1s", "2s")), chunk("2", word(other, "1s", "2s")), operation_id=text)

    pieces = [flatten(both("да", "да")), flatten(both("да", "нет")), flatten(v2(chunk("1", word("да", "1s", "2s"))))]
    assert write_tables(pieces, Folder.at(tmp_path), name="all").identical_channels == 1
