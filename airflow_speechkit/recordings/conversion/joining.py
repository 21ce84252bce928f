"""Two mono recordings of one call as one stereo recording."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError, SpeechKitError
from airflow_speechkit.recordings.conversion.decoding import import_av, open_source
from airflow_speechkit.recordings.conversion.plan import AudioStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow_speechkit.errors import TruncatedError
    from airflow_speechkit.recordings.conversion.decoding import Source

    #: Opens a recording: a file, or both of a pair.
    Opened = Callable[[], AbstractContextManager["Source | JoinedSource"]]

#: Frames of 20 ms, as an Opus packet has.
_FRAMES_PER_S = 50


class JoinedSource:
    """Two open files. The first is channel 0; each begins at its own zero; silence follows the shorter one.

    :param sides: both, of one channel each
    :param names: their names in messages
    """

    def __init__(self, sides: Sequence[Source], names: Sequence[str]) -> None:
        self._sides = sides
        self._names = names
        facts = [side.facts for side in sides]
        lengths = [one.duration_ms for one in facts]
        self.facts = AudioStream(
            container="two files",
            # What is put together has 16 bits.
            codec="pcm_s16le" if all(one.is_lossless for one in facts) else "lossy",
            sample_rate_hertz=max(one.sample_rate_hertz for one in facts),
            channels=len(sides),
            duration_ms=None if None in lengths else max(one or 0 for one in lengths),
        )
        #: How long each side is that was read, rounded down to a millisecond.
        self.side_ms: tuple[int, ...] = ()

    @property
    def declared_ms(self) -> int | None:
        """The length that a file declares, the longer one if both do, in milliseconds."""
        return max((side.declared_ms for side in self._sides if side.declared_ms is not None), default=None)

    @property
    def read_ms(self) -> int:
        """How much of the longer side was read, in milliseconds."""
        return max(side.read_ms for side in self._sides)

    @property
    def gaps_s(self) -> float:
        """How much silence was put in where timestamps of a side leave a gap, in seconds."""
        return max(side.gaps_s for side in self._sides)

    def read_through(self) -> None:
        """Read both files to their ends without decoding them: `read_ms` and `flaw` are known then."""
        for side in self._sides:
            side.read_through()

    def samples(self, filters: list[tuple[str, str]], channels: int) -> Iterator[Any]:
        """Give both sides' samples as frames of 16 bit, from their time zero on, without gaps.

        :param filters: what each side goes through; they have to give both the same rate
        :param channels: how many channels there have to be
        :raises RecordingError: nothing of a side can be decoded, or its number of channels changes
        """
        import numpy as np

        av, rate, counts = import_av(), 0, [0] * channels
        none = (np.empty(0, np.int16), 0)
        blocks = [_blocks(side, filters, name) for side, name in zip(self._sides, self._names, strict=True)]
        for sides in zip_longest(*blocks, fillvalue=none):
            rate = rate or max(one_rate for _, one_rate in sides)
            both = np.zeros((max(block.size for block, _ in sides), channels), np.int16)
            for channel, (block, _) in enumerate(sides):
                both[: block.size, channel] = block
                counts[channel] += block.size
            frame = av.AudioFrame.from_ndarray(both.reshape(1, -1), format="s16", layout="stereo")
            frame.sample_rate = rate
            yield frame
        self.side_ms = tuple(count * 1000 // rate for count in counts)

    def flaw(self) -> TruncatedError | None:
        """Return what is wrong with a side that was read to its end: that it is cut off, or damaged."""
        for side, name in zip(self._sides, self._names, strict=True):
            flaw = side.flaw()
            if flaw is not None:
                flaw.about_recording(name)
                return flaw
        return None


@contextmanager
def open_pair(paths: Sequence[Path], names: Sequence[str], audio_stream: int | None = None) -> Iterator[JoinedSource]:
    """Open two files.

    :param paths: the first becomes channel 0
    :param names: their names in messages
    :param audio_stream: which of their audio streams, counted from 1; by default the one that a player would choose
    :raises RecordingError: one can't be opened, is of a kind that can't be decoded, or isn't mono
    :raises SettingsError: one has no such stream, or the extra `audio` isn't installed
    """
    with ExitStack() as stack:
        sides = []
        for path, name in zip(paths, names, strict=True):
            with _about(name):
                side = stack.enter_context(open_source(path, audio_stream))
                if side.facts.channels != 1:
                    raise RecordingError(
                        f"A side of a call has to be mono, and this recording has {side.facts.channels} channels",
                        hint="Exclude it from `pair`: then it is a recording of its own",
                    )
            sides.append(side)
        yield JoinedSource(sides, names)


def _blocks(side: Source, filters: list[tuple[str, str]], name: str) -> Iterator[tuple[Any, int]]:
    """Give samples in blocks of the same length, and their rate; the last one may be shorter."""
    import numpy as np

    left, rate = np.empty(0, np.int16), 0
    with _about(name):
        for frame in side.samples(filters, 1):
            rate = frame.sample_rate
            size = rate // _FRAMES_PER_S
            left = np.concatenate([left, frame.to_ndarray()[0]])
            whole = left.size - left.size % size
            for block in left[:whole].reshape(-1, size):
                yield block, rate
            left = left[whole:]
    if left.size:
        yield left, rate


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Name the side that an error is about."""
    try:
        yield
    except SpeechKitError as error:
        error.about_recording(name)
        raise
