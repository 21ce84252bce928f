from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer, FilterReason
from airflow_speechkit.results.flatten import failed_row, flatten
from airflow_speechkit.results.schema import TABLES, Status
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from tests.unit.results.answers import answer, chunk, operation, submission, v2, word


def rows(table, *columns):
    return list(zip(*(table[column].to_pylist() for column in columns), strict=True))


@pytest.fixture(params=[False, True], ids=["columns", "exact"])
def exact(request):
    return request.param


def test_every_table_has_its_schema_whatever_was_said(exact):
    for said in (v2(), v2(chunk("1", word("да", "0s", "0.500s")))):
        for schema, table in flatten(said, exact=exact).items():
            assert table.schema.equals(schema.arrow, check_metadata=True)
            table.validate(full=True)


def test_no_chunks_is_silence_a_result(exact):
    tables = flatten(v2(), exact=exact)
    assert rows(tables.recognitions, "status", "utterances", "words", "channels") == [("finished", 0, 0, None)]
    assert [table.num_rows for _, table in tables.items()] == [1, 0, 0, 0]


def test_rows_come_by_start_then_channel_then_place_and_number_from_zero(exact):
    said = v2(
        chunk("2", word("поздно", "5s", "5.500s"), word("конец", "6s", "6.250s")),
        chunk("2", word("второй", "1s", "1.400s")),
        chunk("1", word("первый", "1s", "1.300s"), word("канал", "5.200s", "5.900s")),
    )
    tables = flatten(said, exact=exact)
    assert rows(tables.utterances, "utterance", "channel", "channel_index", "start_ms", "end_ms", "text", "words") == [
        (0, "1", 0, 1000, 5900, "первый канал", 2),
        (1, "2", 1, 1000, 1400, "второй", 1),
        (2, "2", 1, 5000, 6250, "поздно конец", 2),
    ]
    assert rows(tables.words, "word", "channel", "utterance", "alternative", "word_index", "start_ms", "end_ms") == [
        ("первый", "1", 0, 0, 0, 1000, 1300),
        ("второй", "2", 1, 0, 0, 1000, 1400),
        ("поздно", "2", 2, 0, 0, 5000, 5500),
        ("канал", "1", 0, 0, 1, 5200, 5900),
        ("конец", "2", 2, 0, 1, 6000, 6250),
    ]


def test_an_utterance_without_words_keeps_its_place_behind_the_one_before_it(exact):
    silent = {"alternatives": [{"text": "номер", "confidence": 1}], "channelTag": "2"}
    said = v2(
        {"alternatives": [{"text": "начало"}], "channelTag": "1"},
        chunk("1", word("позже", "9s", "9.500s")),
        silent,
        chunk("1", word("раньше", "2s", "2.500s")),
    )
    tables = flatten(said, exact=exact)
    assert rows(tables.utterances, "text", "start_ms", "words") == [
        ("начало", None, 0),
        ("раньше", 2000, 1),
        ("позже", 9000, 1),
        ("номер", None, 0),
    ]


def test_several_alternatives_stay_together_and_count_once(exact):
    two = {
        "alternatives": [
            {"words": [word("раз", "3s", "3.500s"), word("два", "4s", "4.500s")], "text": "раз два"},
            {"words": [word("рас", "3s", "3.500s")], "text": "рас"},
        ],
        "channelTag": "1",
    }
    tables = flatten(v2(two, chunk("1", word("ноль", "1s", "1.500s"))), exact=exact)
    assert rows(tables.utterances, "utterance", "alternative", "text") == [
        (0, 0, "ноль"),
        (1, 0, "раз два"),
        (1, 1, "рас"),
    ]
    assert rows(tables.recognitions, "utterances", "words") == [(2, 3)]
    assert tables.words.num_rows == 4


def test_nine_decimals_are_rounded_half_to_even_from_the_exact_decimal(exact):
    said = v2(chunk("1", word("a", "0.879999999s", "1.000500000s"), word("b", "1.0015s", "1.001500001s")))
    assert rows(flatten(said, exact=exact).words, "start_ms", "end_ms") == [(880, 1000), (1002, 1002)]


def test_a_channel_that_is_a_number_left_out_or_no_number(exact):
    tables = flatten(
        v2(
            chunk(2, word("два", "1s", "2s")),
            {"alternatives": [{"words": [word("моно", "2s", "3s")], "text": "моно"}]},
            chunk("left", word("лево", "3s", "4s")),
        ),
        exact=exact,
    )
    assert rows(tables.words, "channel", "channel_index") == [("2", 1), ("1", 0), ("left", None)]


def test_times_as_objects_and_names_with_underscores_as_grpc_clients_save_them(exact):
    said = {
        "alternatives": [
            {
                "words": [
                    {"start_time": {"seconds": "1", "nanos": 500500000}, "end_time": {"seconds": 2}, "word": "да"},
                    {"end_time": {"nanos": 1}, "word": "нет"},
                ],
                "text": "да нет",
            }
        ],
        "channel_tag": "2",
    }
    tables = flatten(v2(said), exact=exact)
    assert rows(tables.words, "channel", "word", "start_ms", "end_ms") == [
        ("2", "да", 1500, 2000),
        ("2", "нет", None, 0),
    ]


def test_unknown_fields_are_left_alone(exact):
    said = operation(
        chunk("1", word("да", "0s", "1s", speakerTag="3"), word("нет", "1s", "2s", speakerTag="4"), mood="calm")
    )
    said["response"]["model"] = {"words": [word("мимо", "0s", "1s"), word("мимо", "0s", "1s")]}
    tables = flatten(answer(said), exact=exact)
    assert tables.words["word"].to_pylist() == ["да", "нет"]


def test_unicode_stays_as_it_is_and_half_a_surrogate_becomes_a_replacement(exact):
    raw = v2(chunk("1", word("ёлка🎄", "0s", "1s"), word("X", "1s", "2s"), text="Ёлка 🎄 «да»\n")).operation
    raw = raw.replace(b'"word":"X"', b'"word":"\\ud83d x"')
    tables = flatten(Answer("e03one", ApiVersion.V2, raw), exact=exact)
    assert tables.words["word"].to_pylist() == ["ёлка🎄", "\ufffd x"]
    assert tables.utterances["text"].to_pylist() == ["Ёлка 🎄 «да»\n"]


def test_what_was_submitted_and_what_came_back_meet_in_recognitions(exact):
    submitted = submission(dag_id="calls", run_id="manual__1")
    tables = flatten(v2(chunk("1", word("да", "0s", "1s"))), submitted, exact=exact)
    assert tables.recognitions.to_pylist() == [
        {
            "recognition_id": "e03one",
            "operation_id": "e03one",
            "audio_uri": "s3://calls/2026-11-22/1.ogg",
            "labels": '{"call_id":"17","агент":"Анна"}',
            "api_version": "v2",
            "model": "general",
            "language": "ru-RU",
            "channels": 2,
            "duration_ms": 61_500,
            "utterances": 1,
            "words": 1,
            "billed_seconds": 62,
            "created_at": datetime(2026, 11, 22, 10, tzinfo=UTC),
            "finished_at": datetime(2026, 11, 22, 10, 0, 11, tzinfo=UTC),
            "status": "finished",
            "error_code": None,
            "error_message": None,
            "settings": json.dumps(RecognitionSettings().to_json(), separators=(",", ":")),
            "dag_id": "calls",
            "run_id": "manual__1",
            "submitted_uri": None,
            "paired_uri": None,
            "parts": None,
            "filter_reason": None,
        }
    ]


@pytest.mark.parametrize("done", [True, False])
def test_a_failed_operation_is_a_row_with_its_error_even_before_done_and_beside_a_response(done, exact):
    said = operation(chunk("1", word("мимо", "0s", "1s")), error={"code": 13, "message": "internal"}, done=done)
    tables = flatten(answer(said), submission(), exact=exact)
    assert rows(tables.recognitions, "status", "error_code", "error_message", "utterances") == [
        ("failed", 13, "internal", 0)
    ]
    assert tables.words.num_rows == 0


def test_the_error_of_an_operation_is_a_row_without_secrets(exact):
    said = operation(error={"code": 7, "message": "no https://s/b/k.ogg?X-Amz-Signature=hunter2"})
    tables = flatten(answer(said), submission(), exact=exact)
    assert rows(tables.recognitions, "error_message") == [("no https://s/b/k.ogg",)]


def test_a_recording_that_was_refused_is_a_row_too():
    tables = failed_row(submission("refused-abc"), Status.REFUSED, 3, "no header")
    assert rows(tables.recognitions, "recognition_id", "operation_id", "status", "error_code", "error_message") == [
        ("refused-abc", None, "refused", 3, "no header")
    ]
    assert tables.recognitions["labels"].to_pylist() == ['{"call_id":"17","агент":"Анна"}']
    assert tables.recognitions["created_at"].to_pylist() == [submission().submitted_at]
    assert [table.schema for _, table in tables.items()] == [schema.arrow for schema in TABLES]


def test_a_recording_that_was_left_out_is_a_row_with_its_reason():
    left_out = submission("filtered-abc", filter_reason=FilterReason.SILENT, billed_seconds=0)
    tables = failed_row(left_out, Status.FILTERED)
    columns = ("recognition_id", "operation_id", "status", "filter_reason", "billed_seconds", "error_code")
    assert rows(tables.recognitions, *columns) == [("filtered-abc", None, "filtered", "silent", 0, None)]


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "cut off"),
        (v2(chunk("1", word("тайна", "0s", "1s"), word("тайна", "1s", "2s"))).operation[:-30], "cut off"),
        (b'"a string"', "no JSON object"),
        (b"\xff\xfe{", "UTF-8"),
        (b'{"done":false,"id":"e03one"}', "not done"),
        (b'{"done":true,"id":"e03one"}', "no `response`"),
        (b'{"done":true,"response":{"chunks":{}}}', "list of objects"),
        (b'{"done":true,"response":{"chunks":[{"alternatives":[{"words":[1]}]}]}}', "list of objects"),
        (b'{"done":true,"response":{"chunks":[{"alternatives":[{"words":[-Infinity]}]}]}}', "list of objects"),
        (b'{"done":true,"response":{"chunks":[{"alternatives":[{"text":1}]}]}}', "a text"),
        (b"[" * 100_000, "nested too deeply"),
        ('{"done":true,"response":{},"createdAt":"тайна"}'.encode(), "a time"),
        ('{"done":false,"error":{"code":"тайна"}}'.encode(), "not done"),
    ],
)
def test_what_is_no_answer_is_refused_without_telling_what_was_said(raw, what):
    with pytest.raises(AnswerUnreadableError, match=what) as caught:
        flatten(Answer("e03one", ApiVersion.V2, raw), submission())
    assert "тайна" not in str(caught.value)
    assert "e03one" in str(caught.value)
    assert "s3://calls/2026-11-22/1.ogg" in str(caught.value)


@pytest.mark.parametrize("time", ["1", "s", "1.s", "1,5s", "-", "1e3s", "９s", 1.5, True, [], "9999999999999s"])
def test_a_time_that_is_none_is_refused(time, exact):
    with pytest.raises(AnswerUnreadableError, match=r"a time|whole number"):
        flatten(v2(chunk("1", word("да", time, "1s"), word("нет", time, "1s"))), exact=exact)
