from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from tests.unit.results.answers import chunk, final, message, refinement, submission, v2, v3, word
from tests.unit.results.test_v2 import rows


@pytest.fixture(params=[False, True], ids=["columns", "exact"])
def exact(request):
    return request.param


HELLO = (("добрый", 459, 900), ("день", 1000, 1400))
FIVE = (("пять", 2000, 2300), ("рублей", 2400, 2900))


@pytest.mark.parametrize(("indent", "between"), [(None, "\n"), (None, ""), (3, "\n"), (3, "\r\n\r\n")])
def test_finals_and_refinements_are_one_utterance_in_every_framing(indent, between, exact):
    said = v3(
        final("0", 0, *HELLO),
        refinement("0", 0, *HELLO, text="Добрый день."),
        message("0", 0, {"eouUpdate": {"timeMs": "1400"}}),
        final("0", 1, *FIVE, frame=1400),
        refinement("0", 1, *FIVE, text="5 рублей"),
        indent=indent,
        between=between,
    )
    tables = flatten(said, exact=exact)
    assert rows(tables.utterances, "utterance", "start_ms", "end_ms", "text", "text_raw", "words") == [
        (0, 459, 1400, "Добрый день.", "добрый день", 2),
        (1, 2000, 2900, "5 рублей", "пять рублей", 2),
    ]
    assert rows(tables.words, "word", "channel", "channel_index", "start_ms") == [
        ("добрый", "0", 0, 459),
        ("день", "0", 0, 1000),
        ("пять", "0", 0, 2000),
        ("рублей", "0", 0, 2400),
    ]


def test_channels_count_their_finals_on_their_own_and_a_refinement_can_be_missing(exact):
    said = v3(
        final("1", 0, ("второй", 700, 900)),
        final("0", 0, ("первый", 500, 900)),
        refinement("0", 0, text="Первый"),
    )
    tables = flatten(said, exact=exact)
    assert rows(tables.utterances, "channel", "channel_index", "text", "text_raw") == [
        ("0", 0, "Первый", "первый"),
        ("1", 1, "второй", "второй"),
    ]


def test_a_refinement_alone_still_is_what_was_said(exact):
    tables = flatten(v3(refinement("0", 4, *HELLO, text="Добрый день")), exact=exact)
    assert rows(tables.utterances, "text", "text_raw", "words") == [("Добрый день", None, 2)]


def test_a_refinement_before_its_final_is_the_same_utterance(exact):
    said = v3(
        refinement("0", 0, *HELLO, text="Добрый день"),
        final("0", 1, *FIVE),
        final("0", 0, *HELLO),
        refinement("0", 1, *FIVE, text="5 рублей"),
    )
    assert rows(flatten(said, exact=exact).utterances, "start_ms", "text", "text_raw", "words") == [
        (459, "Добрый день", "добрый день", 2),
        (2000, "5 рублей", "пять рублей", 2),
    ]


def test_two_finals_of_one_index_are_two_utterances(exact):
    said = v3(final("0", 0, *HELLO), refinement("0", 0, text="Добрый день"), final("0", 0, *FIVE))
    assert rows(flatten(said, exact=exact).utterances, "text") == [("Добрый день",), ("пять рублей",)]


def test_zeros_that_are_left_out_are_zeros(exact):
    raw = b'{"result":{"final":{"alternatives":[{"words":[{"text":"a","endTimeMs":"20"}],"text":"a"}]}}}'
    said = Answer("f8done", ApiVersion.V3, v3().operation, raw)
    assert rows(flatten(said, exact=exact).words, "channel", "start_ms", "end_ms") == [("0", 0, 20)]


def test_the_likeliest_language_and_the_speaker_have_their_columns(exact):
    said = final("1", 0, *HELLO)
    said["result"]["final"]["alternatives"][0]["languages"] = [
        {"languageCode": "en-EN", "probability": 0.1},
        {"languageCode": "ru-RU", "probability": 0.9},
    ]
    asked = submission("f8done", settings=RecognitionSettings(api_version=ApiVersion.V3, speaker_labeling=True))
    assert rows(flatten(v3(said), asked, exact=exact).utterances, "language", "speaker") == [("ru-RU", "1")]
    assert rows(flatten(v3(said), exact=exact).utterances, "speaker") == [(None,)]


def test_analyses_keep_the_services_own_message(exact):
    classified = {
        "windowType": "LAST_UTTERANCE",
        "startTimeMs": "459",
        "endTimeMs": "1400",
        "classifierResult": {"classifier": "formal_greeting", "highlights": [{"text": "добрый", "startTimeMs": "459"}]},
    }
    spoken = {"speakerTag": "0", "speechBoundaries": {"startTimeMs": "459", "endTimeMs": "2900"}, "totalSpeechMs": "9"}
    talked = {"conversationBoundaries": {"endTimeMs": "2900"}, "totalSimultaneousSpeechDurationSeconds": "0"}
    summed = {"results": [{"response": "Поздоровались."}], "contentUsage": {"inputTextTokens": "9"}}
    said = v3(
        message("0", 0, {"classifierUpdate": classified}),
        message("0", 0, {"speakerAnalysis": spoken}),
        message("", 0, {"conversationAnalysis": talked}),
        message("", 0, {"summarization": summed}),
    )
    table = flatten(said, exact=exact).analyses
    assert rows(table, "recognition_id", "analysis_index", "channel", "kind", "start_ms", "end_ms") == [
        ("f8done", 0, "0", "classifier", 459, 1400),
        ("f8done", 1, "0", "speaker_analysis", 459, 2900),
        ("f8done", 2, None, "conversation_analysis", 0, 2900),
        ("f8done", 3, None, "summarization", None, None),
    ]
    assert [json.loads(payload) for payload in table["payload"].to_pylist()] == [classified, spoken, talked, summed]
    assert "Поздоровались" in table["payload"][3].as_py()


def test_an_analysis_becomes_json_that_every_database_takes(exact):
    odd = {"classifier": "a\0b", "score": float("inf"), "label\0": ["\0", 0.5], "text": "a\\u0000"}
    said = v3(message("half", 0, {"classifierUpdate": {"classifierResult": odd}}))
    raw = (said.recognition or b"").replace(b"Infinity", b"1e400").replace(b"half", b"\\ud800")
    said = replace(said, recognition=raw)
    table = flatten(said, submission(labels={"call\0": "1\0"}), exact=exact)
    assert rows(table.analyses, "channel") == [("\N{REPLACEMENT CHARACTER}",)]
    assert json.loads(table.analyses["payload"][0].as_py())["classifierResult"] == {
        "classifier": "a\ufffdb",
        "score": None,
        "label\ufffd": ["\ufffd", 0.5],
        "text": "a\\u0000",
    }
    assert json.loads(table.recognitions["labels"][0].as_py()) == {"call\ufffd": "1\ufffd"}


def test_a_number_that_is_none_refuses_this_answer_only(exact):
    said = v3(final("0", 0, *HELLO))
    odd = {"alternatives": [{"text": "да", "languages": [{"languageCode": "ru-RU", "probability": 10**400}]}]}
    with pytest.raises(AnswerUnreadableError, match="another type"):
        flatten(v3(message("0", 0, {"final": odd})), exact=exact)
    assert flatten(said, exact=exact).utterances.num_rows == 1


def test_an_analysis_of_no_stretch_has_no_times_and_one_of_all_channels_no_channel(exact):
    said = v3(
        message("0", 0, {"speakerAnalysis": {"speakerTag": "0"}}),
        message("0", 0, {"conversationAnalysis": {}}),
        message("0", 0, {"summarization": {"results": []}}),
    )
    assert rows(flatten(said, exact=exact).analyses, "channel", "start_ms", "end_ms") == [
        ("0", None, None),
        (None, None, None),
        (None, None, None),
    ]


@pytest.mark.parametrize("frame", ["0", ""])
def test_the_statistics_of_a_speaker_have_the_speakers_channel(frame, exact):
    said = v3(
        message(frame, 0, {"speakerAnalysis": {"speakerTag": "1"}}),
        message(frame, 0, {"speakerAnalysis": {"speaker_tag": "2"}}),
        message("3", 0, {"speakerAnalysis": {}}),
        message("3", 0, {"classifierUpdate": {"speakerTag": "1"}}),
    )
    assert rows(flatten(said, exact=exact).analyses, "channel") == [("1",), ("2",), ("3",), ("3",)]


@pytest.mark.parametrize(("error", "message"), [("boom", "boom"), (["a", 1], '["a", 1]'), (0, "0"), (False, "false")])
def test_an_error_in_mid_stream_is_a_failure_whatever_its_type(error, message, exact):
    tables = flatten(v3(final("0", 0, *HELLO), {"error": error}), exact=exact)
    assert rows(tables.recognitions, "status", "error_code", "error_message") == [("failed", None, message)]
    assert tables.utterances.num_rows == 0


@pytest.mark.parametrize("error", [{"grpcCode": 13, "message": "internal"}, {"code": "13", "message": "internal"}])
def test_an_error_in_mid_stream_is_a_failure_whatever_came_before(error, exact):
    tables = flatten(v3(final("0", 0, *HELLO), {"error": error}), exact=exact)
    assert rows(tables.recognitions, "status", "error_code", "error_message") == [("failed", 13, "internal")]
    assert tables.utterances.num_rows == tables.words.num_rows == 0


def test_an_empty_stream_is_silence(exact):
    assert rows(flatten(v3(), exact=exact).recognitions, "status", "utterances") == [("finished", 0)]


def test_a_failed_operation_needs_no_stream():
    said = Answer("f8done", ApiVersion.V3, v3(error={"code": 3, "message": "no header"}).operation)
    assert rows(flatten(said).recognitions, "status", "error_code") == [("failed", 3)]


@pytest.mark.parametrize(
    ("recognition", "what"),
    [
        (None, "missing"),
        (v3(final("0", 0, *HELLO), final("0", 1, *FIVE)).recognition[:-5], "cut off"),
        (b"[1]", "no JSON object"),
        (b'{"result":[]}', "no JSON object"),
        (b'{"result":{"audioCursors":1,"final":{}}}', "an object"),
        (b'{"result":{"final":{"alternatives":[{"words":[{"text":"a","startTimeMs":1.5}]}]}}}', "whole number"),
    ],
)
def test_a_stream_that_is_none_is_refused(recognition, what):
    with pytest.raises(AnswerUnreadableError, match=what):
        flatten(Answer("f8done", ApiVersion.V3, v3().operation, recognition))


def test_both_apis_give_the_same_words_but_for_the_channels_name(exact):
    second = flatten(
        v2(
            chunk("2", word("да", "1.200s", "1.500s")),
            chunk("1", word("добрый", "0.459s", "0.900s"), word("день", "1s", "1.400s")),
            operation_id="f8done",
        ),
        exact=exact,
    ).words
    third = flatten(v3(final("0", 0, *HELLO), final("1", 0, ("да", 1200, 1500))), exact=exact).words
    assert second.drop_columns("channel").equals(third.drop_columns("channel"))
    assert second["channel"].to_pylist() == ["1", "1", "2"]
    assert third["channel"].to_pylist() == ["0", "0", "1"]
