"""Compressed bytes from outside, inflated only up to a limit."""

from __future__ import annotations

import gzip
import io
import zlib

from airflow_speechkit.errors import AnswerUnreadableError

#: A larger answer is archived unread: this is ten times the largest one to expect. Four hours of audio, the service's
#: limit, have some 43,000 words. v3 takes about 280 bytes a word, 12 MB; v2 takes about 160.
LARGEST_ANSWER_BYTES = 128 << 20

_HEAD_BYTES = 64 << 10
_PIECE_BYTES = 256 << 10
_GZIP = 31


class Packed(bytes):
    """The gzip stream of an answer that is too large to be read: it is archived as it is."""

    def head(self) -> bytes:
        """Return the beginning of the answer; nothing if it cannot be inflated."""
        try:
            return zlib.decompressobj(_GZIP).decompress(self, _HEAD_BYTES)
        except zlib.error:
            return b""


class BrokenBodyError(Exception):
    """A response's body cannot be used; the text says why, without any of the body."""


class Body:
    """A response's body as it arrives. Beyond the limit it is kept compressed.

    :param encoding: the header ``Content-Encoding``
    :param largest_bytes: the limit. A body that is larger even when it is compressed, or has more than eight times as
        many plain bytes, is refused: its sender may never stop
    :raises BrokenBodyError: the encoding is not supported
    """

    def __init__(self, encoding: str | None, largest_bytes: int = LARGEST_ANSWER_BYTES) -> None:
        named = (encoding or "identity").strip().lower()
        if named not in ("identity", "gzip", "x-gzip"):
            raise BrokenBodyError("the answer has an encoding that was not asked for")
        self._is_gzip = named != "identity"
        self._largest_bytes = largest_bytes
        self._kept = io.BytesIO()
        self._deflater: zlib._Compress | None = None
        self.received_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Add the next bytes.

        :raises BrokenBodyError: there are too many
        """
        self.received_bytes += len(chunk)
        self._kept.write(chunk if self._deflater is None else self._deflater.compress(chunk))
        if not self._is_gzip and self._deflater is None and self._kept.tell() > self._largest_bytes:
            self._deflater = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
            self._kept = io.BytesIO(self._deflater.compress(self._kept.getbuffer()))
            self._kept.seek(0, io.SEEK_END)
        if self._kept.tell() > self._largest_bytes or self.received_bytes > 8 * self._largest_bytes:
            raise BrokenBodyError(f"it is many times larger than any answer ({self.received_bytes:,} bytes and more)")

    def whole(self) -> bytes:
        """Return the complete body: its bytes, or `Packed` if they are too many.

        Inflates the body: an event loop calls this in a thread if many bytes were received.

        :raises BrokenBodyError: it is cut off, or is not gzip
        """
        if self._deflater is not None:
            self._kept.write(self._deflater.flush())
            return Packed(self._kept.getvalue())
        raw = self._kept.getvalue()
        if not self._is_gzip or not raw:
            return raw
        try:
            return inflated(raw, self._largest_bytes)
        except AnswerUnreadableError:
            return Packed(raw)
        except ValueError as error:
            raise BrokenBodyError(f"its encoding is gzip, and {error}") from None


def is_gzip(raw: bytes) -> bool:
    """Tell whether this begins as gzip does."""
    return raw.startswith(b"\x1f\x8b")


def inflated(raw: bytes, most_bytes: int) -> bytes:
    """Inflate gzip, up to a limit.

    :param raw: one gzip stream, or several in a row
    :param most_bytes: how many bytes may come of it
    :raises AnswerUnreadableError: there are more
    :raises ValueError: it is damaged
    """
    plain = io.BytesIO()
    try:
        with gzip.open(io.BytesIO(raw)) as stream:
            while piece := stream.read(_PIECE_BYTES):
                check_size(plain.tell() + len(piece), most_bytes)
                plain.write(piece)
    except (OSError, EOFError, zlib.error):
        raise ValueError("it is cut off or damaged") from None
    return plain.getvalue()


def check_size(size_bytes: int, most_bytes: int) -> None:
    """Check that an answer has no more bytes than may be held.

    :raises AnswerUnreadableError: it has
    """
    if size_bytes > most_bytes:
        raise AnswerUnreadableError(
            f"The answer has more than {most_bytes:,} bytes, the most that this `memory_mib` allows",
            hint="Raise `memory_mib`",
            retry="fails in the same way until then",
            retry_can_help=False,
        )
