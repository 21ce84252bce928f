"""What a file is that the service doesn't take: its name, so that the error can say it, and what helps."""

from __future__ import annotations

from enum import StrEnum

from airflow_speechkit.recordings.audio.mpeg import read_frame
from airflow_speechkit.recordings.audio.tags import tag_length


class Remedy(StrEnum):
    """What can be done about a file that isn't taken."""

    CONVERT = "Convert it: ffmpeg -i IN -c:a libopus OUT.ogg"
    UNPACK = "Unpack it, and upload the recordings that are in it"
    NO_AUDIO = "Leave it out: there is no sound in it"
    ERROR_PAGE = (
        "Look at it: what should have written a recording may have left an answer or an error message in its place"
    )
    UPLOAD = "Upload the recording again"
    SILK = "Convert it with a SILK decoder: ffmpeg doesn't read it"


_CONVERT = (
    (0, b"fLaC", "FLAC"),
    (4, b"ftypM4A", "AAC in MP4 (m4a)"),
    (4, b"ftyp3g", "3GP"),
    (4, b"ftypqt", "QuickTime (mov)"),
    (4, b"ftyp", "MP4"),
    (4, b"moov", "QuickTime (mov)"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (0, b"#!AMR-WB", "AMR-WB"),
    (0, b"#!AMR", "AMR"),
    (0, b".snd", "Sun audio (au)"),
    (8, b"AIFF", "AIFF"),
    (8, b"AIFC", "AIFF"),
    (8, b"AVI ", "AVI"),
    (0, b"caff", "Apple Core Audio (caf)"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (wma)"),
    (0, b"\xff\xf1", "AAC (ADTS)"),
    (0, b"\xff\xf9", "AAC (ADTS)"),
    (0, b"ADIF", "AAC (ADIF)"),
    (0, b"\x0bw", "AC-3"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio (ape)"),
    (0, b"TTA1", "True Audio (tta)"),
    (0, b"Creative Voice File", "Creative Voice (voc)"),
    (0, b"NIST_1A", "NIST Sphere (sph)"),
    (0, b"riff\x2e\x91\xcf\x11", "Wave64 (w64)"),
    (0, b"FLV\x01", "Flash video (flv)"),
    (0, b"\0\0\x01\xba", "an MPEG program stream"),
    (0, b"RIFX", "big-endian WAV (RIFX)"),
    (0, b"RF64", "64-bit WAV (RF64)"),
    (0, b"BW64", "64-bit WAV (BW64)"),
)
_UNPACK = (
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"Rar!", "a rar archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
)
_NO_AUDIO = (
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"MThd", "a MIDI file"),
)
_MAGIC = (
    *((*one, Remedy.CONVERT) for one in _CONVERT),
    *((*one, Remedy.UNPACK) for one in _UNPACK),
    *((*one, Remedy.NO_AUDIO) for one in _NO_AUDIO),
    (0, b"\x02#!SILK", "SILK", Remedy.SILK),
    (0, b"#!SILK", "SILK", Remedy.SILK),
)
_TS_PACKET = 188
_MARKUP = ((b"<?xml", "XML"), (b"<!doctype html", "HTML"), (b"<html", "HTML"))
#: Samples without a header, by what such files are called: the codec, and how ffmpeg is told.
_HEADERLESS = {
    "g722": ("G.722", "-f g722"),
    "g726": ("G.726", "-f g726 -code_size 4"),
    "g729": ("G.729", "-f g729"),
    "gsm": ("GSM 06.10", "-f gsm"),
    "al": ("A-law", "-f alaw -ar 8000"),
    "alaw": ("A-law", "-f alaw -ar 8000"),
    "ul": ("mu-law", "-f mulaw -ar 8000"),
    "ulaw": ("mu-law", "-f mulaw -ar 8000"),
}
_LPCM = (
    "If these are 16-bit samples without a header (LPCM), set `audio_encoding='LINEAR16_PCM'` and `sample_rate_hertz`"
)


def foreign_format(head: bytes, *, certain: bool = False) -> tuple[str, Remedy] | None:
    """Return what a file is called that the service doesn't take, and what can be done about it; None if unknown.

    :param head: the first bytes of the file
    :param certain: whether to go by four bytes at least: two may just as well be a raw sample
    """
    for place, magic, name, remedy in _MAGIC:
        if head[place : place + len(magic)] == magic and (not certain or len(magic) >= 4):
            return name, remedy
    if head[::_TS_PACKET][:3] == b"GGG":
        return "an MPEG transport stream", Remedy.CONVERT
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, name in _MARKUP:
        if text.startswith(magic):
            return name, Remedy.ERROR_PAGE
    if not _is_text(head):
        return None
    return ("a JSON text" if text[:1] in (b"{", b"[") else "a text"), Remedy.ERROR_PAGE


def unknown_format(head: bytes, name: str) -> tuple[str, str]:
    """Say what a file looks like that nothing else knows, and what can be done about it.

    :param head: the first bytes of the file
    :param name: what it is called; of samples without a header nothing else tells the codec
    """
    codec = _HEADERLESS.get(name.rpartition(".")[2].lower())
    if codec is not None:
        return (
            f"by its name {codec[0]} without a header",
            f"Convert it: ffmpeg {codec[1]} -i IN -c:a libopus OUT.ogg",
        )
    if tag_length(head):
        return "no MP3: it begins with a tag (ID3 or APE), and what comes behind that is no MP3", Remedy.CONVERT
    if not head.strip(b"\0"):
        return "zeros from its beginning on, with no header", f"{Remedy.UPLOAD}. {_LPCM}"
    frame = read_frame(head[:4])
    if frame is not None and frame.layer == 3:
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
