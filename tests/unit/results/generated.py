"""Hypothesis' answers of both APIs: in the shape that the service documents, and in unusual ones."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from airflow_speechkit.models import Answer
from airflow_speechkit.settings import ApiVersion
from tests.unit.results.answers import V2_TYPE, message, v3

TEXT = st.one_of(
    st.text(alphabet="абвг дежз,.!", max_size=12),
    st.text(alphabet=st.sampled_from('aя🎄"\\/{}[]:,\n\x7f\u2028\0'), max_size=8),
    st.sampled_from(["} {", '{"result":{"final":{}}}', "summarization", "speaker_analysis", "channel_tag", "words"]),
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


DURATION = SECONDS.map(as_duration)
MILLISECONDS = st.integers(0, 20_000_000).map(str)
ODD_DURATION: st.SearchStrategy[Any] = st.one_of(
    DURATION,
    st.none(),
    st.fixed_dictionaries({}, optional={"seconds": st.integers(0, 99).map(str), "nanos": st.integers(0, 999_999_999)}),
    st.just("-1.500s"),
)
ODD_MILLISECONDS: st.SearchStrategy[Any] = st.one_of(MILLISECONDS, st.integers(0, 9000), st.none(), st.just("-5"))

V2_WORD = st.fixed_dictionaries({"startTime": DURATION, "endTime": DURATION, "word": TEXT, "confidence": st.just(1)})
V3_WORD = st.fixed_dictionaries({"text": TEXT, "startTimeMs": MILLISECONDS, "endTimeMs": MILLISECONDS})
LANGUAGE = st.fixed_dictionaries({"languageCode": st.sampled_from(["ru-RU", "en-EN"]), "probability": st.floats(0, 1)})


def alternatives(word: st.SearchStrategy[Any], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """One alternative, as the service gives; seldom two, or one without its words."""
    known = {"text": TEXT, "confidence": st.just(1), **more}
    one = st.fixed_dictionaries({"words": st.lists(word, max_size=4), **known})
    bare = st.fixed_dictionaries(known)
    return st.one_of(*[st.lists(one, min_size=1, max_size=1)] * 6, st.lists(st.one_of(one, bare), max_size=2))


V2_CHUNK = st.fixed_dictionaries(
    {"alternatives": alternatives(V2_WORD), "channelTag": st.sampled_from(["1", "2", "1", "2", "3", "10", "x", "0"])}
)


@st.composite
def v2_documented(draw: st.DrawFn) -> Answer:
    return written_v2(draw, draw(st.lists(V2_CHUNK, max_size=6)))


@st.composite
def v2_unusual(draw: st.DrawFn) -> Answer:
    chunks = draw(st.lists(V2_CHUNK, min_size=1, max_size=5))
    for _ in range(draw(st.integers(1, 3))):
        twist(draw, chunks, ODD_DURATION)
    return written_v2(draw, chunks, twisted=True)


def written_v2(draw: st.DrawFn, chunks: list[Any], *, twisted: bool = False) -> Answer:
    response = {"@type": V2_TYPE, **({"chunks": chunks} if chunks or draw(st.booleans()) else {})}
    operation = {"done": True, "response": response, "id": "e03one", "createdAt": "2026-11-22T10:00:00Z"}
    text = in_json(draw, operation)
    return Answer("e03one", ApiVersion.V2, (damaged(draw, text) if twisted else text).encode("utf-8", "replace"))


@st.composite
def v3_messages(draw: st.DrawFn) -> list[Any]:
    """A stream as it is documented: finals with and without their refinement, and what stands between them."""
    messages = []
    for index in range(draw(st.integers(0, 5))):
        channel = draw(st.sampled_from(["0", "1", "0", "1", "12", "x"]))
        spoken = alternatives(V3_WORD, languages=st.lists(LANGUAGE, max_size=2), startTimeMs=MILLISECONDS)
        own = [message(channel, index, {"final": {"alternatives": draw(spoken), "channelTag": channel}})]
        if draw(st.booleans()):
            update = {"alternatives": draw(spoken), "channelTag": channel}
            own.append(message(channel, 0, {"finalRefinement": {"finalIndex": str(index), "normalizedText": update}}))
        other = draw(
            st.sampled_from(
                [
                    {"eouUpdate": {"timeMs": "1400"}},
                    {"partial": {"alternatives": [{"words": [], "text": "да"}], "channelTag": channel}},
                    {"statusCode": {"codeType": "WORKING", "message": ""}},
                    {"classifierUpdate": {"windowType": "LAST_UTTERANCE", "startTimeMs": "5", "classifierResult": {}}},
                    {"speakerAnalysis": {"speakerTag": "1", "speechBoundaries": {"endTimeMs": "900"}}},
                    {"conversationAnalysis": {"conversationBoundaries": {"startTimeMs": "0"}}},
                    {"summarization": {"results": [{"response": "Да"}]}},
                ]
            )
        )
        own.insert(draw(st.integers(0, len(own))), message(channel, 0, other))
        messages += draw(st.permutations(own)) if draw(st.integers(0, 3)) == 0 else own
    return messages


@st.composite
def v3_documented(draw: st.DrawFn) -> Answer:
    return written_v3(draw, draw(v3_messages().filter(bool)))


@st.composite
def v3_unusual(draw: st.DrawFn) -> Answer:
    messages = draw(v3_messages())
    if messages and draw(st.booleans()):
        messages.append({"error": draw(st.sampled_from([{"code": 13, "message": "internal"}, "boom", {}, None]))})
    for _ in range(draw(st.integers(1, 3)) if messages else 0):
        twist(draw, messages, ODD_MILLISECONDS)
    if draw(st.integers(0, 3)) == 0:
        messages = [one.get("result", one) for one in messages]
    return written_v3(draw, messages, twisted=True)


def written_v3(draw: st.DrawFn, messages: list[Any], *, twisted: bool = False) -> Answer:
    indent = draw(st.sampled_from([None, None, 3]))
    texts = [in_json(draw, one, indent) for one in messages]
    stream = draw(st.sampled_from(["\n", "\n", "", "\r\n\r\n", " "])).join(texts)
    recognition = (damaged(draw, stream) if twisted else stream).encode("utf-8", "replace")
    return Answer("f8done", ApiVersion.V3, v3().operation, recognition)


def in_json(draw: st.DrawFn, value: Any, indent: int | None = None) -> str:
    ascii_only = draw(st.sampled_from([False, False, True]))
    compact = indent is None and draw(st.booleans())
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=(",", ":") if compact else None)


def twist(draw: st.DrawFn, value: Any, time: st.SearchStrategy[Any]) -> None:
    """Write one thing in another way that clients or later versions of the service may write it in."""
    objects = list(objects_in(value))
    chosen = draw(st.sampled_from(objects))
    name = draw(st.sampled_from(sorted(chosen) or [""]))
    how = draw(st.sampled_from(["snake", "missing", "null", "more", "time", "number"]))
    times = [key for key in chosen if "Time" in key]
    if how == "snake" and name:
        chosen[re.sub("([A-Z])", r"_\1", name).lower()] = chosen.pop(name)
    elif how == "missing" and name:
        del chosen[name]
    elif how == "null" and name:
        chosen[name] = None
    elif how == "time" and times:
        chosen[draw(st.sampled_from(times))] = draw(time)
    elif how == "number" and str(chosen.get(name, "")).isdigit():
        chosen[name] = int(chosen[name])
    else:
        chosen["more"] = draw(st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))


def objects_in(value: Any) -> Any:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects_in(inner)


def damaged(draw: st.DrawFn, text: str) -> str:
    how = draw(st.sampled_from(["", "", "surrogate", "twice", "escaped name", "byte"]))
    if how == "surrogate":
        return re.sub(r'("(?:word|text)": ?")', lambda match: match[1] + "\\udc00", text, count=2)
    if how == "twice":
        return text.replace('"confidence"', '"text":"снова","confidence"', 1)
    if how == "escaped name":
        return text.replace('"words"', '"w\\u006frds"', 2)
    if how == "byte" and text:
        at = draw(st.integers(0, len(text) - 1))
        return (
            text[:at] + draw(st.sampled_from(["", '"', "{", "]", "\\", ",", "9", " ", "\0", "\ud800"])) + text[at + 1 :]
        )
    return text
