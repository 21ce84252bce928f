"""The columnar reader: ``pyarrow.json`` parses answers of the documented shape, many at once.

It reads nothing else: for whatever it refuses there is the plain reader, which gives the same tables. In fields that
nobody reads it accepts more than Python's parser: deep nesting, long numbers, ``Inf``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.errors import read_status
from airflow_speechkit.parsing import MalformedError, decode, parse_columns, parse_each, parse_object
from airflow_speechkit.results.plain import ANALYSES, read_analyses, read_operation, snake, with_speakers
from airflow_speechkit.results.speech import CHUNK, MESSAGE, Reading, items, v2_speech, v3_speech
from airflow_speechkit.results.values import MEMORY
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from airflow_speechkit.results.speech import Submitted

#: Separates two answers, with the number of the second: an answer that is cut off can't run on into the next one
#: unseen.
_NEXT = "airflow-speechkit-next"

#: An object of which nothing but its presence matters.
_PRESENT = pa.struct([])

#: Between two messages; elsewhere only a text can have these brackets next to each other.
_BETWEEN = re.compile(rb"(?<=\})(\s*)(?=\{)")

_ANALYSES = tuple(name.encode() for name in ANALYSES)


def _guarded(kind: pa.DataType) -> pa.DataType:
    """Return a type that refuses the other name that proto3's JSON has for a field: `startTime` and `start_time`."""
    if pa.types.is_list(kind):
        return pa.list_(_guarded(kind.value_type))
    if not pa.types.is_struct(kind):
        return kind
    names = {one.name for one in kind}
    others = [(snake(name), pa.null()) for name in names if snake(name) not in names]
    return pa.struct([*((one.name, _guarded(one.type)) for one in kind), *others])


_V2 = pa.schema(
    {
        **dict.fromkeys(("createdAt", "modifiedAt"), pa.string()),
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
        _NEXT: pa.int64(),
    }
)


def read_columns(answers: Sequence[Submitted]) -> Reading:
    """Read answers of one API. Those that ended in an error are left out.

    :raises ValueError: one of them doesn't have the documented shape
    """
    return _read_v2(answers) if answers[0][0].api_version is ApiVersion.V2 else _read_v3(answers)


def _read_v2(answers: Sequence[Submitted]) -> Reading:
    rows = _parse([answer.operation for answer, _ in answers], _V2)
    # Every second row separates two answers.
    if len(rows) != 2 * len(answers) - 1:
        raise MalformedError("more text follows an operation")
    response = rows["response"]
    chunks, per_row = items(response.field("chunks"))
    finished = _all(rows["done"], rows["error"].is_null(), response.is_valid())[::2]
    if per_row[::2][~finished].any():
        raise MalformedError("an operation that is not finished has chunks")
    moments = zip(*(rows[name].to_pylist()[::2] for name in ("createdAt", "modifiedAt")), strict=True)
    speech = v2_speech(chunks, np.repeat(np.arange(len(answers)), per_row[::2]))
    return Reading(speech, list(moments), left_out=frozenset(np.flatnonzero(~finished).tolist()))


def _read_v3(answers: Sequence[Submitted]) -> Reading:
    operations = [read_operation(answer.operation) for answer, _ in answers]
    if not all(one.get("done") is True and read_status(one.get("error")) is None for one in operations):
        raise MalformedError("an operation failed, or is not done")
    streams = [one.recognition or b"" for one, _ in answers]
    rows = _parse(streams, _V3)
    result, analyses = rows["result"], {place: _analyses(raw) for place, raw in enumerate(streams)}
    if sum(result.field(name).is_valid().true_count for name in ANALYSES) != sum(map(len, analyses.values())):
        raise MalformedError("the name of an analysis is escaped, or written in two ways")
    nexts = rows[_NEXT].is_valid().to_numpy(zero_copy_only=False)
    answer = np.cumsum(nexts)
    is_message = _all(result.is_valid(), rows["error"].is_null())
    left_out = frozenset(answer[~(is_message | nexts)].tolist())
    if left_out:
        kept = is_message & ~np.isin(answer, list(left_out))
        result, answer = result.filter(pa.array(kept)), answer[kept]
    speech = v3_speech(result, answer, np.array([with_speakers(one) for _, one in answers]))
    moments = [(one.get("createdAt"), one.get("modifiedAt")) for one in operations]
    return Reading(speech, moments, analyses, left_out=left_out)


def _analyses(raw: bytes) -> list[dict[str, Any]]:
    """Return the rows of the table `analyses`. Only messages that name an analysis are parsed here.

    :raises MalformedError: a message isn't JSON, or an analysis in it is malformed
    """
    if not any(name in raw for name in _ANALYSES):
        return []
    messages: list[Any]
    try:
        messages = [parse_object(piece) for piece in _BETWEEN.split(raw) if any(name in piece for name in _ANALYSES)]
    except MalformedError:
        # A text has such brackets.
        messages = [message for message, _ in parse_each(decode(raw))]
    results = [message.get("result") for message in messages if isinstance(message, dict)]
    return [row for result in results if isinstance(result, dict) for row in read_analyses(result)]


def _parse(raws: Sequence[bytes], schema: pa.Schema) -> pa.RecordBatch:
    if not all(raw[-99:].rstrip().endswith(b"}") for raw in raws):
        raise MalformedError("an answer is cut off")
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
