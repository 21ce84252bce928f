"""What the service will charge for, as its pricing page has it.

The unit is a second of two-channel audio: seconds are rounded up, channels are rounded up to pairs, and each pair
costs 15 seconds at least (`yandex-cloud/docs`, ``en/speechkit/pricing.md``).
"""

from __future__ import annotations

from fractions import Fraction

MINIMUM_SECONDS = 15
CHANNELS_IN_A_UNIT = 2

#: `deferred-general` and its kin cost a quarter.
DEFERRED_PRICE_FACTOR = Fraction(1, 4)


def billed_seconds(duration_ms: int, channels: int) -> int:
    """Return the units of a recording: ``max(15, ceil(seconds)) * ceil(channels / 2)``.

    :param duration_ms: how long it is, in milliseconds
    :param channels: how many channels it has
    """
    seconds = -(-duration_ms // 1000)
    pairs = -(-channels // CHANNELS_IN_A_UNIT)
    return max(MINIMUM_SECONDS, seconds) * pairs


def price_factor(model: str) -> Fraction:
    """Return what a unit costs with a model, against the price of a unit with `general`."""
    return DEFERRED_PRICE_FACTOR if model.startswith("deferred-") else Fraction(1)


def price_note(model: str) -> str:
    """Say in words what a unit costs with a model, where that isn't the price of a unit with `general`."""
    return "" if price_factor(model) == 1 else " at a quarter of the price (deferred model)"
