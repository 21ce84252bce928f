"""The sample calls: a few English sentences each, spoken by synthetic voices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

#: Their prefix in the bucket.
PREFIX = "samples/"


@dataclass(frozen=True)
class Sample:
    """A sample call.

    :param path: of its file
    :param call_id: its id in an imaginary CRM
    :param duration_ms: its duration
    :param text: its sentences, one for each turn
    """

    path: Path
    call_id: str
    duration_ms: int
    text: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its key in the bucket."""
        return PREFIX + self.path.name


def samples() -> list[Sample]:
    """All sample calls, from ``manifest.json``."""
    folder = Path(__file__).parent
    return [
        Sample(
            folder / call["file"], call["call_id"], call["duration_ms"], tuple(turn["text"] for turn in call["turns"])
        )
        for call in json.loads((folder / "manifest.json").read_text())
    ]
