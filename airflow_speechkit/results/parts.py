"""The tables of a recording that was submitted in parts: one recognition, with the times of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.results.schema import RECOGNITIONS, Status, Tables
from airflow_speechkit.results.values import as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.models import Part


@dataclass(frozen=True)
class PartTables:
    """What became of one part.

    :param part: which
    :param tables: its rows, one of them in `recognitions`
    """

    part: Part
    tables: Tables


def join_parts(parts: Sequence[PartTables]) -> Tables:
    """Put the rows of a recording's parts together. The rows of parts that are missing or failed are left out.

    The recognition has finished if all its parts have. Otherwise it has the status and the error of the first part that
    has not.

    :param parts: those that have an operation, in order, one at least
    """
    utterances: list[pa.Table] = []
    words: list[pa.Table] = []
    analyses: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    recognition_id, before = parts[0].part.recognition_id, 0
    for one in parts:
        tables, start_ms = one.tables, one.part.start_ms
        [row] = tables.recognitions.to_pylist()
        for piece, found in ((tables.utterances, utterances), (tables.words, words)):
            found.append(_moved(piece, recognition_id, start_ms, "utterance", before))
        counted = sum(len(piece) for piece in analyses)
        analyses.append(_moved(tables.analyses, recognition_id, start_ms, "analysis_index", counted))
        before += row["utterances"]
        rows.append(row)
    return Tables(
        recognitions=pa.Table.from_pylist([_row(recognition_id, parts, rows)], schema=RECOGNITIONS.arrow),
        utterances=pa.concat_tables(utterances),
        words=pa.concat_tables(words),
        analyses=pa.concat_tables(analyses),
    )


def _row(recognition_id: str, parts: Sequence[PartTables], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    of = parts[0].part.of
    status, code, message = _ended(parts, rows)
    ends_ms = [one.part.start_ms + (row["duration_ms"] or 0) for one, row in zip(parts, rows, strict=True)]
    described = [
        {
            "part": one.part.number,
            "operation_id": row["operation_id"],
            "start_ms": one.part.start_ms,
            "duration_ms": row["duration_ms"],
            "submitted_uri": row["submitted_uri"],
            "status": row["status"],
        }
        for one, row in zip(parts, rows, strict=True)
    ]
    return {
        **rows[0],
        "recognition_id": recognition_id,
        "operation_id": None,
        "submitted_uri": None,
        "parts": as_json(described),
        "channels": max((row["channels"] or 0 for row in rows), default=0) or None,
        "duration_ms": ends_ms[-1] if len(rows) == of and rows[-1]["duration_ms"] else None,
        "utterances": sum(row["utterances"] for row in rows),
        "words": sum(row["words"] for row in rows),
        "billed_seconds": sum(row["billed_seconds"] or 0 for row in rows),
        "created_at": min((row["created_at"] for row in rows if row["created_at"]), default=None),
        "finished_at": max((row["finished_at"] for row in rows if row["finished_at"]), default=None),
        "status": status,
        "error_code": code,
        "error_message": message,
    }


def _ended(parts: Sequence[PartTables], rows: Sequence[dict[str, Any]]) -> tuple[str, int | None, str | None]:
    of = parts[0].part.of
    row_of = {one.part.number: row for one, row in zip(parts, rows, strict=True)}
    for number in range(1, of + 1):
        row = row_of.get(number)
        if row is None:
            return Status.LOST, None, f"Part {number} of {of}: no operation is on record"
        if row["status"] != Status.FINISHED:
            return row["status"], row["error_code"], f"Part {number} of {of}: {row['error_message'] or row['status']}"
    return Status.FINISHED, None, None


def _moved(table: pa.Table, recognition_id: str, start_ms: int, number: str, before: int) -> pa.Table:
    """Return the rows of a part as rows of the whole.

    :param number: the column that counts within a recognition
    :param before: how many the parts before have
    """
    for name, column in (
        ("recognition_id", pa.repeat(pa.scalar(recognition_id, pa.string()), len(table))),
        (number, pc.add(table[number], pa.scalar(before, pa.int32()))),
        *((name, pc.add(table[name], start_ms)) for name in ("start_ms", "end_ms")),
    ):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column)
    return table
