"""What a recording is, read from its own bytes: format, rate, channels and length, in few ranged reads.

The name proves nothing: half of the failures that people report are a WAV or a WebM that is called ``.ogg``. Of files
that the service doesn't take, ``kinds.csv`` lists the bytes that each kind has at an offset; the first line that fits
counts.
"""

from __future__ import annotations

import codecs
import csv
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, UnsupportedFormatError
from airflow_speechkit.recordings.audio.facts import CONVERT, UPLOAD_AGAIN, AudioFacts, samples_to_ms
from airflow_speechkit.recordings.audio.mp3 import read_frame, read_mp3, skip_tags, tag_length
from airflow_speechkit.recordings.audio.ogg import read_ogg
from airflow_speechkit.recordings.audio.wav import read_wav
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import Read
    from airflow_speechkit.settings import RecognitionSettings

_HEAD_BYTES = 512
_TS_PACKET_BYTES = 188

#: How much of a file `is_audio` takes: a few frames of an MP3.
AUDIO_HEAD_BYTES = 16 * 1024

#: Of audio, of video with a sound track, and of samples without a header.
_EXTENSIONS = frozenset(
    """
    3g2 3gp aac ac3 aif aifc aiff alac alaw amr ape asf au avi awb caf dss dts dvf flac g722 g726 g729 gsm lpcm m2a m4a
    m4b m4v mka mkv mov mp1 mp2 mp3 mp4 mpa mpeg mpg mpga mts msv oga ogg ogv ogx opus pcm qcp ra raw rf64 rm sln sln12
    sln16 sln24 sln32 sln44 sln48 snd spx sph tta ul ulaw voc vox w64 wav wave weba webm wma wmv wv
    """.split()  # noqa: SIM905 - a list would take a page
)


class Remedy(StrEnum):
    """What can be done about a file that isn't taken."""

    CONVERT = CONVERT
    UNPACK = "Unpack it, and upload the recordings that are in it"
    NO_AUDIO = "Exclude it: there is no sound in it"
    ERROR_PAGE = "Inspect it: the writer of the recording may have left an answer or an error message in its place"
    SILK = "Convert it with a SILK decoder: ffmpeg doesn't read it"


def read_audio(read: Read, size: int, settings: RecognitionSettings, *, exact: bool = False) -> AudioFacts:
    """Read what a recording is.

    Samples without a header (LPCM) can't be recognised: they are taken for that where `settings` say so, and where the
    bytes aren't those of another kind.

    :param read: reads the recording
    :param size: its size in bytes
    :param settings: what the user says about it
    :param exact: whether to read all of it where its head and tail don't prove its length
    :raises RecordingError: it is empty, cut off, or nothing that the service takes
    """
    if not size:
        raise RecordingError("The recording is empty (0 bytes)", hint=UPLOAD_AGAIN)
    head = read(0, _HEAD_BYTES)
    if head[:4] == b"OggS":
        return read_ogg(read, size, exact=exact)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return read_wav(read, size)
    samples = settings.audio_encoding is AudioEncoding.LINEAR16_PCM
    if (foreign := _foreign_kind(head, certain=samples)) is not None:
        raise _refusal(*foreign)
    if (facts := read_mp3(read, size, exact=exact)) is not None:
        return facts
    if (foreign := _kind_behind_tags(read, size)) is not None:
        raise _refusal(*foreign)
    if samples:
        return _read_lpcm(settings, size)
    if read_frame(head[:4]) or tag_length(head):
        raise RecordingError(
            "The recording begins like an MP3, and no frames of an MP3 follow",
            hint=UPLOAD_AGAIN,
        )
    raise UnsupportedFormatError(
        "The recording is of no known format: it has no header of audio",
        hint="If these are 16-bit samples without a header (LPCM), set `audio_encoding='LINEAR16_PCM'` and "
        "`sample_rate_hertz`. If they are of another codec (A-law, mu-law, GSM, G.722), give the file the extension of "
        "that codec (alaw, ulaw, gsm, g722), and set `upload_to`",
    )


def _refusal(kind: str, remedy: Remedy) -> RecordingError:
    error = UnsupportedFormatError if remedy is Remedy.CONVERT else RecordingError
    return error(f"The recording is {kind}, which the service doesn't accept", hint=remedy)


def _read_lpcm(settings: RecognitionSettings, size: int) -> AudioFacts:
    rate, channels = settings.sample_rate_hertz or 0, settings.audio_channel_count or 1
    frame = 2 * channels
    if size % frame:
        raise RecordingError(
            f"{size:,} bytes aren't whole 16-bit samples of {channels} channels: it is cut off, or it isn't LPCM",
            hint=f"Check `audio_channel_count`, or: {UPLOAD_AGAIN.lower()}",
        )
    return AudioFacts(
        encoding=AudioEncoding.LINEAR16_PCM,
        sample_rate_hertz=rate,
        channels=channels,
        duration_ms=samples_to_ms(size // frame, rate),
        size_bytes=size,
        data_bytes=size,
    )


def is_audio(head: bytes) -> bool:
    """Return whether a file is audio by its first bytes, also of a kind that the service doesn't take.

    Samples without a header can't be recognised.

    :param head: its first `AUDIO_HEAD_BYTES`, or all of it
    """
    if head[:4] == b"OggS" or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        return True
    foreign = _foreign_kind(head)
    if foreign is not None:
        return foreign[1] in (Remedy.CONVERT, Remedy.SILK)

    def read(start: int, length: int) -> bytes:
        return head[start : start + length]

    try:
        return read_mp3(read, len(head)) is not None or _kind_behind_tags(read, len(head)) is not None
    except RecordingError:
        # Cut off, or without sound: audio all the same.
        return True


def is_audio_name(name: str) -> bool:
    """Return whether a file's extension is one of audio."""
    _, dot, extension = name.rpartition(".")
    return bool(dot) and extension.lower() in _EXTENSIONS


@cache
def _kinds() -> tuple[tuple[int, bytes, str, Remedy], ...]:
    lines = files(__package__).joinpath("kinds.csv").read_text(encoding="ascii").splitlines()
    return tuple(
        (int(offset), written.encode().decode("unicode_escape").encode("latin-1"), kind, Remedy[remedy.upper()])
        for offset, written, kind, remedy in csv.reader(lines[1:])
    )


def _foreign_kind(head: bytes, *, certain: bool = False) -> tuple[str, Remedy] | None:
    """Return the kind of a file that the service doesn't take, and what can be done about it; None if unknown.

    :param head: the first bytes of the file
    :param certain: whether to go by four bytes at least: two may just as well be a sample of LPCM
    """
    for offset, magic, kind, remedy in _kinds():
        if head.startswith(magic, offset) and (not certain or len(magic) >= 4):
            return kind, remedy
    if head[::_TS_PACKET_BYTES][:3] == b"GGG":
        return "an MPEG transport stream", Remedy.CONVERT
    return ("a text", Remedy.ERROR_PAGE) if _is_text(head) else None


def _kind_behind_tags(read: Read, size: int) -> tuple[str, Remedy] | None:
    """Return the kind of a file that begins with a tag, as some FLAC and AAC files do; None if it is no such file."""
    tags_end = skip_tags(read, 0, size) if tag_length(read(0, _HEAD_BYTES)) else 0
    kind = _foreign_kind(read(tags_end, _HEAD_BYTES)) if tags_end else None
    return kind if kind is not None and kind[1] is Remedy.CONVERT else None


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t\ufeff" for character in text)
