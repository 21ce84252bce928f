"""What a file is that the service doesn't take: its name, so that the error can say it."""

from __future__ import annotations

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"fLaC", "FLAC"),
    (4, b"ftypM4A", "AAC in MP4 (m4a)"),
    (4, b"ftyp", "MP4"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (0, b"#!AMR", "AMR"),
    (0, b".snd", "Sun audio (au)"),
    (8, b"AIFF", "AIFF"),
    (8, b"AIFC", "AIFF"),
    (8, b"AVI ", "AVI"),
    (0, b"caff", "Apple Core Audio (caf)"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (wma)"),
    (0, b"\xff\xf1", "AAC (ADTS)"),
    (0, b"\xff\xf9", "AAC (ADTS)"),
    (0, b"wvpk", "WavPack"),
    (0, b"RIFX", "big-endian WAV (RIFX)"),
    (0, b"RF64", "64-bit WAV (RF64)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"Rar!", "a rar archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<?xml", "XML"),
    (0, b"<!DOCTYPE", "HTML"),
    (0, b"<html", "HTML"),
)


def foreign_format(head: bytes, *, certain: bool = False) -> str | None:
    """Return what a file is called whose first bytes are known, but that the service doesn't take.

    :param head: the first bytes of the file
    :param certain: whether to go by four bytes at least: two may just as well be a raw sample
    """
    for place, magic, name in _MAGIC:
        if head[place : place + len(magic)] == magic and (not certain or len(magic) >= 4):
            return name
    return None
