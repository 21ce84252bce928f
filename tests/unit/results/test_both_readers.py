"""The columnar reader and the plain one give the same tables, those of an independent reading; each where it should."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer
from airflow_speechkit.results.flatten import flatten, read_many
from airflow_speechkit.results.schema import Tables
from airflow_speechkit.settings import ApiVersion
from tests.fuzz import plainly
from tests.unit.results.answers import answer, chunk, final, message, operation, refinement, v2, v3, word
from tests.unit.results.generated import v2_documented, v2_unusual, v3_documented, v3_unusual

ANY = st.one_of(v2_documented(), v2_unusual(), v3_documented(), v3_unusual())


def often(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def read_plainly(*answers: Answer) -> list[int]:
    """Return the numbers of the answers that the columnar reader left to the plain one."""
    batch = read_many([(one, None) for one in answers])
    assert not batch.unreadable
    return sorted(batch.read_plainly)


def outcome(said: Answer, *, exact: bool) -> Tables | str:
    try:
        tables = flatten(said, exact=exact)
    except AnswerUnreadableError as error:
        return str(error)
    for schema, table in tables.items():
        table.validate(full=True)
        assert [one.name for one in schema.arrow if not one.nullable and table[one.name].null_count] == []
    return tables


def rows(table: Any, *left_out: str) -> list[tuple]:
    return [
        tuple(row.values()) for row in table.drop_columns(["recognition_id", "operation_id", *left_out]).to_pylist()
    ]


def check(said: Answer) -> None:
    columns = outcome(said, exact=False)
    assert columns == outcome(said, exact=True)
    if isinstance(columns, str):
        return
    expected = plainly.read(said.operation, said.recognition)
    assert (rows(columns.words), rows(columns.utterances, "speaker")) == plainly.rows(expected)
    found = [(row["channel"], row["kind"], json.loads(row["payload"])) for row in columns.analyses.to_pylist()]
    assert found == [(channel, kind, storable(said)) for channel, kind, said in expected.analyses]


def storable(said: Any) -> Any:
    if isinstance(said, str):
        return plainly.writable(said).replace("\0", "\ufffd")
    if isinstance(said, dict):
        return {storable(name): storable(inner) for name, inner in said.items()}
    return [storable(inner) for inner in said] if isinstance(said, list) else said


@often(150)
@given(v2_documented())
def test_the_columnar_reader_reads_documented_answers_of_v2_as_the_plain_one_does(said: Answer) -> None:
    assert read_plainly(said) == []
    check(said)


@often(150)
@given(v3_documented())
def test_the_columnar_reader_reads_documented_answers_of_v3_as_the_plain_one_does(said: Answer) -> None:
    assert read_plainly(said) == []
    check(said)


@often(300)
@given(st.one_of(v2_unusual(), v3_unusual()))
def test_unusual_answers_are_read_alike_or_refused_alike(said: Answer) -> None:
    check(said)


@often(60)
@given(st.lists(ANY, max_size=5))
def test_answers_that_are_read_together_are_the_same_as_each_alone(answers: list[Answer]) -> None:
    named = [Answer(f"id{n}", one.api_version, one.operation, one.recognition) for n, one in enumerate(answers)]
    batch = read_many([(one, None) for one in named])
    for number, one in enumerate(named):
        alone = outcome(one, exact=True)
        assert isinstance(alone, str) == (number in batch.unreadable)
        for schema, table in batch.tables.items() if isinstance(alone, Tables) else ():
            own = table.filter(pc.equal(table["recognition_id"], one.operation_id))
            assert own.equals(getattr(alone, schema.name)), schema.name


WORDS = [word("when", "0.879999999s", "1.159999992s"), word("writing", "1.219999995s", "1.539999988s")]
HELLO = (("hello", 459, 900), ("there", 1000, 1400))
#: The shapes of the service's documentation, and of a genuine answer without speech.
DOCUMENTED = {
    "v2": v2(chunk("1", word("да", "0.020s", "1s")), chunk("2", word("нет", "1s", "1.500s")), indent=1),
    "v2: nine decimals": v2(chunk("1", *WORDS, text="when writing")),
    "v2: no words": v2({"alternatives": [{"text": "your number is 212-85-06", "confidence": 1}], "channelTag": "1"}),
    "v2: nothing was said": v2(indent=2),
    "v2: chunks are null": answer({**operation(), "response": {"chunks": None}}),
    "v2: several alternatives": v2(chunk("1", WORDS[0]), {"alternatives": [{"text": "a"}, {"text": "b"}]}),
    "v3": v3(
        final("0", 0, *HELLO),
        refinement("0", 0, *HELLO, text="Hello there."),
        message("0", 0, {"eouUpdate": {"timeMs": "1400"}}),
        indent=3,
    ),
    "v3: analyses": v3(
        final("0", 0, *HELLO),
        message("0", 0, {"classifierUpdate": {"windowType": "LAST_UTTERANCE", "startTimeMs": "459"}}),
        message("0", 0, {"speakerAnalysis": {"speakerTag": "0"}}),
        message("", 0, {"conversationAnalysis": {}}),
        message("", 0, {"summarization": {"results": []}}),
        between="",
    ),
}


@pytest.mark.parametrize("said", DOCUMENTED.values(), ids=DOCUMENTED.keys())
def test_documented_shapes_are_read_by_the_columnar_reader(said: Answer) -> None:
    assert read_plainly(said) == []
    check(said)


def test_an_unusual_answer_leaves_the_others_of_its_batch_to_the_columnar_reader() -> None:
    odd = v2(chunk(1, word("да", "0s", "1s")))
    failed = v2(error={"code": 13, "message": "internal"})
    assert read_plainly(*DOCUMENTED.values(), odd, failed) == [len(DOCUMENTED), len(DOCUMENTED) + 1]


def test_a_message_that_is_no_message_of_the_stream_is_no_analysis() -> None:
    inner = json.dumps(message("0", 0, {"summarization": {"results": []}}))
    for raw in (f'{{"result":{{"more":[\n{inner}\n{inner}\n]}}}}', f'{{"result":{{"more":[{{}}\n{inner}\n{{}}]}}}}'):
        said = Answer("f8done", ApiVersion.V3, v3().operation, raw.encode())
        assert isinstance(outcome(said, exact=False), str)
        assert outcome(said, exact=False) == outcome(said, exact=True)
    said = Answer("f8done", ApiVersion.V3, v3().operation, f'{{"result":{{"more":[{inner}]}}}}'.encode())
    assert flatten(said).analyses.num_rows == flatten(said, exact=True).analyses.num_rows == 0


def test_an_analysis_whose_name_is_escaped_is_one() -> None:
    said = v3(final("0", 0, *HELLO), message("0", 0, {"speakerAnalysis": {"speakerTag": "0"}}))
    escaped = (said.recognition or b"").replace(b"speakerAnalysis", rb"speaker\u0041nalysis")
    odd = Answer("f8odd", ApiVersion.V3, said.operation, escaped)
    check(odd)
    assert flatten(odd).analyses.num_rows == 1


@pytest.mark.parametrize("mark", ["airflow-speechkit-next", "airflow-speechkit-cut"])
@pytest.mark.parametrize("value", [0, 1, "null"])
def test_an_answer_with_the_readers_own_marks_is_read_as_any_other(mark: str, value: Any) -> None:
    raw = f'{{"{mark}":{value}}}\n'.encode()
    streams = [v3(final("0", 0, *HELLO), message("0", 0, {"summarization": {}})), v3(final("0", 0, *HELLO))]
    for said in streams:
        odd = Answer("f8odd", ApiVersion.V3, said.operation, (said.recognition or b"") + b"\n" + raw)
        check(odd)
        batch = read_many([(odd, None), (said, None)])
        assert batch.tables.words.num_rows == 4
        assert batch.tables.analyses.num_rows == 2 * flatten(said).analyses.num_rows


def test_bytes_that_are_not_utf_8_are_refused_wherever_they_stand() -> None:
    for said, place in ((DOCUMENTED["v2"], b'"createdBy":"'), (DOCUMENTED["v2"], b'"word": "')):
        raw = said.operation.replace(place, place + b"\xff", 1)
        assert raw != said.operation or place not in said.operation
        assert "UTF-8" in str(outcome(Answer("e03one", ApiVersion.V2, raw + b'\n"\xff"'), exact=False))


@pytest.mark.parametrize("raw", ["null", " null ", "\ufeffnull", "null{}", "{}null", "{} null\n{}"])
def test_a_null_in_place_of_a_message_does_not_crash_the_parser(raw: str) -> None:
    for said in (
        Answer("e03one", ApiVersion.V2, raw.encode()),
        Answer("f8done", ApiVersion.V3, v3().operation, raw.encode()),
    ):
        assert isinstance(outcome(said, exact=False), str)
