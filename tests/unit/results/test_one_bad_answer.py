"""One answer of a batch that can't be read is left out, whatever is wrong with it, and no other with it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from airflow_speechkit.models import Answer
from airflow_speechkit.results.flatten import read_many
from airflow_speechkit.results.many import answer_in, write_many
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage import Folder
from airflow_speechkit.storage.compressed import Packed
from tests.unit.results.answers import chunk, v2, v3, word

DEEP = 100_000
GOOD = v2(chunk("1", word("да", "0s", "1s"), word("нет", "1s", "2s")), operation_id="e03good")
WORDS = b'{"done":true,"response":{"chunks":[{"alternatives":[{"words":[{"startTime":'
V3 = v3().operation

BAD = {
    "nested in the first word": Answer("e03bad", ApiVersion.V2, WORDS + b"[" * DEEP + b"}, {"),
    "nested": Answer("e03bad", ApiVersion.V2, b"[" * DEEP),
    "v3: nested": Answer("e03bad", ApiVersion.V3, V3, b'{"result":{"final":{"alternatives":' + b"[" * DEEP),
    "too early": v2(operation_id="e03bad", createdAt="0001-01-01T00:00:00+14:00"),
    "too late": v2(operation_id="e03bad", modifiedAt="9999-12-31T23:59:59-14:00"),
    "an endless number": Answer("e03bad", ApiVersion.V2, b'{"done":' + b"9" * 5000 + b"}"),
    "an infinite probability": Answer(
        "e03bad",
        ApiVersion.V3,
        V3,
        b'{"result":{"final":{"alternatives":[{"languages":[{"probability":1%s}]}]}}}' % (b"0" * 400),
    ),
    "damaged while it was packed": Answer("e03bad", ApiVersion.V2, Packed(b"\x1f\x8b and no more")),
    "v3: an error that is none": Answer("e03bad", ApiVersion.V3, b'{"done":true,"error":[]}', b""),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_it_is_reported_and_the_others_are_written(tmp_path: Path, bad: Answer) -> None:
    answers = {"e03bad": bad, "e03good": GOOD}
    manifest = write_many(lambda one: (answers[one], None), list(answers), Folder.at(tmp_path))
    assert [one.operation_id for one in manifest.unread] == ["e03bad"]
    assert manifest.tables["words"].rows == 2
    read = read_many([(bad, None), (GOOD, None)])
    assert list(read.unreadable) == [0]
    assert read.tables.words.num_rows == 2


def test_an_error_with_a_code_that_does_not_fit_is_a_row_without_one(tmp_path: Path) -> None:
    raw = b'{"id":"e03bad","createdAt":"2026-11-22T10:00:00Z","error":{"code":%d,"message":"a\\ud83d"}}' % (2**40)
    answers = {"e03bad": Answer("e03bad", ApiVersion.V2, raw), "e03good": GOOD}
    manifest = write_many(lambda one: (answers[one], None), list(answers), Folder.at(tmp_path))
    assert not manifest.unread
    paths = manifest.tables["recognitions"].paths
    rows = [row for path in paths for row in pq.ParquetFile(tmp_path / path).read().to_pylist()]
    assert [(row["status"], row["error_code"], row["error_message"]) for row in rows] == [
        ("failed", None, "a\N{REPLACEMENT CHARACTER}"),
        ("finished", None, None),
    ]


@pytest.mark.parametrize("said", [b'{"done":true,"id":"a\\ud83d","response":{}}', b'{"done":true,"response":{}}'])
def test_an_id_that_cannot_be_written_is_not_taken_from_a_saved_answer(tmp_path: Path, said: bytes) -> None:
    # A name of a file whose bytes aren't UTF-8.
    path = "saved/call\udcff.json"
    manifest = write_many(lambda one: answer_in(one, said), [path], Folder.at(tmp_path))
    assert manifest.operations == 1
    assert (tmp_path / manifest.tables["recognitions"].paths[0]).is_file()
