"""Answers of both APIs, mutated: what is taken is what a plain reading finds there, by columns and word by word."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer
from airflow_speechkit.results.flatten import flatten, flatten_many
from airflow_speechkit.results.many import write_many
from airflow_speechkit.results.saved import read_saved
from airflow_speechkit.results.schema import Tables
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage import Folder
from tests.fuzz import plainly
from tests.fuzz.cases import Case, Reached, cases
from tests.fuzz.mutations import DEEP, NUMBERS, Verbatim, mutate, written
from tests.unit.results.answers import V2_TYPE

CASES = 900
TEXTS = ["да", "нет", "алло", "добрый", "e\u0301", "🎄", "ok"]


def v2_operation(chance: random.Random) -> dict[str, Any]:
    chunks = []
    for _ in range(chance.randrange(1, 6)):
        begin = chance.randrange(10_000)
        words = [
            {
                "startTime": f"{begin + number}.{chance.randrange(1000):03d}s",
                "endTime": chance.choice([f"{begin + number + 1}s", f"{begin + number}.999999999s"]),
                "word": chance.choice(TEXTS),
                "confidence": 1,
            }
            for number in range(chance.randrange(1, 6))
        ]
        alternatives = [{"words": words, "text": " ".join(word["word"] for word in words), "confidence": 1}]
        chunks.append({"alternatives": alternatives, "channelTag": chance.choice(["1", "2"])})
    error = {"error": {"code": chance.choice([3, "5", *NUMBERS]), "message": "нет"}} if chance.randrange(6) == 0 else {}
    return {
        **error,
        "done": True,
        "response": {"@type": V2_TYPE, "chunks": chunks},
        "id": "e03one",
        "createdAt": "2026-11-22T10:00:00Z",
        "createdBy": "ajeone",
        "modifiedAt": "2026-11-22T10:00:11.123456789Z",
    }


def v3_messages(chance: random.Random) -> list[dict[str, Any]]:
    messages = []
    for number in range(chance.randrange(1, 5)):
        channel = chance.choice(["0", "1"])
        words = [
            {"text": chance.choice(TEXTS), "startTimeMs": str(1000 * number + at), "endTimeMs": str(1000 * number + at)}
            for at in range(chance.randrange(1, 4))
        ]
        said = {"words": words, "text": "да", "languages": [{"languageCode": "ru-RU", "probability": 0.9}]}
        update = {"alternatives": [said], "channelTag": channel}
        messages.append({"audioCursors": {"finalIndex": str(number)}, "final": update, "channelTag": channel})
        if chance.randrange(2):
            refinement = {"finalIndex": str(number), "normalizedText": {"alternatives": [{"text": "Да."}]}}
            messages.append({"finalRefinement": refinement, "channelTag": channel})
        if chance.randrange(3) == 0:
            bounds = {"startTimeMs": "0", "endTimeMs": "900"}
            kind, named = chance.choice([("speakerAnalysis", "speech"), ("conversationAnalysis", "conversation")])
            messages.append({kind: {f"{named}Boundaries": bounds, "speakerTag": "0"}, "channelTag": channel})
    return [{"result": message} for message in messages]


def v2_case(chance: random.Random) -> Answer:
    operation = v2_operation(chance)
    if chance.randrange(40) == 0:
        # By its first word the reader of columns learns how words are written.
        [alternative] = operation["response"]["chunks"][0]["alternatives"]
        alternative["words"][0][chance.choice(["startTime", "word"])] = Verbatim("[" * DEEP + "]" * DEEP)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        mutate(operation, chance)
    return Answer("e03one", ApiVersion.V2, written(operation, chance))


def v3_case(chance: random.Random) -> Answer:
    messages = v3_messages(chance)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        mutate(messages, chance)
    operation = {"done": True, "id": "f8done", "description": "STT v3 async recognition"}
    between = chance.choice([b"\n", b"", b" \r\n"])
    return Answer(
        "f8done",
        ApiVersion.V3,
        json.dumps(operation).encode(),
        between.join(written(message, chance) for message in messages),
    )


def outcome(read: Callable[[], Tables]) -> Tables | str:
    error = None
    try:
        found = read()
    except AnswerUnreadableError as refusal:
        error = refusal
    if error is not None:
        assert not isinstance(error.__cause__ or error.__context__, json.JSONDecodeError), "it holds the answer"
        return str(error)
    for schema, table in found.items():
        table.validate(full=True)
        assert [one.name for one in schema.arrow if not one.nullable and table[one.name].null_count] == []
    return found


def plain_rows(tables: Tables) -> tuple[list[tuple], list[tuple]]:
    words = tables.words.drop_columns(["recognition_id", "operation_id"])
    utterances = tables.utterances.drop_columns(["recognition_id", "operation_id", "speaker"])
    return [tuple(row.values()) for row in words.to_pylist()], [tuple(row.values()) for row in utterances.to_pylist()]


@pytest.fixture
def no_limits() -> Iterator[None]:
    """Python's parser refuses deep nesting and long numbers, also in fields that nobody reads; Arrow's takes them."""
    depth, digits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    sys.setrecursionlimit(20_000)
    sys.set_int_max_str_digits(0)
    yield
    sys.setrecursionlimit(depth)
    sys.set_int_max_str_digits(digits)


@pytest.mark.usefixtures("no_limits")
@pytest.mark.parametrize(("api", "make"), [("v2", v2_case), ("v3", v3_case)])
def test_an_answer_is_read_exactly_or_refused(api: str, make: Callable[[random.Random], Answer]) -> None:
    reached, read = Reached(), 0
    for case in cases(f"answers/{api}", CASES):
        with case:
            said = make(case.chance)
            try:
                plain = plainly.read(said.operation, said.recognition)
            except plainly.REFUSED:
                plain = None
            columns, exact = outcome(partial(flatten, said)), outcome(partial(flatten, said, exact=True))
            assert columns == exact
            reached.count(plain is not None or "JSON" not in str(columns))
            if isinstance(columns, str):
                continue
            read += 1
            assert plain is not None, "what can't be read plainly was read"
            assert plain_rows(columns) == plainly.rows(plain)
            [row] = columns.recognitions.to_pylist()
            error = (row["error_code"], row["error_message"]) if row["status"] == "failed" else None
            assert error == plain.error
            assert (row["created_at"], row["finished_at"]) == (plain.created_at, plain.finished_at)
            found = [(row["channel"], row["kind"]) for row in columns.analyses.to_pylist()]
            assert found == [(channel, kind) for channel, kind, _ in plain.analyses]
    reached.check()
    assert read > CASES / 4


def test_one_answer_touches_no_other_of_a_batch(tmp_path: Path) -> None:
    good = Answer("e03good", ApiVersion.V2, json.dumps(v2_operation(random.Random(1))).encode())
    alone = flatten(good)
    assert alone.words.num_rows
    for case in cases("batches", 60):
        with case:
            batch = batch_of(case, good)
            target = Folder.at(tmp_path / case.name)
            manifest = write_many(lambda one, batch=batch: (batch[one], None), list(batch), target)
            unread = {one.operation_id for one in manifest.unread}
            assert good.operation_id not in unread
            left = [(answer, None) for one, answer in batch.items() if one not in unread]
            assert flatten_many(left).words.num_rows == manifest.tables["words"].rows
            assert manifest.tables["words"].rows >= alone.words.num_rows


def batch_of(case: Case, good: Answer) -> dict[str, Answer]:
    made = {}
    for number in range(6):
        answer = (v2_case if case.chance.randrange(3) else v3_case)(case.chance)
        made[f"e03{number}"] = Answer(f"e03{number}", answer.api_version, answer.operation, answer.recognition)
    return {**made, good.operation_id: good}


def test_a_saved_answer_is_recognised_or_refused() -> None:
    reached = Reached()
    for case in cases("saved", 600):
        with case:
            made = (v2_case if case.chance.randrange(2) else v3_case)(case.chance)
            raw = made.operation if made.recognition is None else made.recognition
            try:
                found = read_saved(raw, case.chance.choice(["call", "звонок", "a\udcff", ""]))
            except AnswerUnreadableError as error:
                reached.count("JSON" not in error.what)
                continue
            reached.count(True)
            found.operation_id.encode()
            outcome(partial(flatten, found))
    reached.check()
