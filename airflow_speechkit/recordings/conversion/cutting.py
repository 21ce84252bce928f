"""Where a recording that is longer than the service takes is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    Loudness = NDArray[np.float64]

#: How finely loudness is measured. A cut is at the edge of such a piece.
PIECE_MS = 20
#: How long before the limit a cut may be. In so much speech there are pauses.
_WINDOW_MS = 10 * 60 * 1000
#: A cut is in the middle of the quietest stretch of this length.
_STRETCH_MS = 500


def cuts_ms(loudness: Loudness, most_ms: int) -> list[int]:
    """Return where to cut, so that no part is longer than a limit, and none begins or ends within a word.

    :param loudness: of each 20 ms, in order
    :param most_ms: the longest part, in milliseconds
    :return: the places, in milliseconds from the beginning; none for what is short enough
    """
    import numpy as np

    stretch = _STRETCH_MS // PIECE_MS
    cuts: list[int] = []
    start = 0
    while len(loudness) * PIECE_MS - start > most_ms:
        end = (start + most_ms) // PIECE_MS
        first = end - min(_WINDOW_MS, most_ms // 4) // PIECE_MS
        sums = np.convolve(loudness[first:end], np.ones(stretch), "valid")
        # Of equally quiet ones the last, so that there are few parts.
        quietest = len(sums) - 1 - int(np.argmin(sums[::-1]))
        start = (first + quietest + stretch // 2) * PIECE_MS
        cuts.append(start)
    return cuts


def loudness_of(frames: Iterable[Any], channels: int, rate_hertz: int) -> Loudness:
    """Measure how loud each 20 ms are: the mean square of their samples, all channels together.

    :param frames: PyAV's frames of 16-bit samples, each of whole pieces but for the last one
    :param channels: how many channels they have
    :param rate_hertz: samples a second and channel
    """
    import numpy as np

    per_piece = rate_hertz * PIECE_MS // 1000 * channels
    measured = [np.zeros(0)]
    for frame in frames:
        samples = np.frombuffer(frame.planes[0], np.int16, frame.samples * channels).astype(np.float64)
        samples = np.append(samples, np.zeros(-len(samples) % per_piece))
        measured.append(np.square(samples).reshape(-1, per_piece).mean(axis=1))
    return np.concatenate(measured)
