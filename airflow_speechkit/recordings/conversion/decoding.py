"""Reads an audio stream with PyAV (ffmpeg's libraries): what it is, and its samples on the source's timeline."""

from __future__ import annotations

import os
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import RecordingError, SettingsError, TruncatedError, UnsupportedFormatError
from airflow_speechkit.recordings.audio.facts import TAKE_WHAT_IS_THERE, UPLOAD_AGAIN
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.recordings.conversion.plan import AudioStream, check_audio_stream
from airflow_speechkit.recordings.conversion.timeline import TOLERANCE_S, Timeline
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_speechkit.recordings.audio.facts import AudioFacts

#: Their timestamps begin anywhere; the others' begin at zero, and what begins later is silent until then.
_ZERO_IS_THE_START = frozenset({"mp3", "mpegts", "mpeg", "ogg"})
#: Samples without a header, which only their name tells apart (Asterisk's names among them): demuxer, rate.
_HEADERLESS = {
    "al": ("alaw", 8_000), "alaw": ("alaw", 8_000), "pcma": ("alaw", 8_000),
    "ul": ("mulaw", 8_000), "ulaw": ("mulaw", 8_000), "pcmu": ("mulaw", 8_000),
    "gsm": ("gsm", None), "g722": ("g722", None), "722": ("g722", None),
    "sln": ("s16le", 8_000), "sln8": ("s16le", 8_000), "sln12": ("s16le", 12_000), "sln16": ("s16le", 16_000),
    "sln24": ("s16le", 24_000), "sln32": ("s16le", 32_000), "sln44": ("s16le", 44_100), "sln48": ("s16le", 48_000),
}  # fmt: skip
#: The files that these name may be anybody's.
_LISTS = frozenset({"concat", "dash", "hls"})
#: Their decoders don't know the frames that stand for a pause, and take all that follows them for damaged.
_AMR = frozenset({"amr_nb", "amr_wb"})
#: A packet of WMA holds parts of several frames, each of which gets the timestamp of any of these packets.
_WMA = frozenset({"wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice"})
_WMA_TOLERANCE_S = Fraction(3)
#: The first frame of these has the second packet's timestamp.
_LATE_FROM_THE_START = frozenset({"wmapro", "wmalossless", "wmavoice"})
#: They have no length: libavformat estimates it from the bitrate.
_WITHOUT_LENGTH = frozenset({"aac", "ac3", "alaw", "amr", "g722", "gsm", "mp3", "mpegts", "mulaw", "s16le"})
#: WAVs are read in packets of this size: each packet costs Python's time. Other demuxers don't know the option.
_WAV_PACKET_BYTES = 64 * 1024
#: They are written without a gap.
_CONTINUOUS = frozenset({"flac", "ogg"})
#: No page of an Ogg is longer.
_OGG_TAIL_BYTES = 64 * 1024
_LAST_OF_STREAM = 0x04
#: What is missing at the end by less than this is the rounding of a container's header.
_ROUNDING_MS = 1_000
#: A stream with more damaged packets than this isn't read further.
_MOST_DAMAGED = 1_000


class Source:
    """An open file, and one of its audio streams.

    :param path: the file
    :param container: PyAV's container of it
    :param number: which of its audio streams, counted from 1; None for the default one
    :raises RecordingError: there is no such stream, or no decoder for it
    """

    def __init__(self, path: Path, container: Any, number: int | None) -> None:
        self._path = path
        self._container = container
        if container.format.name in _LISTS:
            raise UnsupportedFormatError("It is a list of other files, which aren't read", hint="Give those files")
        streams = container.streams.audio
        if not streams:
            raise UnsupportedFormatError("There is no sound in this file", hint="Exclude it")
        check_audio_stream(number, len(streams))
        self.stream = container.streams.best("audio") if number is None else streams[number - 1]
        # None of a file whose streams are all damaged.
        context = None if self.stream is None else self.stream.codec_context
        if context is None or not context.sample_rate or not context.channels:
            name = context.name if context is not None else "unknown"
            raise RecordingError(
                f"The sound can't be decoded: its codec is {name}", hint="Have it written in another format"
            )
        self.facts = AudioStream(
            container=container.format.name,
            codec=_codec_name(context),
            sample_rate_hertz=context.sample_rate,
            channels=context.channels,
            duration_ms=None if container.duration is None else container.duration // 1000,
        )
        #: How much of the stream was read, in milliseconds, and what was wrong with it.
        self.read_ms = 0
        self.damaged_packets = 0
        #: How much silence was put in where timestamps leave a gap, in seconds.
        self.gaps_s = 0.0
        #: It isn't two sides of a call.
        self.side_ms: tuple[int, ...] = ()

    @property
    def declared_ms(self) -> int | None:
        """The length that the file declares for this stream, in milliseconds; a picture may be longer."""
        duration = self.stream.duration
        has_length = duration is not None and self.facts.container not in _WITHOUT_LENGTH
        return int(duration * self.stream.time_base * 1000) if has_length else None

    def packets(self) -> Iterator[Any]:
        """Give the stream's packets, as they are.

        :raises RecordingError: the file can't be read
        """
        zero = self._zero()
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except libav_errors():
                # The rest of the file is missing or damaged: what there is of it shows in `read_ms`.
                self.damaged_packets += 1
                return
            if packet is None:
                return
            if packet.pts is not None:
                # Not every container has the length of a packet.
                end = (packet.pts + (packet.duration or 0)) * packet.time_base - zero
                self.read_ms = max(self.read_ms, int(end * 1000))
            if packet.stream is self.stream:
                self.damaged_packets += packet.is_corrupt
                yield packet

    def read_through(self) -> None:
        """Read the file to its end without decoding it: `read_ms` and `flaw` are known then."""
        for _ in self.packets():
            pass

    def samples(self, filters: list[tuple[str, str]], channels: int) -> Iterator[Any]:
        """Give the stream's samples as frames of 16 bit, from the source's time zero on, without gaps.

        :param filters: what else they go through: names of libavfilter's filters, with their arguments
        :param channels: how many channels there have to be
        :raises RecordingError: nothing of it can be decoded, or the number of channels changes
        """
        tolerance_s = _WMA_TOLERANCE_S if self.facts.codec in _WMA else TOLERANCE_S
        timeline = Timeline(filters, channels, tolerance_s=tolerance_s)
        zero = self._zero()
        for packet in self.packets():
            try:
                frames = packet.decode()
            except libav_errors() as error:
                if self.facts.codec in _AMR and isinstance(error, import_av().error.PatchWelcomeError):
                    raise UnsupportedFormatError(
                        "This AMR leaves out pauses (DTX), which PyAV can't decode",
                        hint="Convert it to WAV, with sox for example, and give that",
                    ) from None
                self.damaged_packets += 1
                if self.damaged_packets > _MOST_DAMAGED:
                    break
                continue
            for frame in frames:
                self.damaged_packets += frame.is_corrupt
                if self.facts.codec in _LATE_FROM_THE_START and not timeline.has_frames:
                    frame.pts = None
                if not timeline.is_over:
                    yield from timeline.put(frame, zero)
            if timeline.is_over:
                break
        yield from timeline.end()
        self.read_ms = max(self.read_ms, timeline.length_ms)
        self.gaps_s = float(timeline.gaps_s)
        if not timeline.has_frames:
            raise RecordingError(f"Nothing of the audio can be decoded ({self.facts.codec})", hint=UPLOAD_AGAIN)

    def flaw(self) -> TruncatedError | None:
        """Return what is wrong with a file that was read to its end: that it is cut off, or damaged."""
        what = self._flaw() or self._cut_off()
        return None if what is None else TruncatedError(what, hint=TAKE_WHAT_IS_THERE)

    def _flaw(self) -> str | None:
        declared = self.facts.duration_ms
        if declared and self.facts.container not in _WITHOUT_LENGTH and self.read_ms < declared - _ROUNDING_MS:
            return f"It is cut off: it declares {declared / 1000:,.1f} s, and ends after {self.read_ms / 1000:,.1f} s"
        if self.facts.container == "ogg" and not self._has_last_page():
            return "It is cut off: the page that marks the end of an Ogg is missing"
        if self.gaps_s and self.facts.container in _CONTINUOUS:
            return f"It is damaged: {self.gaps_s:,.1f} s of it are missing"
        if self.damaged_packets:
            return f"It is damaged: {self.damaged_packets:,} pieces of it can't be decoded"
        return None

    def _cut_off(self) -> str | None:
        """Return what says that a file is cut off, of a format whose header libavformat doesn't hold against it."""
        try:
            _read(self._path, RecognitionSettings())
        except TruncatedError as error:
            return error.what
        except RecordingError:
            pass
        return None

    def _has_last_page(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _OGG_TAIL_BYTES))
            tail = file.read()
        page = tail.rfind(b"OggS")
        return page >= 0 and bool(tail[page + 5 : page + 6] and tail[page + 5] & _LAST_OF_STREAM)

    def _zero(self) -> Fraction:
        start = self._container.start_time
        if start is None or self.facts.container not in _ZERO_IS_THE_START:
            return Fraction(0)
        # What is before zero is an encoder's delay.
        return Fraction(max(0, start), 1_000_000)


def lpcm_in(path: Path, settings: RecognitionSettings) -> AudioFacts | None:
    """Return what a file of samples without a header is, as the settings say; None if it is of another kind.

    :param path: the file
    :param settings: what the user says about it
    """
    if settings.audio_encoding is not AudioEncoding.LINEAR16_PCM:
        return None
    try:
        facts = _read(path, settings)
    except RecordingError:
        return None
    return facts if facts.encoding is AudioEncoding.LINEAR16_PCM else None


def _read(path: Path, settings: RecognitionSettings) -> AudioFacts:
    def read(start: int, length: int) -> bytes:
        file.seek(start)
        return file.read(length)

    with path.open("rb") as file:
        return read_audio(read, path.stat().st_size, settings)


@contextmanager
def open_source(path: Path, audio_stream: int | None = None, lpcm: AudioFacts | None = None) -> Iterator[Source]:
    """Open a file.

    :param path: its name tells what samples without a header are
    :param audio_stream: which of its audio streams, counted from 1; by default the one that a player would choose
    :param lpcm: what `lpcm_in` returned
    :raises RecordingError: it can't be opened, or is of a kind that can't be decoded
    :raises SettingsError: it has no such stream, or the extra `audio` isn't installed
    """
    av = import_av()
    try:
        container = _open(av, path, lpcm)
    except libav_errors() as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise UnsupportedFormatError(f"The file can't be decoded: {why}", hint=UPLOAD_AGAIN) from None
    with container:
        yield Source(path, container, audio_stream)


def _open(av: Any, path: Path, lpcm: AudioFacts | None) -> Any:
    demuxer, rate = _HEADERLESS.get(path.suffix[1:].lower(), (None, None))
    with path.open("rb") as file:
        has_header = file.read(4) in (b"RIFF", b"RIFX", b"RF64", b"OggS", b"fLaC", b"FORM", b".snd")
    if lpcm is not None:
        demuxer = "s16le"
        options = {"sample_rate": str(lpcm.sample_rate_hertz), "ch_layout": f"{lpcm.channels}C"}
    elif demuxer is None or has_header:
        demuxer, options = None, {"max_size": str(_WAV_PACKET_BYTES)}
    else:
        options = {} if rate is None else {"sample_rate": str(rate)}
    # A title may be of another encoding than UTF-8. PyAV 19 has no such argument, and never fails.
    titles = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
    # libavformat takes what is before a colon for a protocol: `http:1.wav`.
    return av.open(str(path.absolute()), format=demuxer, options=options, **titles)


def import_av() -> Any:
    """Import PyAV.

    :raises SettingsError: the extra `audio` isn't installed
    """
    try:
        import av
    except ImportError:
        raise SettingsError(
            "Decoding needs PyAV, which isn't installed", hint="pip install 'airflow-speechkit[audio]'"
        ) from None
    return av


def libav_errors() -> tuple[type[Exception], ...]:
    """Return what PyAV raises about a file that it can't read."""
    import av

    return (av.error.FFmpegError, UnicodeDecodeError, ValueError)


def _codec_name(context: Any) -> str:
    # Decoders have names of their own beside that of what they decode: libopus, libopencore_amrnb.
    return str(context.codec.canonical_name)
