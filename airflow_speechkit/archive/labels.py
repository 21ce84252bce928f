"""Labels of an operation: those of its submission, and what was put on record later. The rules, without any I/O.

An addition sets only what no label says yet, a correction what it names. Each is a record of its own, and it is the
reader who merges them, in the order of their numbers: of two who write at the same moment neither loses anything, and
everybody reads the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_speechkit.parsing import expect, expect_or_none, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from airflow_speechkit.models import Submission


@dataclass(frozen=True, kw_only=True)
class LabelRecord:
    """Labels that were given after the submission.

    :param audio_uri: the recording that they are about
    :param labels: name -> text; None removes the label
    :param update: whether it is a correction; an addition otherwise
    :param by: the task instance, or the user, for people
    :param at: UTC
    """

    audio_uri: str
    labels: Mapping[str, str | None]
    update: bool
    by: str
    at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "audio_uri": self.audio_uri,
            "labels": dict(self.labels),
            "update": self.update,
            "by": self.by,
            "at": self.at.isoformat(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelRecord:
        """Rebuild what `to_json` gave, ignoring what a later version added.

        :raises ValueError: it is something else; or `KeyError`
        """
        return cls(
            audio_uri=expect(data["audio_uri"], str),
            labels={name: expect_or_none(text, str) for name, text in expect(data["labels"], dict).items()},
            update=expect(data["update"], bool),
            by=expect(data["by"], str),
            at=parse_time(data["at"]),
        )


def merged(submission: Submission, records: Iterable[LabelRecord]) -> dict[str, str | None]:
    """Return the newest labels of a submission; None for one that was removed, which an addition doesn't bring back.

    :param records: in the order of their numbers
    """
    labels: dict[str, str | None] = dict(submission.labels)
    for record in records:
        if record.audio_uri == submission.audio_uri:
            labels |= changes(labels, record.labels, update=record.update)
    return labels


def with_labels(submission: Submission, records: Iterable[LabelRecord]) -> Submission:
    """Return a submission with its newest labels in place of its first ones."""
    labels = {name: text for name, text in merged(submission, records).items() if text is not None}
    return replace(submission, labels=labels)


def changes(
    labels: Mapping[str, str | None], given: Mapping[str, str | None], *, update: bool
) -> dict[str, str | None]:
    """Return those of the given labels that change something.

    :param labels: as `merged` returns them
    :param update: whether they replace what is there
    """
    return {
        name: text
        for name, text in given.items()
        if (labels.get(name) != text if update else name not in labels and text is not None)
    }
