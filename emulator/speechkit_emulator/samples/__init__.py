"""The sample calls that come with the emulator: a few sentences each, in English, spoken by synthetic voices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

#: Where they are in the bucket.
PREFIX = "samples/"


@dataclass(frozen=True)
class Sample:
    """A sample call.

    :param path: its file
    :param call_id: how a CRM would name it
    :param duration_ms: its length
    :param text: what is said in it, turn by turn
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
    """All sample calls, by the manifest beside this file."""
    folder = Path(__file__).parent
    return [
        Sample(
            folder / call["file"], call["call_id"], call["duration_ms"], tuple(turn["text"] for turn in call["turns"])
        )
        for call in json.loads((folder / "manifest.json").read_text())
    ]
