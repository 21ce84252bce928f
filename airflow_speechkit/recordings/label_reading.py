"""Reads the labels of recordings from where `LabelRules` say that they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, RecordingNotFoundError, SpeechKitError
from airflow_speechkit.recordings.labels import MOST_SIDECAR_BYTES, LabelRules, OnMissingLabels
from airflow_speechkit.recordings.upload import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_speechkit.models import RecordingAddress
    from airflow_speechkit.recordings.bucket import Bucket


@dataclass(frozen=True)
class FoundLabels:
    """The labels of a recording.

    :param labels: those that were found
    :param error: why it can't be submitted
    :param lacks: what is missing, of a recording that is submitted without
    """

    labels: dict[str, str]
    error: SpeechKitError | None = None
    lacks: SpeechKitError | None = None


def _labels_or_error(
    found_by: Callable[[RecordingAddress | Path], dict[str, str]], where: RecordingAddress | Path
) -> dict[str, str] | SpeechKitError:
    try:
        return found_by(where)
    except SpeechKitError as error:
        error.about_recording(str(where) if isinstance(where, Path) else where.uri)
        return error


@dataclass(frozen=True)
class LabelReader:
    """Reads keys and sidecars. Safe to share between threads.

    :param rules: where labels are
    :param bucket: returns the client of a connection id
    """

    rules: LabelRules
    bucket: Callable[[str | None], Bucket]

    def read(self, where: Sequence[RecordingAddress | Path], *, sidecar: bool) -> FoundLabels:
        """Return the labels of a recording, or of a pair. Those of its first side take precedence over the second's.

        A key that doesn't match, or a sidecar that isn't there, is missing only if the other side's is missing too.

        :param where: the recording; both sides of a pair; none if nothing of it is known
        :param sidecar: whether to read its sidecar too
        """
        labels: dict[str, str] = {}
        fails = lacks = None
        for found_by in (self.rules.from_key, self._from_sidecar) if sidecar else (self.rules.from_key,):
            found = [_labels_or_error(found_by, one) for one in where]
            errors = [one for one in found if isinstance(one, SpeechKitError)]
            for one in reversed(found):
                labels |= {} if isinstance(one, SpeechKitError) else one
            for error in errors:
                if len(errors) < len(where) and isinstance(error, RecordingNotFoundError):
                    continue
                if isinstance(error, RecordingError) and self.rules.on_missing is OnMissingLabels.PASS:
                    lacks = lacks or error
                else:
                    fails = fails or error
        return FoundLabels(labels, fails, lacks)

    def _from_sidecar(self, where: RecordingAddress | Path) -> dict[str, str]:
        rules = self.rules
        if rules.sidecar is None:
            return {}
        try:
            sidecar = rules.sidecar_of(where)
            if isinstance(sidecar, Path):
                return rules.from_sidecar(read_whole(sidecar, MOST_SIDECAR_BYTES + 1), str(sidecar))
            raw = self.bucket(sidecar.conn_id).read(sidecar, MOST_SIDECAR_BYTES + 1)
            return rules.from_sidecar(raw, sidecar.uri)
        except SpeechKitError as error:
            raise rules.sidecar_error(error) from None
