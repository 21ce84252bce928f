"""The parts of a recording that is longer than the service takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_speechkit.models import Part
from airflow_speechkit.recordings.probing import replaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.models import Recording


def in_parts(recording: Recording, copies: Sequence[tuple[int, Recording]]) -> Recording:
    """Return a recording with its parts. Of one that is a part itself, return what is known about that part now.

    :param recording: the whole, or a part that an earlier visit of the task has left
    :param copies: of each part its start in milliseconds, and the recording with the copy of the part
    :raises RecordingError: the part isn't among them
    """
    whole = recording.variant if recording.part is None else recording.part.whole_variant
    parts, starts_ms = [], tuple(start_ms for start_ms, _ in copies)
    for number, (_, copied) in enumerate(copies, 1):
        part = Part(number=number, starts_ms=starts_ms, whole_variant=whole)
        parts.append(replace(copied, part=part, variant=part.variant))
    if recording.part is None:
        return replace(recording, parts=tuple(parts))
    for one in parts:
        if one.variant == recording.part.variant:
            return replace(one, part=recording.part)
    raise replaced("after it was cut into parts", recording.audio_uri)


def as_before(before: Recording, now: Recording) -> Recording:
    """Return a recording that was looked up again as the part that it was before, if it was one.

    :param before: as an earlier visit of the task has left it
    :param now: as it was found now
    """
    if before.part is None or now.error is not None:
        return now
    if (now.version, now.other) != (before.version, before.other):
        return replace(now, error=replaced("after it was cut into parts", before.audio_uri))
    return replace(now, part=before.part, variant=before.part.variant)


def starts_of(recording: Recording) -> tuple[int, ...]:
    """Return where a recording was cut before, in milliseconds; nothing if it was not.

    :param recording: the whole, or a part
    """
    return recording.starts_ms if recording.part is None else recording.part.starts_ms
