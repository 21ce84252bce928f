"""What a file is that the service doesn't take: its name, so that the error can say it, and what helps.

``kinds.csv`` lists the bytes that files of each kind have at an offset; the first line that fits counts.
"""

from __future__ import annotations

import csv
from enum import StrEnum
from functools import cache
from importlib.resources import files

from airflow_speechkit.recordings.audio import facts
from airflow_speechkit.recordings.audio.mpeg import read_frame, tag_length


class Remedy(StrEnum):
    """What can be done about a file that isn't taken."""

    CONVERT = facts.CONVERT
    UNPACK = "Unpack it, and upload the recordings that are in it"
    NO_AUDIO = "Exclude it: there is no sound in it"
    ERROR_PAGE = "Inspect it: the writer of the recording may have left an answer or an error message in its place"
    UPLOAD = facts.UPLOAD_AGAIN
    SILK = "Convert it with a SILK decoder: ffmpeg doesn't read it"


_TS_PACKET = 188
_MARKUP = ((b"<?xml", "XML"), (b"<!doctype html", "HTML"), (b"<html", "HTML"))
#: Samples without a header, by the extension: the codec, and its options for ffmpeg.
_HEADERLESS = {
    "g722": ("G.722", "-f g722"), "g726": ("G.726", "-f g726 -code_size 4"), "g729": ("G.729", "-f g729"),
    "gsm": ("GSM 06.10", "-f gsm"), "al": ("A-law", "-f alaw -ar 8000"), "alaw": ("A-law", "-f alaw -ar 8000"),
    "ul": ("mu-law", "-f mulaw -ar 8000"), "ulaw": ("mu-law", "-f mulaw -ar 8000"),
}  # fmt: skip
_LPCM = (
    "If these are 16-bit samples without a header (LPCM), set `audio_encoding='LINEAR16_PCM'` and `sample_rate_hertz`"
)

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
    if head[::_TS_PACKET][:3] == b"GGG":
        return "an MPEG transport stream", Remedy.CONVERT
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, kind in _MARKUP:
        if text.startswith(magic):
            return kind, Remedy.ERROR_PAGE
    if not _is_text(head):
        return None
    return ("a JSON text" if text[:1] in (b"{", b"[") else "a text"), Remedy.ERROR_PAGE


def unknown_kind(head: bytes, name: str) -> tuple[str, str]:
    """Return what a file of no known kind looks like, and what can be done about it.

    :param head: the first bytes of the file
    :param name: its name, the only hint at the codec of samples without a header
    """
    codec, options = _HEADERLESS.get(name.rpartition(".")[2].lower(), ("", ""))
    if codec:
        return f"by its name {codec} without a header", f"Convert it: ffmpeg {options} -i IN -c:a libopus OUT.ogg"
    if tag_length(head):
        return "no MP3: it begins with a tag (ID3 or APE), and what follows that is no MP3", Remedy.CONVERT
    if not head.strip(b"\0"):
        return "zeros from its beginning on, with no header", f"{Remedy.UPLOAD}. {_LPCM}"
    frame = read_frame(head[:4])
    if frame is not None and frame.stream.layer == 3:
        return "cut off or damaged: it begins like an MP3, and no second frame follows", Remedy.UPLOAD
    return (
        "of no known format: it has no header of audio",
        f"{_LPCM}. If they are of another codec (A-law, mu-law, G.722, G.726, GSM), name it to ffmpeg: "
        "ffmpeg -f alaw -ar 8000 -i IN -c:a libopus OUT.ogg",
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut.
        if not error.start or error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\ufeff" for character in text)
