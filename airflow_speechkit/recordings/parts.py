"""What a recording turns out to be, and its parts if it is longer than the service takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_speechkit.models import Part
from airflow_speechkit.recordings.audio.facts import settle
from airflow_speechkit.recordings.bucket import replaced
from airflow_speechkit.recordings.cost import billed_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.models import Recording
    from airflow_speechkit.recordings.audio.facts import AudioFacts


def filled_in(recording: Recording, facts: AudioFacts) -> Recording:
    """Return a recording with what is known about it now.

    :param recording: with what the user asks for
    :param facts: what it is
    :raises RecordingError: the two contradict, or the service doesn't take it
    """
    return replace(
        recording,
        settings=settle(recording.settings, facts),
        duration_ms=facts.duration_ms,
        channels=facts.channels,
        billed_seconds=None if facts.duration_ms is None else billed_seconds(facts.duration_ms, facts.channels),
        side_ms=facts.side_ms,
    )


def in_parts(recording: Recording, copies: Sequence[tuple[int, Recording]]) -> Recording:
    """Return a recording with its parts. Of one that is a part itself, return what is known about that part now.

    :param recording: the whole, or a part that an earlier visit of the task has left
    :param copies: of each part its start in milliseconds, and the recording with the copy of the part
    """
    whole = recording.variant if recording.part is None else recording.part.whole_variant
    parts, starts_ms = [], tuple(start_ms for start_ms, _ in copies)
    for number, (_, copied) in enumerate(copies, 1):
        part = Part(number=number, starts_ms=starts_ms, whole_variant=whole)
        parts.append(replace(copied, part=part, variant=part.variant))
    if recording.part is None:
        return replace(recording, parts=tuple(parts))
    # It was cut at the same places.
    return replace(parts[recording.part.number - 1], part=recording.part)


def as_before(before: Recording, now: Recording) -> Recording:
    """Return a recording that was looked up again as the part that it was before, if it was one.

    :param before: as an earlier visit of the task has left it
    :param now: as it was found now
    """
    if before.part is None or now.error is not None:
        return now
    if (now.version, now.other) != (before.version, before.other):
        return replace(now, error=replaced(before.audio_uri))
    return replace(now, part=before.part, variant=before.part.variant)


def starts_of(recording: Recording) -> tuple[int, ...]:
    """Return where a recording was cut before, in milliseconds; nothing if it was not.

    :param recording: the whole, or a part
    """
    return recording.starts_ms if recording.part is None else recording.part.starts_ms
