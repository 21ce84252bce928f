"""Puts decoded sound on the source's timeline, without gaps."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A timestamp that goes back by more than this begins a new count: files were joined.
_NEW_COUNT_S = 1
#: Where timestamps leave a gap of more, silence is put in; where they overlap by more, samples are left out.
TOLERANCE_S = Fraction(10, 1000)
#: A longer gap is filled in pieces of this: `aresample` would hold all of its silence in memory.
_SILENCE_S = 1
#: Timestamps that leave a longer gap are damaged.
_MOST_GAP_S = 24 * 60 * 60


class Timeline:
    """Puts decoded frames where their timestamps say.

    libavfilter's `aresample` fills gaps and leaves out overlaps. A stream whose rate or channels change gets a new
    graph of filters.

    :param filters: what else the samples go through: names of libavfilter's filters, with their arguments
    :param channels: how many channels each frame has to have
    :param tolerance_s: by how much timestamps may differ from the sound before them, in seconds
    """

    def __init__(self, filters: list[tuple[str, str]], channels: int, *, tolerance_s: Fraction = TOLERANCE_S) -> None:
        self._filters = filters
        self._tolerance_s = tolerance_s
        self._channels = channels
        self._graph: Any = None
        self._form: tuple[Any, ...] = ()
        self._shift = Fraction(0)
        self._next = Fraction(0)
        #: The last frame, which waits for the next one's timestamp, and its own, on the source's timeline.
        self._held: Any = None
        self._held_at: Fraction | None = None
        #: Whether the filters have given all that they choose, before the end.
        self.is_over = False
        self.has_frames = False
        self.gaps_s = Fraction(0)

    @property
    def length_ms(self) -> int:
        """How long it is so far, in milliseconds."""
        return int(self._next * 1000)

    def put(self, frame: Any, zero: Fraction) -> Iterator[Any]:
        """Put in the next frame, and give the samples that are ready.

        :param frame: PyAV's
        :param zero: the timestamp at which the timeline begins, in seconds
        :raises RecordingError: the number of channels changes
        """
        if frame.layout.nb_channels != self._channels:
            raise RecordingError(
                f"The recording begins with {self._channels} channels, and goes on with {frame.layout.nb_channels}",
                hint="Split it there",
            )
        at = None if frame.pts is None else frame.pts * frame.time_base - zero
        if self._held is not None:
            yield from self._push_held(at)
        self._held, self._held_at = frame, at

    def end(self) -> Iterator[Any]:
        """Give the samples that are left."""
        if self._held is not None and not self.is_over:
            yield from self._push_held(None)
        self._held = None
        yield from self._end_graph()

    def _push_held(self, following: Fraction | None) -> Iterator[Any]:
        frame = self._held
        length = Fraction(frame.samples, frame.sample_rate)
        due = self._next
        at = due if self._held_at is None else self._held_at + self._shift
        jumps = self.has_frames and abs(at - due) > self._tolerance_s
        # A timestamp that the next one takes back is wrong. That of Vorbis is, where long blocks become short ones.
        if jumps and following is not None and abs(following + self._shift - due - length) <= self._tolerance_s:
            at = due
        # Of rough timestamps only a jump counts.
        if self.has_frames and not jumps and self._tolerance_s > TOLERANCE_S:
            at = due
        if self.has_frames and at < due - _NEW_COUNT_S:
            self._shift += due - at
            at = due
        if at > due + _MOST_GAP_S:
            raise RecordingError(
                f"Its timestamps are damaged: they leave a gap of {float(at - due) / 3600:,.0f} h",
                hint="Write it again, with another program",
            )
        if self.has_frames and at > due + self._tolerance_s:
            self.gaps_s += at - due
        self._next = at + length
        form = (frame.sample_rate, frame.format.name, frame.layout.name)
        if form != self._form:
            yield from self._end_graph()
            self._form = form
            self._graph = _graph(frame, self._filters, start=due)
        self.has_frames = True
        while at > due + _SILENCE_S and not self.is_over:
            silence = _silence(frame)
            silence.pts = round(due / frame.time_base)
            self._graph.push(silence)
            yield from self._ready()
            due += _SILENCE_S
        if self.is_over:
            return
        frame.pts = round(at / frame.time_base)
        self._graph.push(frame)
        yield from self._ready()

    def _end_graph(self) -> Iterator[Any]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()
            self._graph, self.is_over = None, False

    def _ready(self) -> Iterator[Any]:
        import av

        while True:
            try:
                yield self._graph.pull()
            except av.error.BlockingIOError:
                return
            except av.error.EOFError:
                self.is_over = True
                return


def _silence(frame: Any) -> Any:
    import av

    silence = av.AudioFrame(frame.format.name, frame.layout.name, _SILENCE_S * frame.sample_rate)
    silence.sample_rate, silence.time_base = frame.sample_rate, frame.time_base
    zero = b"\x80" if frame.format.name in ("u8", "u8p") else b"\0"
    for plane in silence.planes:
        plane.update(zero * plane.buffer_size)
    return silence


def _graph(frame: Any, filters: list[tuple[str, str]], start: Fraction) -> Any:
    import av

    graph = av.filter.Graph()
    first = round(start * frame.sample_rate)
    steps = [
        # From 32 bit, swresample would cut off, and not round.
        *([("aformat", "sample_fmts=flt")] if frame.format.bytes > 2 else []),
        ("aresample", f"async=1:min_hard_comp={float(TOLERANCE_S)}:first_pts={first}"),
        *filters,
    ]
    last = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format.name,
        layout=frame.layout.name,
        time_base=frame.time_base,
    )
    for name, arguments in [*steps, ("aformat", "sample_fmts=s16"), ("abuffersink", "")]:
        one = graph.add(name, arguments)
        last.link_to(one)
        last = one
    graph.configure()
    return graph
