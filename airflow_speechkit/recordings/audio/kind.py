"""Whether something is audio at all, also of a kind that the service doesn't take."""

from __future__ import annotations

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.foreign import Remedy, foreign_format
from airflow_speechkit.recordings.audio.mp3 import read_mp3

#: How much of a file it takes: a few frames of an MP3.
HEAD_BYTES = 16 * 1024

#: Of audio, of video with a sound track, and of samples without a header.
_EXTENSIONS = frozenset(
    """
    3g2 3gp aac ac3 aif aifc aiff alac alaw amr ape asf au avi awb caf dss dts dvf flac g722 g726 g729 gsm lpcm m2a m4a
    m4b m4v mka mkv mov mp1 mp2 mp3 mp4 mpa mpeg mpg mpga mts msv oga ogg ogv ogx opus pcm qcp ra raw rf64 rm sln sln12
    sln16 sln24 sln32 sln44 sln48 snd spx sph tta ul ulaw voc vox w64 wav wave weba webm wma wmv wv
    """.split()  # noqa: SIM905 - a list would take a page
)


def is_audio_name(name: str) -> bool:
    """Tell whether a file's extension is one of audio."""
    _, dot, extension = name.rpartition(".")
    return bool(dot) and extension.lower() in _EXTENSIONS


def is_audio(head: bytes) -> bool:
    """Tell whether a file is audio by what it begins with. Samples without a header can't be recognised.

    :param head: its first `HEAD_BYTES`, or all of it
    """
    if head[:4] == b"OggS" or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        return True
    foreign = foreign_format(head)
    if foreign is not None:
        return foreign[1] in (Remedy.CONVERT, Remedy.SILK)
    try:
        return read_mp3(_Head(head), len(head), exact=False) is not None
    except RecordingError:
        # Cut off, without sound, or another kind of MPEG audio: audio all the same.
        return True


class _Head:
    def __init__(self, head: bytes) -> None:
        self._head = head

    def read(self, start: int, length: int) -> bytes:
        return self._head[start : start + length]
