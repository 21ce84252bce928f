"""The tables of a recording that was submitted in parts: one recognition, with the times of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.results.schema import RECOGNITIONS, Status, Tables
from airflow_speechkit.results.values import as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.models import Part


def join_parts(parts: Sequence[tuple[Part, Tables]]) -> Tables:
    """Put the rows of a recording's parts together. The rows of parts that are missing or failed are left out.

    The recognition has finished if all its parts have. Otherwise it has the status and the error of the first part that
    has not.

    :param parts: those that have an operation, in order, one at least, each with its rows: one of them in
        `recognitions`
    """
    pieces: list[Tables] = []
    rows: list[tuple[Part, dict[str, Any]]] = []
    utterances = analyses = 0
    for part, tables in parts:
        [row] = tables.recognitions.to_pylist()
        pieces.append(
            replace(
                tables,
                utterances=_moved(tables.utterances, part, "utterance", utterances),
                words=_moved(tables.words, part, "utterance", utterances),
                analyses=_moved(tables.analyses, part, "analysis_index", analyses),
            )
        )
        utterances += row["utterances"]
        analyses += len(tables.analyses)
        rows.append((part, row))
    whole = pa.Table.from_pylist([_row_of_whole(rows)], schema=RECOGNITIONS.arrow)
    return replace(Tables.concat(pieces), recognitions=whole)


def _row_of_whole(parts: Sequence[tuple[Part, dict[str, Any]]]) -> dict[str, Any]:
    rows = [row for _, row in parts]
    last, last_row = parts[-1]
    described = ("operation_id", "duration_ms", "submitted_uri", "status")
    status, code, message = _ended({part.number: row for part, row in parts}, last.of)
    return {
        **rows[0],
        "recognition_id": last.recognition_id,
        "operation_id": None,
        "submitted_uri": None,
        "parts": as_json(
            [
                {"part": part.number, "start_ms": part.start_ms} | {name: row[name] for name in described}
                for part, row in parts
            ]
        ),
        "channels": max(row["channels"] or 0 for row in rows) or None,
        "duration_ms": last.start_ms + last_row["duration_ms"]
        if len(rows) == last.of and last_row["duration_ms"]
        else None,
        "utterances": sum(row["utterances"] for row in rows),
        "words": sum(row["words"] for row in rows),
        "billed_seconds": sum(row["billed_seconds"] or 0 for row in rows),
        "created_at": min((row["created_at"] for row in rows if row["created_at"]), default=None),
        "finished_at": max((row["finished_at"] for row in rows if row["finished_at"]), default=None),
        "status": status,
        "error_code": code,
        "error_message": message,
    }


def _ended(rows: dict[int, dict[str, Any]], of: int) -> tuple[str, int | None, str | None]:
    """Return status and error of the whole.

    :param rows: each part's row, by its number
    :param of: how many parts there are
    """
    for number in range(1, of + 1):
        row = rows.get(number)
        if row is None:
            return Status.LOST, None, f"Part {number} of {of}: no operation is on record"
        if row["status"] != Status.FINISHED:
            return row["status"], row["error_code"], f"Part {number} of {of}: {row['error_message'] or row['status']}"
    return Status.FINISHED, None, None


def _moved(table: pa.Table, part: Part, number: str, before: int) -> pa.Table:
    """Return the rows of a part as rows of the whole.

    :param number: the column that counts within a recognition
    :param before: how many the parts before have
    """
    columns = {
        "recognition_id": pa.repeat(pa.scalar(part.recognition_id, pa.string()), len(table)),
        number: pc.add(table[number], pa.scalar(before, pa.int32())),
        **{name: pc.add(table[name], part.start_ms) for name in ("start_ms", "end_ms")},
    }
    return pa.table([columns.get(name, table[name]) for name in table.column_names], schema=table.schema)
