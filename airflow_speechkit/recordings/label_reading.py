"""Reads the labels of recordings from where `LabelRules` say that they are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from airflow_speechkit.errors import RecordingError, RecordingNotFoundError, SpeechKitError
from airflow_speechkit.recordings.labels import MOST_SIDECAR_BYTES, LabelRules, OnMissingLabels
from airflow_speechkit.recordings.upload import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_speechkit.models import RecordingAddress
    from airflow_speechkit.recordings.bucket import Bucket

    #: Returns the client of a connection id.
    BucketOf = Callable[[str | None], Bucket]


class FoundLabels(NamedTuple):
    """The labels of a recording.

    :param labels: those that were found
    :param error: why it can't be submitted
    :param lacks: what is missing, of a recording that is submitted without
    """

    labels: dict[str, str]
    error: SpeechKitError | None
    lacks: SpeechKitError | None


def read_labels(
    rules: LabelRules, bucket: BucketOf, where: Sequence[RecordingAddress | Path], *, sidecar: bool
) -> FoundLabels:
    """Return the labels of a recording, or of a pair. Those of its first side take precedence over the second's.

    A key that doesn't match, or a sidecar that isn't there, is missing only if the other side's is missing too.

    :param rules: where labels are
    :param bucket: returns the client of a connection id
    :param where: the recording; both sides of a pair; none if nothing of it is known
    :param sidecar: whether to read its sidecar too
    """
    labels: dict[str, str] = {}
    fails = lacks = None
    found_by: list[Callable[[RecordingAddress | Path], dict[str, str]]] = [rules.from_key]
    if sidecar and rules.sidecar is not None:
        found_by.append(partial(_from_sidecar, rules, bucket))
    for find in found_by:
        errors: list[SpeechKitError] = []
        for one in reversed(where):
            try:
                labels |= find(one)
            except SpeechKitError as error:
                error.about_recording(str(one) if isinstance(one, Path) else one.uri)
                errors.append(error)
        for wrong in reversed(errors):
            if len(errors) < len(where) and isinstance(wrong, RecordingNotFoundError):
                continue
            if isinstance(wrong, RecordingError) and rules.on_missing is OnMissingLabels.PASS:
                lacks = lacks or wrong
            else:
                fails = fails or wrong
    return FoundLabels(labels, fails, lacks)


def _from_sidecar(rules: LabelRules, bucket: BucketOf, where: RecordingAddress | Path) -> dict[str, str]:
    try:
        sidecar, most = rules.sidecar_of(where), MOST_SIDECAR_BYTES + 1
        if isinstance(sidecar, Path):
            return rules.from_sidecar(read_whole(sidecar, most), str(sidecar))
        return rules.from_sidecar(bucket(sidecar.conn_id).first_bytes(sidecar, most), sidecar.uri)
    except SpeechKitError as error:
        raise rules.sidecar_error(error) from None
