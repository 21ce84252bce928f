"""The columnar reader: ``pyarrow.json`` parses answers of the documented shape, many at once.

It reads nothing else: for whatever it refuses there is the plain reader, which gives the same tables. In fields that
nobody reads it accepts more than Python's parser: deep nesting, long numbers, ``Inf``.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.parsing import MalformedError, parse_columns, parse_object
from airflow_speechkit.results.plain import ANALYSES, read_analyses, snake
from airflow_speechkit.results.speech import CHUNK, MESSAGE, items, v2_speech, v3_speech
from airflow_speechkit.results.values import MEMORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from airflow_speechkit.results.speech import Speech

#: Stands between two answers, with the number of the second: an answer that is cut off can't run on into the next one
#: unseen.
_NEXT = "airflow-speechkit-next"

#: Stands for a message that was cut out, with its number.
_CUT = "airflow-speechkit-cut"

#: An object of which nothing but its presence matters.
_PRESENT = pa.struct([])

#: Between two messages; elsewhere only a text can have these brackets next to each other.
_BETWEEN = re.compile(rb"(?<=\})(\s*)(?=\{)")

#: With one of these a message is more than an analysis.
_SPOKEN = frozenset({"final", "finalRefinement", "final_refinement"})


def _guarded(kind: pa.DataType) -> pa.DataType:
    """Return a type that refuses the other name that proto3's JSON has for a field: `startTime` and `start_time`."""
    if pa.types.is_list(kind):
        return pa.list_(_guarded(kind.value_type))
    if not pa.types.is_struct(kind):
        return kind
    names = {one.name for one in kind}
    others = [(snake(name), pa.null()) for name in names if snake(name) not in names]
    return pa.struct([*((one.name, _guarded(one.type)) for one in kind), *others])


_TEXT = pa.string()
_V2 = pa.schema(
    {
        **dict.fromkeys(("createdAt", "modifiedAt"), _TEXT),
        "done": pa.bool_(),
        "error": _PRESENT,
        "response": pa.struct([("chunks", pa.list_(_guarded(CHUNK)))]),
        _NEXT: pa.int64(),
    }
)
_V3 = pa.schema(
    {
        "error": _PRESENT,
        "result": _guarded(pa.struct([*MESSAGE, *((name, _PRESENT) for name in ANALYSES)])),
        _CUT: pa.int64(),
        _NEXT: pa.int64(),
    }
)


@dataclass(frozen=True)
class Columns:
    """What some answers say.

    :param speech: what was said
    :param left_out: numbers of the answers that are for the plain reader
    :param moments: v2: of each answer when it was created and last modified, as text
    :param analyses: v3: of each answer its rows of the table `analyses`
    """

    speech: Speech
    left_out: frozenset[int]
    moments: Sequence[tuple[str | None, str | None]] = ()
    analyses: dict[int, list[dict[str, Any]]] = field(default_factory=dict)


def read_v2(raws: Sequence[bytes]) -> Columns:
    """Read finished operations of API v2. Failed ones are left out.

    :raises ValueError: one of them doesn't have the documented shape
    """
    rows = _parse(raws, _V2)
    # Every second row stands between two answers.
    if len(rows) != 2 * len(raws) - 1:
        raise MalformedError("something stands behind an operation")
    response = rows["response"]
    chunks, per_row = items(response.field("chunks"))
    finished = _all(rows["done"], rows["error"].is_null(), response.is_valid())[::2]
    if per_row[::2][~finished].any():
        raise MalformedError("an operation that is not finished has chunks")
    moments = zip(*(rows[name].to_pylist()[::2] for name in ("createdAt", "modifiedAt")), strict=True)
    return Columns(
        v2_speech(chunks, np.repeat(np.arange(len(raws)), per_row[::2])),
        frozenset(np.flatnonzero(~finished).tolist()),
        list(moments),
    )


def read_v3(raws: Sequence[bytes], speakers: Sequence[bool]) -> Columns:
    """Read what ``getRecognition`` answered for some operations. Those that ended in an error are left out.

    :param speakers: of each whether speaker labelling was asked for
    :raises ValueError: one of them doesn't have the documented shape
    """
    cut: list[dict[str, Any]] = []
    rows = _parse([_without_analyses(raw, cut) for raw in raws], _V3)
    nexts, cuts = (rows[name].is_valid().to_numpy(zero_copy_only=False) for name in (_NEXT, _CUT))
    result = rows["result"]
    if rows[_CUT].drop_null().to_pylist() != list(range(len(cut))):
        raise MalformedError("a message that was cut out is no message of the stream")
    if any(result.field(name).null_count < len(result) for name in ANALYSES):
        raise MalformedError("an analysis is not in a message of its own")
    answer = np.cumsum(nexts)
    is_message = _all(result.is_valid(), rows["error"].is_null())
    left_out = frozenset(answer[~(is_message | nexts | cuts)].tolist())
    analyses: dict[int, list[dict[str, Any]]] = {}
    for number, message in zip(answer[cuts].tolist(), cut, strict=True):
        analyses.setdefault(number, []).extend(read_analyses(message))
    if left_out:
        kept = is_message & ~np.isin(answer, list(left_out))
        result, answer = result.filter(pa.array(kept)), answer[kept]
    return Columns(v3_speech(result, answer, np.array(speakers, np.bool_)), left_out, analyses=analyses)


def _without_analyses(raw: bytes, cut: list[dict[str, Any]]) -> bytes:
    """Return the messages of v3 without those that hold an analysis, whose own JSON is kept as text.

    :param cut: gets the messages that are cut out
    """
    if not any(name.encode() in raw for name in ANALYSES):
        return raw
    pieces = _BETWEEN.split(raw)
    for place in range(0, len(pieces), 2):
        if any(name.encode() in pieces[place] for name in ANALYSES):
            # Only a part of a message is no JSON, and stays: a text in it has brackets.
            with suppress(MalformedError):
                stated = parse_object(pieces[place])
                result = stated.get("result")
                if len(stated) == 1 and isinstance(result, dict) and _SPOKEN.isdisjoint(result):
                    pieces[place] = b'{"%s":%d}' % (_CUT.encode(), len(cut))
                    cut.append(result)
    return b"".join(pieces)


def _parse(raws: Sequence[bytes], schema: pa.Schema) -> pa.RecordBatch:
    parts = [raws[0]]
    for number, raw in enumerate(raws[1:], 1):
        parts += [b'\n{"%s":%d}\n' % (_NEXT.encode(), number), raw]
    # A single answer is not copied.
    joined = b"".join(parts) if len(parts) > 1 else raws[0]
    offsets = pa.py_buffer(np.array([0, len(joined)], np.int64))
    # The parser doesn't notice what isn't UTF-8.
    pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(joined)).validate(full=True)
    rows = parse_columns(joined, schema, MEMORY)
    if rows[_NEXT].drop_null().to_pylist() != list(range(1, len(raws))):
        raise MalformedError("an answer is cut off")
    return rows


def _all(*conditions: Any) -> NDArray[np.bool_]:
    """Return where all conditions hold; null doesn't."""
    holds = [pc.fill_null(one, False).to_numpy(zero_copy_only=False) for one in conditions]
    everywhere: NDArray[np.bool_] = np.all(holds, axis=0)
    return everywhere
