"""Transcripts seeded by control requests, and their choice for a recording."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from speechkit_emulator.bounds import BadValueError, fields, text
from speechkit_emulator.transcript import Transcript, TranscriptError, transcript_from

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _sha256(value: Any, name: str) -> str:
    digest = text(value, name).lower()
    if not _SHA256.fullmatch(digest):
        raise BadValueError(f"{name} must be 64 hexadecimal digits, not {value!r:.60}")
    return digest


def _transcript(value: Any, name: str) -> tuple[Any, Transcript]:
    try:
        return value, transcript_from(value)
    except TranscriptError as error:
        raise BadValueError(f"{name}: {error}") from error


@dataclass(kw_only=True)
class Seed:
    """A seeded transcript. At most one of `key`, `glob` and `sha256` is set; none of them = it is for the next submit.

    :param document: the transcript as it was sent
    :param transcript: the parsed transcript
    :param key: it is for the object with this key
    :param glob: it is for objects whose keys match; a ``*`` matches slashes too
    :param sha256: it is for a recording with this content, also one that is sent inline
    :param id: number of the seed, given when it is added
    :param used: number of recordings that used it
    """

    document: Any
    transcript: Transcript
    key: str | None = None
    glob: str | None = None
    sha256: str | None = None
    id: int = 0
    used: int = field(default=0)

    @property
    def once(self) -> bool:
        """Whether it is for the next submit, whatever the recording."""
        return self.key is None and self.glob is None and self.sha256 is None

    def fits(self, key: str | None, digest: str | None) -> bool:
        """Whether it is for this recording."""
        if self.once:
            return not self.used
        if self.sha256 is not None:
            return digest == self.sha256
        if key is None:
            return False
        return key == self.key if self.key is not None else fnmatchcase(key, self.glob or "")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "id": self.id,
            "key": self.key,
            "glob": self.glob,
            "sha256": self.sha256,
            "used": self.used,
            "transcript": self.document,
        }


def read_seed(value: Mapping[str, Any]) -> Seed:
    """Read a seed from a control request.

    :raises BadValueError: if a field is invalid; the error names it
    """
    given = fields(value, {"transcript": _transcript, "key": text, "glob": text, "sha256": _sha256})
    if "transcript" not in given:
        raise BadValueError("transcript is required; {} is silence")
    document, transcript = given.pop("transcript")
    if len(given) > 1:
        raise BadValueError(f"give only one of {', '.join(sorted(given))}, or none of them for the next submit")
    return Seed(document=document, transcript=transcript, **given)


class Seeds:
    """All seeds. A submit takes the oldest one for the next submit; without one, the newest that matches."""

    def __init__(self) -> None:
        self._seeds: list[Seed] = []
        self._ids = itertools.count(1)

    def __iter__(self) -> Any:
        return iter(self._seeds)

    def add(self, seed: Seed) -> Seed:
        """Seed a transcript."""
        seed.id = next(self._ids)
        self._seeds.append(seed)
        return seed

    def clear(self, seed_id: int | None = None) -> int:
        """Remove one seed, or all; return their number."""
        before = len(self._seeds)
        self._seeds = [seed for seed in self._seeds if seed_id is not None and seed.id != seed_id]
        return before - len(self._seeds)

    @property
    def need_content(self) -> bool:
        """Whether the choice needs the recording's content."""
        return any(seed.sha256 is not None for seed in self._seeds)

    def find(self, key: str | None, content: bytes | None) -> Seed | None:
        """The seed for a recording, None if no seed matches.

        :param key: the recording's key; None for an inline recording
        :param content: the recording; required if `need_content`
        """
        digest = hashlib.sha256(content).hexdigest() if content is not None and self.need_content else None
        once = [seed for seed in self._seeds if seed.once]
        lasting = [seed for seed in reversed(self._seeds) if not seed.once]
        return next((seed for seed in (*once, *lasting) if seed.fits(key, digest)), None)
