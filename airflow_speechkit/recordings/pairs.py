"""Which two mono recordings are the two sides of one call: by the patterns of their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError, SettingsError
from airflow_speechkit.models import Recording, RecordingAddress
from airflow_speechkit.recordings.places import Pair, Place, address_of, root_and_key
from airflow_speechkit.settings import member_of

if TYPE_CHECKING:
    from pathlib import Path

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}", re.ASCII)
_FORM = "Write it as ('{call}-in.wav', '{call}-out.wav')"


class OnLoneSide(StrEnum):
    """What is done with a side whose other side is missing."""

    ALONE = "alone"  #: it is submitted as it is
    FAIL = "fail"  #: it is refused


@dataclass(frozen=True)
class SidePattern:
    """What the keys of one side end with.

    :param text: literal text with placeholders such as ``{call}``, each of which is any text without a slash
    """

    text: str

    @property
    def names(self) -> frozenset[str]:
        """The names of its placeholders."""
        return frozenset(self._regex.groupindex)

    @property
    def literals(self) -> int:
        """How many characters of it are no placeholder."""
        return len(_PLACEHOLDER.sub("", self.text))

    def match(self, key: str) -> tuple[str, dict[str, str]] | None:
        """Return what a key has before the pattern, and what the placeholders stand for; None if it doesn't match."""
        found = self._regex.fullmatch(key)
        return None if found is None else (found[1], found.groupdict())

    def filled(self, values: Mapping[str, str]) -> str:
        """Return it with what its placeholders stand for."""
        return self.text.format(**values)

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        literals, names = _PLACEHOLDER.split(self.text)[::2], _PLACEHOLDER.findall(self.text)
        text = re.escape(literals[0])
        for place, name in enumerate(names):
            is_known = name in names[:place]
            text += (f"(?P={name})" if is_known else f"(?P<{name}>[^/]+)") + re.escape(literals[place + 1])
        return re.compile(f"((?:.*/)?){text}", re.DOTALL)


@dataclass(frozen=True)
class Match:
    """A recording, or a pair of them.

    :param place: where it is
    :param roles: of each of its channels, whether it is the first (0) or the second (1) side; empty if it is no side
    :param error: why it is refused: its other side is missing
    """

    place: Place | Pair
    roles: tuple[int, ...] = ()
    error: RecordingError | None = None


@dataclass(frozen=True)
class _Side:
    """What a key has that matches a pattern.

    :param number: which of the two patterns
    :param call: the same for both sides of a call
    :param values: what the placeholders stand for
    :param missing: where the other side has to be
    """

    number: int
    call: tuple[Any, ...]
    values: dict[str, str]
    missing: str


@dataclass(frozen=True)
class PairRules:
    """How recordings are paired.

    :param patterns: of the first side, which becomes channel 0, and of the second
    :param on_lone_side: what is done with a side whose other side is missing
    :param channel_labels: the labels of both sides' channels
    """

    patterns: tuple[SidePattern, SidePattern] | None = None
    on_lone_side: OnLoneSide = OnLoneSide.ALONE
    channel_labels: tuple[str, str] | None = None

    @classmethod
    def of(cls, pair: Any, on_lone_side: Any, channel_labels: Any) -> PairRules:
        """Check an operator's keywords.

        :param pair: two patterns
        :param on_lone_side: a member of `OnLoneSide`
        :param channel_labels: two texts
        :raises SettingsError: one of them is invalid; the message names it
        """
        return cls(
            patterns=None if pair is None else _patterns(_two_texts(pair, "pair", _FORM)),
            on_lone_side=member_of(OnLoneSide, on_lone_side, "on_lone_side"),
            channel_labels=None
            if channel_labels is None
            else _two_texts(channel_labels, "channel_labels", "Write it as ('agent', 'customer')"),
        )

    def match(self, places: Sequence[Place | Pair]) -> list[Match]:
        """Find the two sides of each call.

        Both sides have the same text for each placeholder, and the same text before the pattern: they are in the same
        folder. A key that matches both patterns is of the one with more literal characters, or else the first. A
        recording that is there twice is one. A pair stands where its first listed side stands.

        :param places: recordings, and pairs that are pairs already
        """
        sides = [None if isinstance(place, Pair | Recording) else self._side_at(address_of(place)) for place in places]
        calls: dict[tuple[Any, ...], dict[int, Any]] = {}
        for place, side in zip(places, sides, strict=True):
            if side is not None:
                calls.setdefault(side.call, {}).setdefault(side.number, place)
        found = []
        for place, side in zip(places, sides, strict=True):
            if side is None:
                found.append(Match(place, (0, 1) if isinstance(place, Pair) else ()))
            elif known := calls.pop(side.call, None):
                if len(known) == 2:
                    found.append(Match(Pair(known[0], known[1]), (0, 1)))
                else:
                    error = _is_alone(side.missing) if self.on_lone_side is OnLoneSide.FAIL else None
                    found.append(Match(place, (side.number,), error))
        return found

    def with_channel_labels(
        self, roles: Sequence[tuple[int, ...]], labels: Sequence[Mapping[str, str]]
    ) -> list[Mapping[str, str]]:
        """Add the labels ``channel_0`` and ``channel_1`` to those of recordings, which take precedence.

        :param roles: of each recording's channels
        :param labels: of each recording
        """
        texts = self.channel_labels
        if texts is None:
            return list(labels)
        return [
            {**{f"channel_{channel}": texts[role] for channel, role in enumerate(own_roles)}, **own}
            for own_roles, own in zip(roles, labels, strict=True)
        ]

    @property
    def names(self) -> frozenset[str]:
        """The names of the patterns' placeholders: both have the same."""
        return frozenset() if self.patterns is None else self.patterns[0].names

    def values_in(self, where: RecordingAddress | Path) -> dict[str, str]:
        """Return what the placeholders stand for in a side's key; nothing for a recording that is no side."""
        side = self._side_at(where)
        return {} if side is None else side.values

    def _side_at(self, where: RecordingAddress | Path) -> _Side | None:
        patterns, (root, key) = self.patterns or (), root_and_key(where)
        for number in sorted(range(len(patterns)), key=lambda one: -patterns[one].literals):
            found = patterns[number].match(key)
            if found is not None:
                before, values = found
                missing = f"{root}{before}{patterns[1 - number].filled(values)}"
                return _Side(number, (root, before, *sorted(values.items())), values, missing)
        return None


#: Nothing belongs together.
NO_PAIRS = PairRules()


def describe(matches: Sequence[Match]) -> str:
    """Return how many pairs there are, in words."""
    numbers = Counter(len(one.roles) for one in matches)
    return (
        f"{numbers[2]:,} pairs, {numbers[1]:,} recordings whose other side is missing, "
        f"{numbers[0]:,} that match neither pattern of `pair`"
    )


def _is_alone(missing: str) -> RecordingError:
    return RecordingError(
        f"The other side of this call is missing: {missing}",
        hint="Check `pair` and what is in the folder, or set on_lone_side='alone' to submit it as it is",
        retry="looks for it again",
    )


def _two_texts(given: Any, name: str, form: str) -> tuple[str, str]:
    found = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if len(found) != 2 or not all(isinstance(one, str) and one.strip() not in ("", "None") for one in found):
        raise SettingsError(
            f"`{name}` must be a list of two texts",
            hint=f"{form}. A template returns a text unless the DAG has render_template_as_native_obj=True",
        )
    return found[0], found[1]


def _patterns(texts: tuple[str, str]) -> tuple[SidePattern, SidePattern]:
    first, second = SidePattern(texts[0]), SidePattern(texts[1])
    for text in texts:
        rest, placeholders = _PLACEHOLDER.subn("", text)
        if not placeholders or re.search("[{}]", rest) or re.search("^/|://", text):
            raise SettingsError(
                f"`pair` has {text!r}, and its patterns are what keys end with, with placeholders such as {{call}}",
                hint=_FORM,
            )
    if first.names != second.names:
        raise SettingsError(
            "The two patterns of `pair` have different placeholders, so nothing says which recordings belong together",
            hint=_FORM,
        )
    if first == second:
        raise SettingsError("The two patterns of `pair` are the same", hint=_FORM)
    return first, second
