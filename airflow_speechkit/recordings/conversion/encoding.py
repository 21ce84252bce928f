"""Writes what a recording becomes: LPCM, WAV, or OggOpus."""

from __future__ import annotations

import io
import struct
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from airflow_speechkit.recordings.audio.facts import MAX_BYTES, AudioFacts, samples_to_ms
from airflow_speechkit.recordings.audio.ogg import read_ogg
from airflow_speechkit.recordings.conversion.decoding import import_av
from airflow_speechkit.recordings.conversion.joining import JoinedSource
from airflow_speechkit.recordings.conversion.plan import OPUS_BITS_PER_S
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from airflow_speechkit.recordings.conversion.decoding import Source
    from airflow_speechkit.recordings.conversion.plan import Conversion

#: Opus counts these, whatever rate its encoder gets.
_OPUS_HERTZ = 48_000
#: 20 ms, the length of an Opus packet, at most times a second.
_PACKETS_PER_S = 50
#: How far the times of packets may be from where they are put in OggOpus, whose packets follow each other.
_MOST_SHIFT_S = Fraction(20, 1000)
_WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


class DoesNotFitError(Exception):
    """What is written passes the service's 1 GB, or has gaps between its Opus packets, which OggOpus can't hold."""


def write(
    source: Source | JoinedSource,
    conversion: Conversion,
    target: BinaryIO,
    progress: Callable[[int], None],
    start_ms: int = 0,
    end_ms: int | None = None,
) -> AudioFacts:
    """Convert an audio stream.

    :param source: read from its beginning
    :param conversion: what it becomes
    :param target: an empty file; it has to be seekable
    :param progress: is given how many milliseconds are done, many times
    :param start_ms: where what is written begins; packets are copied whole only
    :param end_ms: where it ends; None for the recording's end
    :return: what was written
    :raises DoesNotFitError: it passes 1 GB, or its packets can't be copied
    :raises RecordingError: nothing of it can be decoded
    :raises OSError: the target can't be written
    """
    if conversion.copies_packets and not isinstance(source, JoinedSource):
        return _copy_packets(source, target, progress)
    rate = conversion.sample_rate_hertz
    filters = [("aresample", str(rate))]
    if start_ms or end_ms is not None:
        end = "" if end_ms is None else f":end={end_ms}ms"
        filters.append(("atrim", f"start={start_ms}ms{end}"))
    if conversion.encoding is not AudioEncoding.OGG_OPUS:
        return _write_samples(source.samples(filters, conversion.channels), conversion, target, progress)
    filters.append(("asetnsamples", f"n={rate // _PACKETS_PER_S}:p=0"))
    return _encode(source.samples(filters, conversion.channels), conversion, target, progress)


def _write_samples(
    frames: Iterator[Any], conversion: Conversion, target: BinaryIO, progress: Callable[[int], None]
) -> AudioFacts:
    rate, channels = conversion.sample_rate_hertz, conversion.channels
    offset = _WAV_HEADER.size if conversion.encoding is AudioEncoding.WAV else 0
    target.write(bytes(offset))
    frame_bytes, size = 2 * channels, 0
    for frame in frames:
        size += target.write(memoryview(frame.planes[0])[: frame.samples * frame_bytes])
        if offset + size > MAX_BYTES:
            raise DoesNotFitError
        progress(samples_to_ms(size // frame_bytes, rate))
    if offset:
        target.seek(0)
        form = (16, 1, channels, rate, rate * frame_bytes, frame_bytes, 16)
        target.write(_WAV_HEADER.pack(b"RIFF", offset - 8 + size, b"WAVE", b"fmt ", *form, b"data", size))
    return AudioFacts(
        encoding=conversion.encoding,
        sample_rate_hertz=rate,
        channels=channels,
        duration_ms=samples_to_ms(size // frame_bytes, rate),
        size_bytes=offset + size,
        data_offset=offset,
        data_bytes=size,
    )


def _encode(
    frames: Iterator[Any], conversion: Conversion, target: BinaryIO, progress: Callable[[int], None]
) -> AudioFacts:
    rate, samples = conversion.sample_rate_hertz, 0
    with _ogg(target) as output:
        # More than two channels are kept apart, in their order; a layout of loudspeakers would change it.
        options = {"mapping_family": "255"} if conversion.channels > 2 else {}
        bit_rate = OPUS_BITS_PER_S * conversion.channels
        stream: Any = None
        for frame in frames:
            if stream is None:
                stream = output.add_stream(
                    "libopus", rate=rate, options=options, layout=frame.layout.name, bit_rate=bit_rate
                )
            frame.pts, frame.time_base = samples, Fraction(1, rate)
            samples += frame.samples
            output.mux(stream.encode(frame))
            progress(samples_to_ms(samples, rate))
        output.mux(stream.encode(None))
    return AudioFacts(
        encoding=AudioEncoding.OGG_OPUS,
        sample_rate_hertz=_OPUS_HERTZ,
        channels=conversion.channels,
        duration_ms=samples_to_ms(samples, rate),
        size_bytes=_size_of(target),
    )


def _copy_packets(source: Source, target: BinaryIO, progress: Callable[[int], None]) -> AudioFacts:
    end = Fraction(0)
    with _ogg(target) as output:
        stream = output.add_stream_from_template(source.stream)
        for packet in source.packets():
            if packet.pts is None or packet.duration is None:
                # What flushes a decoder.
                continue
            at = packet.pts * packet.time_base
            if abs(at - end) > _MOST_SHIFT_S:
                raise DoesNotFitError
            packet.pts = packet.dts = round(end * _OPUS_HERTZ)
            end += packet.duration * packet.time_base
            packet.time_base = Fraction(1, _OPUS_HERTZ)
            packet.stream = stream
            output.mux(packet)
            progress(int(end * 1000))
    size = _size_of(target)

    def read(start: int, length: int) -> bytes:
        target.seek(start)
        return target.read(length)

    # What a decoder drops at either end is in the packets.
    return read_ogg(read, size, exact=True)


@contextmanager
def _ogg(target: BinaryIO) -> Iterator[Any]:
    sink = _Sink(target)
    av = import_av()
    # The same sound gives the same bytes, so that a copy which is made again has the same ETag.
    options = {"page_duration": "1000000", "fflags": "+bitexact"}
    try:
        with av.open(sink, "w", format="ogg", options=options) as output:
            yield output
    except av.error.FFmpegError:
        if sink.error is not None:
            raise sink.error from None
        raise


class _Sink:
    """A file that keeps the error with which it couldn't be written: PyAV loses it when it ends the container.

    :param file: what to write to
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write to the file.

        :raises OSError: it can't be written
        """
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise


def _size_of(target: BinaryIO) -> int:
    size = target.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        raise DoesNotFitError
    return size
