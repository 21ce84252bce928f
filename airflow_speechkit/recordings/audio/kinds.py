"""What a file is that the service doesn't take: its name, so that the error can say it, and what helps.

``kinds.csv`` lists the bytes that files of each kind have at an offset; the first line that fits counts.
"""

from __future__ import annotations

import codecs
import csv
from enum import StrEnum
from functools import cache
from importlib.resources import files

from airflow_speechkit.recordings.audio import facts


class Remedy(StrEnum):
    """What can be done about a file that isn't taken."""

    CONVERT = facts.CONVERT
    UNPACK = "Unpack it, and upload the recordings that are in it"
    NO_AUDIO = "Exclude it: there is no sound in it"
    ERROR_PAGE = "Inspect it: the writer of the recording may have left an answer or an error message in its place"


#: Of audio, of video with a sound track, and of samples without a header.
_EXTENSIONS = frozenset(
    """
    3g2 3gp aac ac3 aif aifc aiff alac alaw amr ape asf au avi awb caf dss dts dvf flac g722 g726 g729 gsm lpcm m2a m4a
    m4b m4v mka mkv mov mp1 mp2 mp3 mp4 mpa mpeg mpg mpga mts msv oga ogg ogv ogx opus pcm qcp ra raw rf64 rm sln sln12
    sln16 sln24 sln32 sln44 sln48 snd spx sph tta ul ulaw voc vox w64 wav wave weba webm wma wmv wv
    """.split()  # noqa: SIM905 - a list would take a page
)


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


def foreign_kind(head: bytes, *, certain: bool = False) -> tuple[str, Remedy] | None:
    """Return the kind of a file that the service doesn't take, and what can be done about it; None if unknown.

    :param head: the first bytes of the file
    :param certain: whether to go by four bytes at least: two may just as well be a sample of LPCM
    """
    for offset, magic, kind, remedy in _kinds():
        if head.startswith(magic, offset) and (not certain or len(magic) >= 4):
            return kind, remedy
    return ("a text", Remedy.ERROR_PAGE) if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t\ufeff" for character in text)
