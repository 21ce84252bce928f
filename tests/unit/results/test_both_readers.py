"""The reader of columns and the plain one, on generated answers; and both against the rules, written out naively."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pyarrow.compute as pc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer
from airflow_speechkit.results.chunks import Chunks
from airflow_speechkit.results.cutting import cut_many
from airflow_speechkit.results.flatten import flatten, read_many, tables
from airflow_speechkit.results.reading import V2_WORDING
from airflow_speechkit.settings import ApiVersion
from tests.unit.results.saying import V2_TYPE

TEXT = st.one_of(
    st.text(alphabet="абвг дежз", min_size=1, max_size=12),
    st.text(alphabet=st.sampled_from('aя🎄"\\/{}[]:,\n\x7f\u2028'), max_size=8),
    st.text(max_size=6),
)
SECONDS = st.one_of(
    st.integers(0, 20_000_000).map(lambda ms: Decimal(ms).scaleb(-3)),
    st.integers(0, 20).map(Decimal),
    st.decimals(0, 30, places=9, allow_nan=False, allow_infinity=False),
    st.integers(0, 40).map(lambda half: Decimal(half).scaleb(-4) * 5),
    st.integers(0, 99_999_999_999).map(Decimal),
)


def as_duration(seconds: Decimal) -> str:
    text = f"{seconds:f}"
    return f"{text.rstrip('0').rstrip('.')}s" if re.search(r"\.0+$", text) else f"{text}s"


TIME: st.SearchStrategy[Any] = st.one_of(*[SECONDS.map(as_duration)] * 9, st.just("0s"))
ODD_TIME: st.SearchStrategy[Any] = st.one_of(
    TIME,
    st.none(),
    st.fixed_dictionaries({}, optional={"seconds": st.integers(0, 99).map(str), "nanos": st.integers(0, 999_999_999)}),
    st.just("-1.500s"),
)


@st.composite
def words(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["usual"] * 6 + ["odd", "missing", "null", "order", "more"]))
    if kind == "missing":
        return ...
    if kind == "null":
        return None
    time = ODD_TIME if kind == "odd" else TIME
    made = [
        {"startTime": draw(time), "endTime": draw(time), "word": draw(TEXT), "confidence": 1}
        for _ in range(draw(st.integers(0, 5)))
    ]
    for word in made:
        if kind == "odd":
            for name in draw(st.sets(st.sampled_from(["startTime", "endTime", "word", "confidence"]))):
                del word[name]
        if kind == "order":
            word["startTime"] = word.pop("startTime")
        if kind == "more":
            word |= {"speakerTag": draw(TEXT), "score": draw(st.sampled_from([0.5, 1, None, True]))}
    return made


PLAIN = st.text(alphabet="абвг дежз,.!", max_size=12)
USUAL_WORD = st.fixed_dictionaries({"startTime": TIME, "endTime": TIME, "word": PLAIN, "confidence": st.just(1)})
USUAL_CHUNK = st.fixed_dictionaries(
    {
        "alternatives": st.tuples(
            st.fixed_dictionaries(
                {
                    "words": st.lists(USUAL_WORD, min_size=1, max_size=3),
                    "text": st.one_of(PLAIN, PLAIN, PLAIN, TEXT),
                    "confidence": st.sampled_from([1, 1, 1, 1, 0.5]),
                }
            )
        ).map(list),
        "channelTag": st.sampled_from(["1", "2", "1", "2", "1", "2", "3", "10", "x", 1]),
    }
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    chunks = draw(st.one_of(st.just([]), st.lists(USUAL_CHUNK, max_size=6)))
    for _ in range(draw(st.integers(0, 6 if not chunks else 1))):
        alternatives = []
        for _ in range(draw(st.sampled_from([1, 1, 1, 1, 0, 2]))):
            alternative: dict[str, Any] = {"words": draw(words()), "text": draw(TEXT), "confidence": 1}
            if alternative["words"] is ...:
                del alternative["words"]
            if draw(st.integers(0, 9)) == 0:
                del alternative["text"]
            alternatives.append(alternative)
        chunk: dict[str, Any] = {
            "alternatives": alternatives,
            "channelTag": draw(st.sampled_from(["1", "2", "2", 1, "x", "0"])),
        }
        if draw(st.integers(0, 9)) == 0:
            del chunk["channelTag"]
        if draw(st.integers(0, 9)) == 0:
            chunk["unknown"] = draw(st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
        chunks.insert(draw(st.integers(0, len(chunks))), chunk)
    response = {"@type": V2_TYPE, "chunks": chunks}
    said = {"done": True, "response": response, "id": "e03one", "createdAt": "2026-11-22T10:00:00Z"}
    indent = draw(st.sampled_from([None, None, 1, 4]))
    text = json.dumps(
        said,
        ensure_ascii=draw(st.sampled_from([False, False, True])),
        indent=indent,
        separators=(",", ":") if indent is None and draw(st.booleans()) else None,
    )
    twist = draw(st.sampled_from(["", "", "", "surrogate", "twice", "twice words", "fake", "escaped name"]))
    if twist == "surrogate":
        text = text.replace('"word":"', '"word":"\\udc00', 2).replace('"word": "', '"word": "\\udc00', 2)
    if twist == "twice":
        text = text.replace('"confidence"', '"word":"снова","confidence"', 1)
    if twist == "twice words":
        text = text.replace('"words":', '"words":[{"startTime":"0s","endTime":"1s","word":"мимо"}],"words":', 1)
    if twist == "fake":
        text = text.replace('"text":', '"note":"\\"words\\":[{\\"startTime\\":\\"0s\\"}]","text":', 1)
    if twist == "escaped name":
        text = text.replace('"word":', '"w\\u006frd":', 3)
    return text.encode("utf-8", "replace")


def naively(raw: bytes) -> tuple[list[tuple], list[tuple]]:
    """The rules of the tables, in plain Python: words and utterances as tuples."""
    utterances, spoken, place = [], [], 0
    anchor: tuple = (float("-inf"),)
    for number, chunk in enumerate(json.loads(raw)["response"]["chunks"]):
        tag = str(chunk.get("channelTag", 1))
        index = int(tag) - 1 if tag.isdigit() and tag != "0" else None
        channel = (index is None, index or 0, tag)
        rows = []
        for alternative_number, alternative in enumerate(chunk["alternatives"]):
            own = []
            for word_number, word in enumerate(alternative.get("words") or []):
                start, end = milliseconds(word.get("startTime")), milliseconds(word.get("endTime"))
                own.append((start, end))
                text = writable(word.get("word") or "")
                spoken.append([start, channel, place, number, tag, index, alternative_number, word_number, text, end])
                place += 1
            opens, closes = (own[0][0], own[-1][1]) if own else (None, None)
            rows.append(
                (tag, index, alternative_number, opens, closes, writable(alternative.get("text") or ""), len(own))
            )
        starts = [row[3] for row in rows if row[3] is not None]
        if rows:
            anchor = (starts[0], channel, number) if starts else anchor
            utterances.append((anchor, number, rows))
    utterances.sort(key=lambda one: one[:2])
    numbers = {number: rank for rank, (_, number, _) in enumerate(utterances)}
    anchor = (float("-inf"),)
    for word in spoken:
        anchor = anchor if word[0] is None else (word[0], word[1], word[2])
        word.append(anchor)
    spoken.sort(key=lambda word: (word[-1], word[2]))
    return (
        [(tag, index, numbers[n], a, w, text, start, end) for start, _, _, n, tag, index, a, w, text, end, _ in spoken],
        [(row[0], row[1], numbers[number], *row[2:]) for _, number, rows in utterances for row in rows],
    )


def milliseconds(time: Any) -> int | None:
    if time is None:
        return None
    if isinstance(time, dict):
        exact = Decimal(int(time.get("seconds", 0))) + Decimal(time.get("nanos", 0)) / 10**9
    else:
        exact = Decimal(time[:-1])
    return int((exact * 1000).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def writable(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(answers())
def test_both_readers_give_the_same_tables_and_they_are_right(raw):
    said = Answer("e03one", ApiVersion.V2, raw)
    columns, exact = flatten(said), flatten(said, exact=True)
    for (schema, fast), (_, slow) in zip(columns.items(), exact.items(), strict=True):
        assert fast.equals(slow, check_metadata=True), schema.name
        fast.validate(full=True)
        assert [one.name for one in schema.arrow if not one.nullable and fast[one.name].null_count] == []
    expected_words, expected_utterances = naively(raw)
    got = columns.words.drop_columns(["recognition_id", "operation_id"]).to_pylist()
    assert [tuple(row.values()) for row in got] == expected_words
    left_out = ["recognition_id", "operation_id", "text_raw", "language", "speaker"]
    got = columns.utterances.drop_columns(left_out).to_pylist()
    assert [tuple(row.values()) for row in got] == expected_utterances


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(answers(), max_size=5))
def test_many_read_at_once_are_the_same_as_each_alone(raws):
    said = [Answer(f"e03{number}", ApiVersion.V2, raw) for number, raw in enumerate(raws)]
    together = tables(read_many([(answer, None) for answer in said]))
    for answer in said:
        alone = flatten(answer, exact=True)
        for schema, table in together.items():
            own = table.filter(pc.equal(table["recognition_id"], answer.operation_id))
            assert own.equals(getattr(alone, schema.name)), schema.name


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(answers(), st.data())
def test_a_damaged_answer_is_read_alike_or_refused_alike(raw, data):
    place = data.draw(st.integers(0, len(raw) - 1))
    damaged = (
        raw[:place]
        + data.draw(st.sampled_from([b"", b'"', b"{", b"]", b"\\", b",", b"9", b" ", b"\x00"]))
        + raw[place + 1 :]
    )
    said = Answer("e03one", ApiVersion.V2, damaged)
    outcomes = []
    for exact in (False, True):
        try:
            outcomes.append([table for _, table in flatten(said, exact=exact).items()])
        except AnswerUnreadableError as error:
            outcomes.append(repr(error))
    assert outcomes[0] == outcomes[1]


def operation(*chunks: str) -> bytes:
    return f'{{"done":true,"response":{{"@type":"{V2_TYPE}","chunks":[{",".join(chunks)}]}},"id":"e03one"}}'.encode()


def test_a_string_that_nobody_looks_at_is_not_cut_out_with_a_word() -> None:
    word = '{"startTime":"0s","endTime":"1s","word":"да","tag":"%s"}'
    for tag in ("z\n", 'z" "z', 'z","word":"нет","tag":"z'):
        said = Answer(
            "e03one",
            ApiVersion.V2,
            operation(f'{{"alternatives":[{{"words":[{word % "z"},{word % tag},{word % "z"}],"text":""}}]}}'),
        )
        outcomes = []
        for exact in (False, True):
            try:
                outcomes.append(flatten(said, exact=exact).words.to_pylist())
            except AnswerUnreadableError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


def test_one_odd_chunk_leaves_those_beside_it_to_the_columns() -> None:
    word = '{"startTime":"0s","endTime":"1s","word":"да","confidence":1}'
    usual = f'{{"alternatives":[{{"words":[{word},{word}],"text":"Да да","confidence":1}}],"channelTag":"1"}}'
    odd = usual.replace("Да да", 'Да \\"да\\"')
    said = Answer("e03one", ApiVersion.V2, operation(usual, usual, odd, usual, usual, usual))
    cut = cut_many([said.operation], V2_WORDING)[0]
    assert [len(block) for block in cut.blocks if isinstance(block, Chunks)] == [2, 3]
    assert [block for block in cut.blocks if isinstance(block, range)] == [range(4, 6)]
    assert flatten(said).utterances.equals(flatten(said, exact=True).utterances)
    assert flatten(said).words.equals(flatten(said, exact=True).words)


def test_the_usual_answer_leaves_no_chunk_to_the_json_parser() -> None:
    words = [{"startTime": f"{n}s", "endTime": f"{n}.500s", "word": "да", "confidence": 1} for n in range(9)]
    chunks = [{"alternatives": [{"words": words, "text": "Да", "confidence": 1}], "channelTag": tag} for tag in "1221"]
    for indent in (None, 2):
        raw = json.dumps({"response": {"chunks": chunks}}, ensure_ascii=False, indent=indent).encode()
        (block,) = cut_many([raw], V2_WORDING)[0].blocks
        assert isinstance(block, Chunks)
        assert block.tag.tobytes() == b"1221"
        assert block.text.to_pylist() == ["Да"] * 4


def test_the_usual_answer_leaves_no_word_to_the_json_parser():
    text = {"words": [{"startTime": f"{n}s", "endTime": f"{n}.500s", "word": "да", "confidence": 1} for n in range(9)]}
    chunks = [{"alternatives": [text], "channelTag": "1"}, {"alternatives": [text], "channelTag": "2"}]
    for indent in (None, 2):
        raw = json.dumps({"response": {"chunks": chunks}}, ensure_ascii=False, indent=indent).encode()
        cut = cut_many([raw], V2_WORDING)[0]
        assert len(cut.words) == 18
        assert [len(block) for block in cut.blocks] == [9, 9]
        assert b"startTime" not in cut.rest
